"""The engine here: what it refuses before any work, how it carries arguments, and how runs end early."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import venv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from ichigo import recipe as recipes
from ichigo.engines.local import check_places
from ichigo.engines.platform import Endpoints
from ichigo.errors import IntegrityError, RecipeError
from ichigo.steps import begin, finish
from ichigo.steps.records import Records, StepRecord, save_recipe
from ichigo.store import Store

OURS = ("AWS_", "MLFLOW_", "ICHIGO_")


@dataclass(frozen=True)
class Person:
    """Somebody with a home of their own who types ``ichigo run``."""

    folder: Path
    configured: dict[str, str]

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def runs(self) -> list[Path]:
        """What runs left here."""
        return sorted((self.home / "runs").glob("*"))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        plain = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        (self.folder / "tmp").mkdir(exist_ok=True)
        return subprocess.Popen(
            [sys.executable, "-m", "ichigo.cli.main", "run", *arguments],
            cwd=self.folder,
            env=plain | {"ICHIGO_HOME": str(self.home), "TMPDIR": str(self.folder / "tmp")} | self.configured,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, str]:
        """Exit status and standard error."""
        process = self.start(*arguments)
        _, err = process.communicate(timeout=60)
        return process.returncode, err


@pytest.fixture
def nobody(tmp_path: Path) -> Person:
    """Somebody who has configured nothing."""
    return Person(tmp_path, {})


@pytest.fixture
def person(tmp_path: Path, platform: Endpoints) -> Person:
    """Somebody whose environment names the services of :func:`platform`."""
    return Person(tmp_path, platform.environment())


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port that is taken, so that nobody else can listen there, but refuses every connection."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


class TestRefusals:
    """What can be known before any work is told before any work."""

    def test_both_services_are_named_when_neither_answers(self, tmp_path: Path, dead_port: int) -> None:
        dead = f"http://127.0.0.1:{dead_port}"
        person = Person(tmp_path, Endpoints(dead, dead, "s3://bucket/store", "key", "secret").environment())
        status, err = person.run("smoke")
        assert status == 3
        assert f"MLflow at {dead} does not answer" in err
        assert f"S3 at {dead} does not answer" in err
        assert not person.home.exists()

    def test_only_the_service_that_does_not_answer_is_named(
        self, tmp_path: Path, platform: Endpoints, dead_port: int
    ) -> None:
        person = Person(tmp_path, replace(platform, s3=f"http://127.0.0.1:{dead_port}").environment())
        status, err = person.run("smoke")
        assert status == 3
        assert err.startswith(f"ichigo: S3 at http://127.0.0.1:{dead_port} does not answer")
        assert "MLflow" not in err
        assert not person.home.exists()

    def test_half_a_platform_is_no_platform(self, tmp_path: Path) -> None:
        person = Person(tmp_path, {"MLFLOW_TRACKING_URI": "http://127.0.0.1:5000"})
        status, err = person.run("smoke")
        assert status == 2
        assert "MLFLOW_TRACKING_URI set, ICHIGO_STORE, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY missing" in err
        assert not person.home.exists()

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (["smok"], ["there is no recipe smok", "did you mean smoke?"]),
            (
                ["smoke", "--set", "seed=-1", "--set", "stages.instruct.stpes=5"],
                ["2 problems", "seed (--set)", "stages.instruct.stpes (--set)"],
            ),
            (["llama-3.1-8b"], ["data.folder is not set", "tokenizer.model is not set", "base.model is not set"]),
            (
                ["llama-3.1-8b", "--set", "tokenizer.model=absent.model", "--data", "absent"],
                ["base.model is not set", "tokenizer.model: absent.model does not exist", "absent does not exist"],
            ),
            (["smoke", "--data", "."], ["data.folder: ", "has no metadata.jsonl"]),
        ],
        ids=["unknown", "overrides", "unset", "absent", "no-metadata"],
    )
    def test_wrong_input_is_told_at_once_and_starts_nothing(
        self, nobody: Person, arguments: list[str], told: list[str]
    ) -> None:
        status, err = nobody.run(*arguments)
        assert status == 2
        assert [text for text in told if text not in err] == [], err
        assert not nobody.home.exists()

    def test_a_folder_with_metadata_and_an_s3_address_are_left_to_the_step_that_reads_them(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "metadata.jsonl").write_text("")
        check_places(recipes.load("smoke", [f"data.folder={tmp_path}"]))
        check_places(recipes.load("smoke", ["data.folder=s3://bucket/recordings"]))
        with pytest.raises(RecipeError, match=r"data\.folder: nowhere does not exist"):
            check_places(recipes.load("smoke", ["data.folder=nowhere"]))


ECHO = """
from kfp import compiler, dsl

@dsl.component(base_image="any", packages_to_install=[], install_kfp_package=False)
def echo(text: str, path: str):
    import json, os, sys, tempfile
    assert text != "fail", "asked to fail"
    seen = {"text": text, "interpreter": sys.executable, "temporary": tempfile.gettempdir()}
    with open(path, "w") as file:
        json.dump(seen, file)

@dsl.pipeline(name="echo")
def pipeline(text: str, path: str):
    echo(text=text, path=path).set_caching_options(False)

