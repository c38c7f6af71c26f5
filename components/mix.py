"""Draw the examples of the three stages by quota, lay them out and pack them."""

from kfp import dsl

from components import IMAGES, component


@component(base_image=IMAGES["cpu"])
def mix(
    run: str,
    tokens: dsl.Input[list[dsl.Dataset]],
    base: dsl.Input[dsl.Model],
    contract: dsl.Input[dsl.Artifact],
    data: dsl.Output[dsl.Dataset],
):
    """``tokens`` holds every shard."""
    from ichigo.steps import mix as step

    step.main(run, [one.path for one in tokens], base=base.path, contract=contract.path, data=data.path)
