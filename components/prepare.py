"""Read recordings, speak sentences, split, check, and cut the corpus into shards."""

from kfp import dsl

from components import IMAGES, component


@component(base_image=IMAGES["cpu"])
def prepare(run: str, corpus: dsl.Output[dsl.Dataset]) -> list[str]:
    """Returns the names of the corpus's shards."""
    from ichigo.steps import prepare as step

    return step.main(run, corpus=corpus.path)
