"""Ask the trained model what it never met in training."""

from kfp import dsl

from components import IMAGES, component


@component(base_image=IMAGES["train"])
def evaluate(
    run: str,
    model: dsl.Input[dsl.Model],
    tokens: dsl.Input[list[dsl.Dataset]],
    evaluation: dsl.Output[dsl.Artifact],
):
    """``tokens`` holds every shard; only its held-out rows are asked."""
    from ichigo.steps import evaluate as step

    step.main(run, model=model.path, tokens=[one.path for one in tokens], evaluation=evaluation.path)
