"""Draw the examples of the three stages by quota, lay them out and pack them."""

from kfp import dsl

from components import IMAGES, component


@component(base_image=IMAGES["cpu"])
def mix(
    run: str,
    tokens: dsl.Input[list[dsl.Dataset]],
    corpus: dsl.Input[dsl.Dataset],
    base: dsl.Input[dsl.Model],
    contract: dsl.Input[dsl.Artifact],
    data: dsl.Output[dsl.Dataset],
):
    """``tokens`` holds every shard; ``corpus`` has the written rows."""
    from ichigo.steps import mix as step

    tokens = [one.path for one in tokens]
    step.main(run, tokens, corpus=corpus.path, base=base.path, contract=contract.path, data=data.path)
