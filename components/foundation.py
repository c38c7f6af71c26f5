"""Make what the chain stands on: the speech tokenizer or the base model."""

from kfp import dsl

from components import IMAGES, component


@component(base_image=IMAGES["train"])
def foundation(run: str, part: str, corpus: dsl.Input[dsl.Dataset], model: dsl.Output[dsl.Model]):
    """``part`` is ``tokenizer`` or ``base``."""
    from ichigo.steps import foundation as step

    step.main(run, part, corpus=corpus.path, model=model.path)
