"""Give the base model rows for the sound tokens."""

from kfp import dsl

from components import IMAGES, component


@component(base_image=IMAGES["train"])
def expand(
    run: str,
    base: dsl.Input[dsl.Model],
    tokenizer: dsl.Input[dsl.Model],
    contract: dsl.Input[dsl.Artifact],
    model: dsl.Output[dsl.Model],
):
    """The base model with the contract's vocabulary."""
    from ichigo.steps import expand as step

    step.main(run, base=base.path, tokenizer=tokenizer.path, contract=contract.path, model=model.path)