import sys
compiler.Compiler().compile(pipeline, sys.argv[1])
"""


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compiled pipeline of one step that writes down what reached it."""
    folder = tmp_path_factory.mktemp("echo")
    (folder / "echo.py").write_text(ECHO)
    subprocess.run([sys.executable, "echo.py", "echo.yaml"], cwd=folder, check=True, capture_output=True)
    return folder / "echo.yaml"


def kfp_runner(pipeline: Path, scratch: Path, interpreter: str, **arguments: str) -> subprocess.CompletedProcess[str]:
    """The runner's process with an input that stays open, as the engine starts it."""
    scratch.mkdir()
    (scratch / "request.json").write_text(json.dumps({"pipeline": str(pipeline), "arguments": arguments}))
    command = [interpreter, "-m", "ichigo.engines.kfp_runner", str(scratch / "request.json")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        out = process.stdout.read()
    return subprocess.CompletedProcess(command, process.returncode, out)


class TestRunner:
    """kfp.local in its process."""

    def test_arguments_and_an_interpreter_with_blanks_and_python3_in_them_arrive_unchanged(
        self, echo: Path, tmp_path: Path
    ) -> None:
        place = tmp_path / "my python3 world"
        venv.create(place / "venv", symlinks=True, with_pip=False)
        text, seen = "s3://bucket/python3/runs/python3-1/run.json 'quoted' $HOME", place / "seen.json"
        interpreter = str(place / "venv" / "bin" / "python")
        done = kfp_runner(echo, place / "scratch", interpreter, text=text, path=str(seen))
        assert done.returncode == 0, done.stdout
        found = json.loads(seen.read_text())
        assert (found["text"], found["interpreter"]) == (text, interpreter)

    def test_a_failed_step_is_a_failed_runner(self, echo: Path, tmp_path: Path) -> None:
        done = kfp_runner(echo, tmp_path / "scratch", sys.executable, text="fail", path="unused")
        assert done.returncode == 1
        assert "asked to fail" in done.stdout


def first_words(process: subprocess.Popen[str], words: str) -> None:
    """Read the output of a run up to the line that holds ``words``."""
    assert process.stdout is not None
    assert any(words in line for line in process.stdout), "the run ended before it said so"


def client(platform: Endpoints) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(platform.mlflow)


def unfinished(platform: Endpoints) -> list[str]:
    """Names of MLflow runs that are still open."""
    mlflow = client(platform)
    experiments = [experiment.experiment_id for experiment in mlflow.search_experiments()]
    return [run.info.run_name for run in mlflow.search_runs(experiments, "attributes.status = 'RUNNING'")]


@pytest.mark.usefixtures("platform_environment")
class TestEarlyEnds:
    """Runs that somebody ends after seconds; the services are configured, not embedded."""

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["SIGTERM", "SIGHUP"])
    def test_a_signal_closes_the_run_like_ctrl_c(
        self, person: Person, platform: Endpoints, number: signal.Signals
    ) -> None:
        process = person.start("smoke")
        first_words(process, " begin ")
        family = psutil.Process(process.pid).children(recursive=True)
        assert family
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "was cancelled; run again to go on" in err
        assert psutil.wait_procs(family, timeout=0)[1] == []
        summary = json.loads((person.home / "runs" / "latest" / "summary.json").read_text())
        assert summary["status"] == "cancelled"
        assert client(platform).get_run(summary["mlflow"]["mlflow_run"]).info.status == "KILLED"
        assert list((person.folder / "tmp").iterdir()) == []

    def test_a_run_whose_output_nobody_reads_any_more_is_closed(self, person: Person, platform: Endpoints) -> None:
        process = person.start("smoke")
        assert process.stdout is not None
        first_words(process, " begin ")
        process.stdout.close()
        assert process.wait(60) == 1
        assert process.stderr is not None
        assert process.stderr.read() == ""
        process.stderr.close()
        (run,) = [path.name for path in person.runs if not path.is_symlink()]
        assert run not in unfinished(platform)


@pytest.fixture
def store(platform: Endpoints, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The platform's store, with the environment that steps have."""
    for name, value in platform.environment().items():
        monkeypatch.setenv(name, value)
    return Store.at(platform.store)


class TestClosing:
    """``finish`` for runs that did not come far."""

    def test_a_run_that_could_not_begin_says_why(self, store: Store) -> None:
        records = Records(store, "never-begun")
        uri, digest = save_recipe(store, recipes.load("smoke"))
        with pytest.raises(IntegrityError):
            begin.main(records.uri, uri, "0" * 64)
        summary = finish.close(records.uri, uri, digest, "FAILED")
        assert summary["reason"].startswith(f"begin: the recipe at {uri} has digest {digest}")
        assert summary["mlflow"]["mlflow_run"] == ""
        assert records.summary() == summary

    def test_a_step_whose_process_was_killed_counts_as_failed(self, store: Store, platform: Endpoints) -> None:
        records = Records(store, "killed-step")
        uri, digest = save_recipe(store, recipes.load("smoke"))
        begin.main(records.uri, uri, digest)
        records.save_step(StepRecord("pretrain", process_started=1.0, started=2.0))
        summary = finish.close(records.uri, uri, digest, "FAILED")
        assert summary["reason"] == "pretrain: its process ended without a word (killed?)"
        assert [(step["name"], step["status"]) for step in summary["steps"]] == [("pretrain", "failed")]
        assert client(platform).get_run(summary["mlflow"]["mlflow_run"]).info.status == "FAILED"
