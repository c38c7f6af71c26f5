"""Train one stage with DeepSpeed, from the named output of the one before."""

from kfp import dsl

from components import IMAGES, component


@component(base_image=IMAGES["train"])
def train(
    run: str,
    stage: str,
    start: dsl.Input[dsl.Model],
    data: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
):
    """``stage`` is ``pretrain``, ``instruct`` or ``enhance``."""
    from ichigo.steps import train as step

    step.main(run, stage, start=start.path, data=data.path, model=model.path)
