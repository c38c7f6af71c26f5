"""Join tokenizer and base under one token contract."""

from kfp import dsl

from components import IMAGES, component


@component(base_image=IMAGES["cpu"])
def contract(
    run: str,
    foundations: dsl.Input[list[dsl.Model]],
    tokenizer: dsl.Output[dsl.Model],
    base: dsl.Output[dsl.Model],
    contract: dsl.Output[dsl.Artifact],
):
    """``foundations`` holds the tokenizer and the base, in this order."""
    from ichigo.steps import contract as step

    step.main(run, [one.path for one in foundations], tokenizer=tokenizer.path, base=base.path, contract=contract.path)
