"""Compare the candidate with the recipe's policy and with the incumbent."""

from kfp import dsl

from components import IMAGES, component


@component(base_image=IMAGES["cpu"])
def gate(run: str, evaluation: dsl.Input[dsl.Artifact]) -> str:
    """Returns the verdict: ``promote``, ``hold`` or ``refuse``."""
    from ichigo.steps import gate as step

    return step.main(run, evaluation=evaluation.path)
