"""The compiled pipeline read back: what every engine will execute, with nobody's pipeline function in between."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format  # type: ignore[import-untyped]
from kfp.pipeline_spec import pipeline_spec_pb2

from ichigo.engines.pipeline import compiled_pipeline
from ichigo.recipe.schema import STAGE_ORDER

Json = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
COMPILED = ROOT / "pipelines" / "ichigo.yaml"
STEPS = {
    *("begin", "prepare", "foundation", "contract", "tokenize", "mix", "expand", "train"),
    *("probe", "evaluate", "gate", "package", "register", "finish"),
}
ROOT_PARAMETERS = {"run", "recipe_uri", "recipe_digest"}
SECRET = re.compile(
    r"(?i)secret|passw|credential|api.?key|access.?key|bearer|AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*KEY|://[^/\s]*:[^/\s]*@"
)


@pytest.fixture(scope="module")
def ir() -> Json:
    loaded: Json = yaml.safe_load(COMPILED.read_text())
    return loaded


@pytest.fixture(scope="module")
def inner(ir: Json) -> Json:
    """The tasks inside the exit handler."""
    return tasks_of(ir, ir["root"]["dag"]["tasks"]["exit-handler-1"])


def tasks_of(ir: Json, task: Json) -> Json:
    """The tasks of the group that ``task`` runs."""
    tasks: Json = ir["components"][task["componentRef"]["name"]]["dag"]["tasks"]
    return tasks


def groups(ir: Json) -> Iterator[Json]:
    """The tasks of the root and of every loop, condition and handler below it."""
    yield ir["root"]["dag"]["tasks"]
    for component in ir["components"].values():
        if "dag" in component:
            yield component["dag"]["tasks"]


def work(ir: Json) -> Iterator[tuple[str, Json]]:
    """(name, task) of every task that runs a step, wherever it lies."""
    for tasks in groups(ir):
        for name, task in tasks.items():
            if "executorLabel" in ir["components"][task["componentRef"]["name"]]:
                yield name, task


def source_of(task: Json, artifact: str) -> tuple[str, str]:
    """(task, output) that an input artifact of a task comes from."""
    found = task["inputs"]["artifacts"][artifact]["taskOutputArtifact"]
    return found["producerTask"], found["outputArtifactKey"]


def value_of(task: Json, parameter: str) -> Json:
    value: Json = task["inputs"]["parameters"][parameter]
    return value


def program(executor: Json) -> str:
    """The source text that an executor ships."""
    command: list[str] = executor["container"]["command"]
    return next(part for part in command if "def " in part)


def executors(ir: Json) -> dict[str, Json]:
    found: dict[str, Json] = ir["deploymentSpec"]["executors"]
    return found


class TestGoldenFile:
    """``pipelines/ichigo.yaml``."""

    @pytest.mark.parametrize("hash_seed", ["0", "4242"])
    def test_it_is_what_the_sources_compile_to(self, tmp_path: Path, hash_seed: str) -> None:
        """If not: ``make compile``, and look at the difference. The order of hashing must not show."""
        code = "import sys, pathlib; from pipelines.ichigo import compile_to; compile_to(pathlib.Path(sys.argv[1]))"
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
        fresh = tmp_path / "fresh.yaml"
        subprocess.run([sys.executable, "-c", code, str(fresh)], env=environment, cwd=tmp_path, check=True)
        assert fresh.read_text() == COMPILED.read_text()

    def test_it_is_the_file_that_engines_execute(self) -> None:
        assert compiled_pipeline() == COMPILED

    def test_it_is_one_valid_pipeline_of_the_format(self) -> None:
        """Unknown fields are refused; a second document would hold Kubernetes settings that kfp.local drops."""
        documents = list(yaml.safe_load_all(COMPILED.read_text()))
        assert len(documents) == 1
        spec = json_format.ParseDict(documents[0], pipeline_spec_pb2.PipelineSpec())
        assert spec.pipeline_info.name == "ichigo"
        assert len(spec.root.dag.tasks) == 2


class TestTasks:
    """Which steps run, in what order, on what."""

    def test_every_step_is_there_and_training_three_times(self, ir: Json) -> None:
        ran = [ir["components"][task["componentRef"]["name"]]["executorLabel"] for _, task in work(ir)]
        expected = [f"exec-{step}" for step in STEPS] + [
            f"exec-{step}-{number}" for step in ("train", "probe") for number in (2, 3)
        ]
        assert sorted(ran) == sorted(expected)

    def test_only_three_strings_enter(self, ir: Json) -> None:
        entering = ir["root"]["inputDefinitions"]
        assert set(entering) == {"parameters"}
        assert {name: value["parameterType"] for name, value in entering["parameters"].items()} == dict.fromkeys(
            ROOT_PARAMETERS, "STRING"
        )

    def test_everything_but_finish_runs_inside_the_exit_handler(self, ir: Json) -> None:
        outside = ir["root"]["dag"]["tasks"]
        assert set(outside) == {"exit-handler-1", "finish"}
        assert outside["finish"]["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
        assert value_of(outside["finish"], "status") == {"taskFinalStatus": {"producerTask": "exit-handler-1"}}

    def test_finish_needs_nothing_that_a_failed_run_lacks(self, ir: Json) -> None:
        inputs = ir["root"]["dag"]["tasks"]["finish"]["inputs"]
        assert set(inputs) == {"parameters"}
        given = {name: value for name, value in inputs["parameters"].items() if name != "status"}
        assert given == {name: {"componentInputParameter": name} for name in ROOT_PARAMETERS}

    def test_each_stage_starts_from_the_named_output_of_the_one_before(self, inner: Json) -> None:
        stages = [inner[name] for name in ("train", "train-2", "train-3")]
        assert [value_of(stage, "stage")["runtimeValue"]["constant"] for stage in stages] == list(STAGE_ORDER)
        assert [source_of(stage, "start") for stage in stages] == [
            ("expand", "model"),
            ("probe", "probed"),
            ("probe-2", "probed"),
        ]
        assert {source_of(stage, "data") for stage in stages} == {("mix", "data")}

    def test_each_stage_is_looked_at_before_the_next_begins(self, inner: Json) -> None:
        probes = [inner[name] for name in ("probe", "probe-2", "probe-3")]
        names = [value_of(probe, "name")["runtimeValue"]["constant"] for probe in probes]
        assert names == [f"probe-{stage}" for stage in STAGE_ORDER]
        assert [source_of(probe, "model") for probe in probes] == [
            ("train", "model"),
            ("train-2", "model"),
            ("train-3", "model"),
        ]
        assert {source_of(probe, "base") for probe in probes} == {("contract", "base")}

    @pytest.mark.parametrize(
        ("task", "artifact", "source"),
        [
            ("contract", "foundations", ("for-loop-3", "pipelinechannel--foundation-model")),
            ("mix", "tokens", ("for-loop-4", "pipelinechannel--tokenize-tokens")),
            ("mix", "base", ("contract", "base")),
            ("mix", "contract", ("contract", "contract")),
            ("expand", "base", ("contract", "base")),
            ("expand", "contract", ("contract", "contract")),
            ("evaluate", "model", ("probe-3", "probed")),
            ("evaluate", "tokens", ("for-loop-4", "pipelinechannel--tokenize-tokens")),
            ("gate", "evaluation", ("evaluate", "evaluation")),
        ],
    )
    def test_every_input_comes_from_its_maker(
        self, inner: Json, task: str, artifact: str, source: tuple[str, str]
    ) -> None:
        assert source_of(inner[task], artifact) == source

    def test_a_task_waits_for_whoever_makes_its_inputs(self, ir: Json) -> None:
        for tasks in groups(ir):
            for task in tasks.values():
                makers = set(re.findall(r"'producerTask': '([^']+)'", str(task.get("inputs", {}))))
                assert makers <= set(task.get("dependentTasks", []))

    def test_nothing_starts_before_begin(self, inner: Json) -> None:
        """By a chain of dependencies: every step reads the record that begin writes."""

        def before(name: str) -> set[str]:
            direct = set(inner[name].get("dependentTasks", []))
            return direct.union(*(before(one) for one in direct))

        assert all("begin" in before(name) for name in inner if name != "begin")

    def test_the_foundations_are_made_side_by_side_on_the_corpus(self, ir: Json, inner: Json) -> None:
        loop = inner["for-loop-3"]
        assert loop["parameterIterator"]["items"] == {"raw": '["tokenizer", "base"]'}
        assert source_of(loop, "pipelinechannel--prepare-corpus") == ("prepare", "corpus")
        assert looped(ir, loop, "foundation", "part") == loop["parameterIterator"]["itemInput"]

    def test_every_shard_that_prepare_names_is_tokenised(self, ir: Json, inner: Json) -> None:
        loop = inner["for-loop-4"]
        items = loop["parameterIterator"]["items"]["inputParameter"]
        assert value_of(loop, items) == {
            "taskOutputParameter": {"producerTask": "prepare", "outputParameterKey": "Output"}
        }
        assert looped(ir, loop, "tokenize", "shard") == loop["parameterIterator"]["itemInput"]
        assert source_of(loop, "pipelinechannel--contract-tokenizer") == ("contract", "tokenizer")

    def test_a_model_is_registered_only_behind_a_gate_that_did_not_refuse(self, ir: Json, inner: Json) -> None:
        registering = [name for name, task in inner.items() if "register" in tasks_or_nothing(ir, task)]
        assert registering == ["condition-5"]
        condition = inner["condition-5"]
        tested = "pipelinechannel--gate-Output"
        assert condition["triggerPolicy"]["condition"] == f"inputs.parameter_values['{tested}'] != 'refuse'"
        assert value_of(condition, tested) == {
            "taskOutputParameter": {"producerTask": "gate", "outputParameterKey": "Output"}
        }
        register = tasks_of(ir, condition)["register"]
        assert value_of(register, "verdict") == {"componentInputParameter": tested}
        judged = "pipelinechannel--probe-3-probed"
        assert source_of(condition, judged) == ("probe-3", "probed")
        package = tasks_of(ir, condition)["package"]
        assert package["inputs"]["artifacts"]["model"] == {"componentInputArtifact": judged}
        assert source_of(register, "model") == ("package", "package")

    def test_every_step_gets_the_run_from_the_root(self, ir: Json) -> None:
        """And from no task's output: kfp.local gives a task in a loop the loop's item in place of such a parameter."""
        runs = {name: value_of(task, "run")["componentInputParameter"] for name, task in work(ir)}
        assert set(runs.values()) == {"run", "pipelinechannel--run"}

    def test_the_store_alone_decides_what_is_reused(self, ir: Json) -> None:
        """Caching is on when ``enableCache`` is true; off is an empty message, and an absent one may mean either."""
        assert {name: task.get("cachingOptions") for name, task in work(ir)} == {name: {} for name, _ in work(ir)}


def tasks_or_nothing(ir: Json, task: Json) -> Json:
    return tasks_of(ir, task) if "dag" in ir["components"][task["componentRef"]["name"]] else {}


def looped(ir: Json, loop: Json, task: str, parameter: str) -> str:
    """The group input that a task inside a loop takes a parameter from."""
    source: str = value_of(tasks_of(ir, loop)[task], parameter)["componentInputParameter"]
    return source


class TestExecutors:
    """What a container of each step is told to do."""

    def test_nothing_is_installed_when_a_step_starts(self, ir: Json) -> None:
        for executor in executors(ir).values():
            assert not re.search(r"\b(pip|uv|conda|apt|apt-get) +install\b", " ".join(executor["container"]["command"]))

    def test_no_secret_and_no_setting_of_a_machine_is_compiled_in(self, ir: Json) -> None:
        assert not SECRET.search(COMPILED.read_text())
        for executor in executors(ir).values():
            assert set(executor["container"]) == {"args", "command", "image"}  # no env, no resources of one machine

    def test_constants_hold_no_text_that_kfp_local_rewrites(self, ir: Json) -> None:
        """It replaces ``python3`` in every argument by its interpreter's path, so no constant may hold it."""
        tasks = [task for tasks in groups(ir) for task in tasks.values()]
        inputs = [value for task in tasks for value in task.get("inputs", {}).get("parameters", {}).values()]
        constants = [str(value["runtimeValue"]["constant"]) for value in inputs if "runtimeValue" in value]
        items = [
            str(task["parameterIterator"]["items"].get("raw", "")) for task in tasks if "parameterIterator" in task
        ]
        defaults = re.findall(r"defaultValue: *(.*)", COMPILED.read_text())
        assert len(constants) >= 3
        assert not [text for text in [*constants, *items, *defaults] if "python3" in text]

    def test_images_have_a_version(self, ir: Json) -> None:
        images = {executor["container"]["image"] for executor in executors(ir).values()}
        assert all(re.fullmatch(r"[a-z0-9./-]+:\d+\.\d+\.\d+", image) for image in images)

    def test_a_body_is_one_thin_call_of_its_step(self, ir: Json) -> None:
        for label, executor in executors(ir).items():
            step = re.sub(r"-\d+$", "", label.removeprefix("exec-"))
            function, call = body_of(program(executor))
            assert function.name == step
            assert len(list(statements(function))) <= 8
            assert f"from ichigo.steps import {step} as step" in map(ast.unparse, function.body)
            assert ast.unparse(call.func) == "step.main"

    def test_every_call_fits_the_step_that_is_called(self, ir: Json) -> None:
        """The IR ships source text that no type checker reads."""
        for executor in executors(ir).values():
            function, call = body_of(program(executor))
            main = importlib.import_module(f"ichigo.steps.{function.name}").main
            named = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
            assert len(named) == len(call.keywords)
            bound = inspect.signature(main).bind(*call.args, **named)
            assert all(name in ast.unparse(value) for name, value in bound.arguments.items())  # model=model.path
            used = {node.id for node in ast.walk(call) if isinstance(node, ast.Name)}
            assert {argument.arg for argument in function.args.args} <= used
            returned = any(isinstance(node, ast.Return) for node in ast.walk(function))
            assert returned == (function.returns is not None)

    def test_every_step_has_a_component_file_and_a_module(self) -> None:
        names = {path.stem for path in (ROOT / "components").glob("*.py")} - {"__init__"}
        assert names == STEPS
        assert all((ROOT / "src" / "ichigo" / "steps" / f"{name}.py").exists() for name in names)


def body_of(text: str) -> tuple[ast.FunctionDef, ast.Call]:
    """The one function of an executor's program and its call of the step."""
    (function,) = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    last = function.body[-1]
    assert isinstance(last, ast.Expr | ast.Return)
    assert isinstance(last.value, ast.Call)
    return function, last.value


def statements(function: ast.FunctionDef) -> Iterator[ast.stmt]:
    return (node for node in ast.walk(function) if isinstance(node, ast.stmt) and node is not function)
