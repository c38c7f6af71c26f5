"""Ask the trained model what it never met in training."""

from kfp import dsl

from components import IMAGES, component


@component(base_image=IMAGES["train"])
def evaluate(
    run: str,
    model: dsl.Input[dsl.Model],
    base: dsl.Input[dsl.Model],
    tokenizer: dsl.Input[dsl.Model],
    corpus: dsl.Input[dsl.Dataset],
    tokens: dsl.Input[list[dsl.Dataset]],
    evaluation: dsl.Output[dsl.Artifact],
):
    """``tokens`` holds every shard; only its held-out rows are asked, and the held-out texts of ``corpus``."""
    from ichigo.steps import evaluate as step

    step.main(
        run,
        model=model.path,
        base=base.path,
        tokenizer=tokenizer.path,
        corpus=corpus.path,
        tokens=[one.path for one in tokens],
        evaluation=evaluation.path,
    )
