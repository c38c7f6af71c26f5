"""Put the model into the MLflow registry."""

from kfp import dsl

from components import IMAGES, component


@component(base_image=IMAGES["cpu"])
def register(run: str, model: dsl.Input[dsl.Model], verdict: str):
    """Runs only when the verdict is not ``refuse``."""
    from ichigo.steps import register as step

    step.main(run, model=model.path, verdict=verdict)
