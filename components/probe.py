"""Look at the model of a stage before the next one is spent on it."""

from kfp import dsl

from components import IMAGES, component


@component(base_image=IMAGES["train"])
def probe(
    run: str,
    name: str,
    model: dsl.Input[dsl.Model],
    base: dsl.Input[dsl.Model],
    corpus: dsl.Input[dsl.Dataset],
    tokens: dsl.Input[list[dsl.Dataset]],
    data: dsl.Input[dsl.Dataset],
    probed: dsl.Output[dsl.Model],
):
    """``name`` is ``probe-`` and the stage; ``probed`` is the model again, so what follows waits for the verdict."""
    from ichigo.steps import probe as step

    step.main(
        run,
        name,
        model=model.path,
        base=base.path,
        corpus=corpus.path,
        tokens=[one.path for one in tokens],
        data=data.path,
        probed=probed.path,
    )
