"""The one pipeline: recordings in, a registered model out.

``python -m pipelines.ichigo`` compiles it to ``pipelines/ichigo.yaml``, the file that ``ichigo run`` executes on this
machine and that a Kubeflow cluster executes unchanged. Only short strings cross parameters: the run key, and the recipe
as store URI and digest.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kfp import compiler, dsl

from components.begin import begin
from components.contract import contract
from components.evaluate import evaluate
from components.expand import expand
from components.finish import finish
from components.foundation import foundation
from components.gate import gate
from components.mix import mix
from components.package import package
from components.prepare import prepare
from components.probe import probe
from components.register import register
from components.tokenize import tokenize
from components.train import train
from ichigo.recipe.schema import STAGE_ORDER

COMPILED = Path(__file__).with_suffix(".yaml")
FOUNDATIONS = ["tokenizer", "base"]  # a loop, because kfp.local runs only the iterations of a loop side by side


def step(component: Callable[..., dsl.PipelineTask], **arguments: Any) -> dsl.PipelineTask:
    """One task; KFP's own cache is off, because the store decides what is reused."""
    return component(**arguments).set_caching_options(False)


@dsl.pipeline(name="ichigo", description="Recordings to sound tokens, a Llama decoder in three stages, a gate.")
def ichigo(run: str, recipe_uri: str, recipe_digest: str) -> None:
    """``run`` is where the run's record goes (``<store>/runs/<run key>/run.json``); the recipe is an object in the
    store and its SHA-256.

    ``run`` is a parameter and no output of ``begin``, because kfp.local 2.17 gives a task inside a loop the loop's item
    in place of every output parameter of a task outside.
    """
    with dsl.ExitHandler(step(finish, run=run, recipe_uri=recipe_uri, recipe_digest=recipe_digest)):
        begun = step(begin, run=run, recipe_uri=recipe_uri, recipe_digest=recipe_digest)
        prepared = step(prepare, run=run).after(begun)
        corpus = prepared.outputs["corpus"]
        with dsl.ParallelFor(FOUNDATIONS, name="foundations") as part:
            made = step(foundation, run=run, part=part, corpus=corpus)
        joined = step(contract, run=run, foundations=dsl.Collected(made.outputs["model"])).outputs
        tokenizer, base, ids = joined["tokenizer"], joined["base"], joined["contract"]
        with dsl.ParallelFor(prepared.outputs["Output"], name="shards") as shard:
            shards = step(tokenize, run=run, shard=shard, corpus=corpus, tokenizer=tokenizer, contract=ids)
        tokens = shards.outputs["tokens"]
        mixed = step(mix, run=run, tokens=dsl.Collected(tokens), corpus=corpus, base=base, contract=ids)
        data = mixed.outputs["data"]
        model = step(expand, run=run, base=base, tokenizer=tokenizer, contract=ids).outputs["model"]
        for stage in STAGE_ORDER:
            trained = step(train, run=run, stage=stage, start=model, data=data).outputs["model"]
            beside = {"base": base, "corpus": corpus, "tokens": dsl.Collected(tokens)}  # kfp takes a Collected once
            looked = step(probe, run=run, name=f"probe-{stage}", model=trained, data=data, **beside)
            model = looked.outputs["probed"]
        beside = {"base": base, "tokenizer": tokenizer, "corpus": corpus, "tokens": dsl.Collected(tokens)}
        judged = step(evaluate, run=run, model=model, **beside).outputs["evaluation"]
        verdict = step(gate, run=run, evaluation=judged).output
        with dsl.If(verdict != "refuse", name="not-refused"):
            packed = step(package, run=run, model=model, tokenizer=tokenizer).outputs["package"]
            step(register, run=run, model=packed, verdict=verdict)


def compile_to(path: Path = COMPILED) -> Path:
    """Write the IR; the same source and kfp version give the same bytes."""
    compiler.Compiler().compile(ichigo, str(path))
    return path


if __name__ == "__main__":
    print(f"wrote {compile_to()}")
