"""Turn one shard of recordings into sound tokens."""

from kfp import dsl

from components import IMAGES, component


@component(base_image=IMAGES["train"])
def tokenize(
    run: str,
    shard: str,
    corpus: dsl.Input[dsl.Dataset],
    tokenizer: dsl.Input[dsl.Model],
    contract: dsl.Input[dsl.Artifact],
    tokens: dsl.Output[dsl.Dataset],
):
    """``shard`` is one of the names that ``prepare`` returned."""
    from ichigo.steps import tokenize as step

    step.main(run, shard, corpus=corpus.path, tokenizer=tokenizer.path, contract=contract.path, tokens=tokens.path)
