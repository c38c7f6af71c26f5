"""Whole runs of the recipe ``smoke`` by the command line, on an embedded platform that the first run starts.

Everything lies below one folder whose name holds a blank and "python3", the two things that kfp.local cannot bear in a
path. The tests share that folder: one run does all the work, the others ask what changes when something is changed,
broken or stopped.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from ichigo import recipe as recipes
from ichigo.corpus.shards import read_shard
from ichigo.engines.platform import Endpoints, down, reap, up
from ichigo.language.contract import TokenContract
from ichigo.steps import summary as summaries
from ichigo.steps.records import Records, StepRecord
from ichigo.store import Store
from ichigo.store.objects import open_objects

STAGES = {stage.name: stage for stage in recipes.load("smoke").stages}
WITH_ARTIFACTS = (
    *("prepare", "tokenizer", "base", "contract", "tokenize-shard-00000", "tokenize-shard-00001", "mix", "expand"),
    *("pretrain", "probe-pretrain", "instruct", "probe-instruct", "enhance", "probe-enhance", "evaluate"),
    "package",
)
EVERY_STEP = {*WITH_ARTIFACTS, "gate", "register"}
UNTIL_INSTRUCT = ("--set", "stages.pretrain.steps=10", "--set", "stages.pretrain.learning_rate=2e-3")
SHORT = (*UNTIL_INSTRUCT, "--set", "stages.instruct.steps=10", "--set", "stages.enhance.steps=10")
ENDLESS = (*UNTIL_INSTRUCT, "--set", "stages.instruct.steps=100000")
MINUTES = 300.0  # seconds after which a run that says nothing counts as hanging


@dataclass(frozen=True)
class Ended:
    """A run that has ended: exit status, what it printed, and its summary."""

    status: int
    out: str
    err: str
    summary: dict[str, Any]

    @property
    def steps(self) -> dict[str, dict[str, Any]]:
        return {step["name"]: step for step in self.summary["steps"]}

    @property
    def statuses(self) -> dict[str, str]:
        return {name: step["status"] for name, step in self.steps.items()}


class House:
    """A folder in which somebody works with ``ichigo``, as a person who has configured nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home, self.temporary = folder, folder / ".ichigo", folder / "tmp"
        self.temporary.mkdir()
        ours = ("AWS_", "MLFLOW_", "ICHIGO_")
        plain = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        self.environment = plain | {
            **{"TMPDIR": str(self.temporary), "COLUMNS": "100", "LINES": "40"},
            "TERM": "dumb",  # lines and no live table, which tests/unit/test_cli_screen.py draws
        }

    def start(self, *arguments: str, **streams: Any) -> subprocess.Popen[str]:
        """``ichigo run smoke`` in this folder."""
        command = [sys.executable, "-m", "ichigo.cli.main", "run", "smoke", *arguments]
        return subprocess.Popen(command, cwd=self.folder, env=self.environment, text=True, **streams)

    def run(self, *arguments: str) -> Ended:
        """The same, waited for."""
        return self.wait(self.start(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE))

    def wait(self, process: subprocess.Popen[str]) -> Ended:
        out, err = process.communicate(timeout=2 * MINUTES)
        return Ended(process.returncode, out, err, self.summary())

    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.home / "runs" / "latest" / "summary.json").read_text())
        return found

    @property
    def endpoints(self) -> Endpoints:
        return up(self.home)

    @property
    def store(self) -> Store:
        return Store.at(self.endpoints.store)

    @property
    def mlflow(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(self.endpoints.mlflow)

    def records(self, ended: Ended) -> dict[str, StepRecord]:
        """The records that the steps of a run left."""
        return {record.name: record for record in Records(self.store, ended.summary["run_key"]).steps()}

    def parent(self, summary: dict[str, Any]) -> Any:
        return self.mlflow.get_run(summary["mlflow"]["mlflow_run"])

    def nested(self, summary: dict[str, Any]) -> dict[str, Any]:
        """MLflow's nested runs of a run, by the names of their steps."""
        where = f"tags.`mlflow.parentRunId` = '{summary['mlflow']['mlflow_run']}'"
        found = self.mlflow.search_runs([summary["mlflow"]["experiment"]], where)
        return {run.info.run_name: run for run in found}

    def versions(self) -> list[Any]:
        return list(self.mlflow.search_model_versions("name = 'ichigo-smoke'"))

    def fetch(self, uri: str, target: Path) -> Path:
        """Every object below a URI, by nothing but the S3 client."""
        objects = open_objects(uri)
        for key, _ in objects.list(""):
            (target / key).parent.mkdir(parents=True, exist_ok=True)
            objects.get_file(key, target / key)
        return target

    def left_over(self) -> list[str]:
        """Temporary files of runs, and processes that work with one."""
        files = [path.name for path in self.temporary.iterdir() if path.name.startswith("ichigo-")]
        working = [process for process in psutil.process_iter() if f"{self.temporary}/ichigo-" in _command(process)]
        _, alive = psutil.wait_procs(working, timeout=20)
        return [*files, *map(str, alive)]


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


class Terminal:
    """``ichigo run smoke`` on a terminal of 100 columns that cannot redraw."""

    def __init__(self, house: House, *arguments: str) -> None:
        self._ours, theirs = os.openpty()
        self.process = house.start(*arguments, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
        os.close(theirs)
        self.seen = ""

    def until(self, pattern: str) -> None:
        """Read until ``pattern`` (a regular expression) was shown."""
        while not re.search(pattern, self.seen):
            assert self._read(), f"the run ended before it showed {pattern!r}:\n{self.seen}"

    def rest(self) -> int:
        """Read to the end; returns the exit status."""
        while self._read():
            pass
        os.close(self._ours)
        return self.process.wait(MINUTES)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._ours], [], [], MINUTES)
        assert ready, f"nothing was shown for {MINUTES:.0f} s after:\n{self.seen[-2000:]}"
        try:
            self.seen += os.read(self._ours, 65536).decode(errors="replace")
        except OSError:  # EIO: the other side is closed
            return False
        return True

    def family(self) -> list[psutil.Process]:
        """Every process below the command line; among them torchrun and its two workers."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        assert sum("ichigo.training.worker" in process.cmdline() for process in below) == 3
        return [*below]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("python3 checkout"))
    yield house
    down(house.home)


@pytest.fixture(scope="module")
def first(house: House) -> Iterator[Ended]:
    """The run that finds nothing; after it this process may ask the platform."""
    ended = house.run()
    assert ended.status == 0, ended.err
    with pytest.MonkeyPatch.context() as environment:
        for name, value in house.endpoints.environment().items():
            environment.setenv(name, value)
        yield ended


@pytest.fixture(scope="module")
def second(house: House, first: Ended) -> Ended:
    """The same command again."""
    return house.run()


@pytest.fixture(scope="module")
def cancelled(house: House, first: Ended) -> tuple[Terminal, Ended]:
    """A run that somebody stopped by Ctrl-C while ``instruct`` was training."""
    terminal = Terminal(house, *ENDLESS)
    terminal.until(r"instruct \d+/100000")
    family = terminal.family()
    terminal.process.send_signal(signal.SIGINT)
    status = terminal.rest()
    assert psutil.wait_procs(family, timeout=0)[1] == []
    return terminal, Ended(status, terminal.seen, "", house.summary())


@pytest.fixture(scope="module")
def resumed(house: House, cancelled: tuple[Terminal, Ended]) -> Ended:
    """The run after the cancelled one, with the same pretrain and fewer steps in the stages after it."""
    return house.run(*SHORT)


def test_the_first_run_does_every_step_and_its_summary_has_the_documented_keys(first: Ended) -> None:
    documented = re.findall(r"^(\w+)(?:\[\])? {2,}", str(summaries.__doc__), re.MULTILINE)
    assert set(first.summary) == set(documented)
    assert first.summary["status"] == "succeeded"
    assert first.statuses == dict.fromkeys(EVERY_STEP, "done")
    assert all(step["seconds"] > 0 and step["startup_seconds"] > 0 for step in first.summary["steps"])
    assert 0 < first.summary["kfp_seconds"] < first.summary["wall_seconds"]
    assert all(first.steps[name]["artifact"]["uri"].startswith("s3://ichigo/store/") for name in WITH_ARTIFACTS)
    assert first.summary["gate"]["verdict"] == "promote"
    assert [rule["kept"] for rule in first.summary["gate"]["rules"]] == [True] * 4
    asked = recipes.load("smoke").evaluation.items
    suites = ("spoken_answers", "text_answers", "transcription")
    assert [first.summary["evaluation"][f"{suite}.items"] for suite in suites] == [asked] * 3


def test_the_first_run_prints_a_table_that_fits_the_terminal(house: House, first: Ended) -> None:
    table = first.out[first.out.index("\nstep ") :]
    assert all(re.search(rf"^{name} +done ", table, re.MULTILINE) for name in EVERY_STEP)
    wide = [
        line for line in table.splitlines() if len(line) > 100 and "://" not in line and str(house.home) not in line
    ]
    assert wide == []
    assert first.summary["model"]["uri"] in table


def test_mlflow_has_one_finished_tree_with_parameters_and_metrics(house: House, first: Ended) -> None:
    parent, nested = house.parent(first.summary), house.nested(first.summary)
    assert (parent.info.run_name, parent.info.status) == (first.summary["run_key"], "FINISHED")
    assert parent.data.params["stages.instruct.steps"] == str(STAGES["instruct"].steps)
    assert parent.data.params["launch.processes"] == "2"
    assert first.summary["evaluation"].items() <= parent.data.metrics.items()
    assert {name: run.info.status for name, run in nested.items()} == dict.fromkeys(WITH_ARTIFACTS, "FINISHED")
    tops = house.mlflow.search_runs(
        [first.summary["mlflow"]["experiment"]], f"attributes.run_name = '{parent.info.run_name}'"
    )
    assert len(tops) == 1


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("curve", ["loss", "learning_rate", "grad_norm", "tokens_per_second"])
def test_every_stage_has_its_curves_with_a_point_per_step(house: House, first: Ended, stage: Any, curve: str) -> None:
    run = house.nested(first.summary)[stage].info.run_id
    points = house.mlflow.get_metric_history(run, curve)
    assert sorted(point.step for point in points) == list(range(STAGES[stage].steps))
    if curve == "loss":
        assert points[-1].value < points[0].value


def test_a_nested_run_names_the_artifacts_that_its_step_read(house: House, first: Ended) -> None:
    inputs = house.nested(first.summary)["enhance"].inputs.dataset_inputs
    read = {entry.dataset.digest: json.loads(entry.dataset.source)["uri"] for entry in inputs}
    parents = [first.steps[name]["artifact"] for name in ("instruct", "mix")]
    assert read == {artifact["digest"][:36]: artifact["uri"] for artifact in parents}


def test_the_registered_version_points_at_the_package_of_the_trained_model(house: House, first: Ended) -> None:
    version = house.mlflow.get_model_version_by_alias("ichigo-smoke", "candidate")
    packed = first.steps["package"]["artifact"]
    assert version.source == packed["uri"] == first.summary["model"]["uri"]
    assert house.store.open_uri(packed["uri"]).parents["model"] == first.steps["enhance"]["artifact"]["uri"]
    assert version.run_id == first.summary["mlflow"]["mlflow_run"]
    expected = {"ichigo.digest": packed["digest"], "ichigo.run_key": first.summary["run_key"]}
    assert expected.items() <= version.tags.items()


def test_the_registered_model_is_a_plain_hugging_face_folder(house: House, first: Ended, tmp_path: Path) -> None:
    import torch
    from transformers import AutoTokenizer, LlamaForCausalLM

    folder = house.fetch(first.summary["model"]["uri"], tmp_path)
    model, tokenizer = LlamaForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    contract = TokenContract.load(folder)
    ids = tokenizer("<|sound_start|><|sound_0007|>", add_special_tokens=False).input_ids
    assert ids == [contract.sound_start, contract.first_sound + 7]
    assert model.config.vocab_size == model.model.embed_tokens.num_embeddings == contract.vocabulary
    with torch.no_grad():
        assert torch.isfinite(model(torch.tensor([ids])).logits).all()


def test_no_secret_is_in_anything_that_a_run_wrote(house: House, first: Ended) -> None:
    secrets = [str(house.endpoints.secret_key), house.endpoints.login["MLFLOW_TRACKING_PASSWORD"]]
    objects = open_objects("s3://ichigo")
    stored = {key: objects.get(key) for key, _ in objects.list("")}
    assert {key.split("/")[0] for key in stored} == {"store", "mlflow"}
    files = [path for folder in ("runs", "platform/mlflow") for path in (house.home / folder).rglob("*")]
    written = {str(path): path.read_bytes() for path in files if path.is_file()}
    assert any(name.endswith("run.log") for name in written)
    assert any(name.endswith(".db") for name in written)  # MLflow's parameters and tags
    said = {"stdout": first.out.encode(), "stderr": first.err.encode()}
    for secret in secrets:
        assert [name for name, data in (stored | written | said).items() if secret.encode() in data] == []


def test_others_may_read_nothing_of_the_home(house: House, first: Ended) -> None:
    found = [path for path in (house.home, *house.home.rglob("*")) if not path.is_symlink()]
    assert any(path.name == "run.log" for path in found)
    assert [path for path in found if path.stat().st_mode & 0o077] == []


def test_a_run_leaves_no_temporary_file_and_no_process(house: House, first: Ended) -> None:
    assert house.left_over() == []


def test_the_second_run_reuses_every_artifact_and_the_registered_version(
    house: House, first: Ended, second: Ended
) -> None:
    assert second.status == 0
    assert second.statuses == dict.fromkeys({*WITH_ARTIFACTS, "register"}, "reused") | {"gate": "done"}
    assert all(second.steps[name]["artifact"] == first.steps[name]["artifact"] for name in WITH_ARTIFACTS)
    assert second.steps["pretrain"]["reason"] == f"made by {first.summary['run_key']}"
    assert second.summary["evaluation"] == first.summary["evaluation"]
    assert second.summary["model"] == first.summary["model"]
    same = [version.version for version in house.versions() if version.source == first.summary["model"]["uri"]]
    assert same == [first.summary["model"]["version"]]
    parent = house.parent(second.summary)
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["ichigo.reused.enhance"] == first.steps["enhance"]["artifact"]["uri"]
    assert house.nested(second.summary) == {}


def test_a_step_that_reuses_its_artifact_loads_nothing_heavy(house: House, first: Ended, second: Ended) -> None:
    before, after = house.records(first), house.records(second)
    assert "torch" in before["evaluate"].heavy
    assert all("mlflow" in before[name].heavy for name in WITH_ARTIFACTS)
    assert {name: after[name].heavy for name in WITH_ARTIFACTS} == {name: [] for name in WITH_ARTIFACTS}


def test_the_same_corpus_and_tokenizer_give_the_same_bytes_again(house: House, first: Ended, second: Ended) -> None:
    """Steps whose artifacts were lost are done anew; what follows them finds the same digests and is reused."""
    lost = ("tokenize-shard-00000", "tokenize-shard-00001", "mix", "expand")
    for name in lost:
        attempt = first.steps[name]["artifact"]["uri"].removeprefix(f"{house.store.objects.uri}/")
        house.store.objects.delete(f"{attempt.rpartition('/')[0]}/COMMITTED.json")
    for key, _ in list(house.store.objects.list("cache/")):  # or tokens would come from there
        house.store.objects.delete(key)
    ended = house.run()
    assert ended.status == 0, ended.err
    kept = {*WITH_ARTIFACTS, "register"} - set(lost)
    assert ended.statuses == dict.fromkeys(kept, "reused") | dict.fromkeys({*lost, "gate"}, "done")
    digests = {name: (first.steps[name]["artifact"], ended.steps[name]["artifact"]) for name in lost}
    assert all(before["digest"] == after["digest"] for before, after in digests.values())
    assert all(before["uri"] != after["uri"] for before, after in digests.values())


def test_a_changed_field_repeats_the_step_that_reads_it_and_what_follows(house: House, first: Ended) -> None:
    ended = house.run("--set", "stages.enhance.learning_rate=5e-4")
    assert ended.status == 0
    changed = {"enhance", "probe-enhance", "evaluate", "gate", "package", "register"}
    assert ended.statuses == dict.fromkeys(EVERY_STEP - changed, "reused") | dict.fromkeys(changed, "done")
    assert ended.steps["enhance"]["reason"] == "changed: settings.stage.learning_rate: 0.001 -> 0.0005"
    assert (
        f'inputs.model: "{first.steps["enhance"]["artifact"]["digest"][:12]}" -> ' in ended.steps["evaluate"]["reason"]
    )
    assert set(house.nested(ended.summary)) == {"enhance", "probe-enhance", "evaluate", "package"}
    assert ended.summary["model"]["version"] != first.summary["model"]["version"]


@pytest.mark.parametrize("first_step", ["enhance", "evaluate"])
def test_a_run_can_start_at_any_step_with_a_model_of_another(house: House, first: Ended, first_step: str) -> None:
    before = STAGES if first_step == "evaluate" else ("pretrain", "instruct")
    registered = f"ichigo-smoke@{first.summary['model']['version']}"
    model = registered if first_step == "evaluate" else first.steps["instruct"]["artifact"]["uri"]
    ended = house.run("--from", first_step, "--model", model)
    assert ended.status == 0, ended.err
    skipped = {"expand", *before, *(f"probe-{stage}" for stage in before)}
    kept = {*WITH_ARTIFACTS, "register"} - skipped
    assert ended.statuses == dict.fromkeys(skipped, "skipped") | dict.fromkeys(kept, "reused") | {"gate": "done"}
    assert ended.steps["enhance"]["artifact"] == first.steps["enhance"]["artifact"]
    assert ended.summary["model"] == first.summary["model"]
    assert f"the run starts at {first_step} from s3://" in ended.steps["expand"]["reason"]


def test_a_refused_model_is_not_registered_and_the_run_is_no_failure(house: House, first: Ended) -> None:
    before = len(house.versions())
    ended = house.run("--set", "registry.rules=[{metric: spoken_answers.exact_match, at_least: 2.0}]")
    assert ended.status == 0
    assert (ended.summary["status"], ended.summary["gate"]["verdict"]) == ("succeeded", "refuse")
    assert ended.summary["model"] is None
    assert "register" not in ended.steps
    assert len(house.versions()) == before
    parent = house.parent(ended.summary)
    assert (parent.info.status, parent.data.tags["ichigo.verdict"]) == ("FINISHED", "refuse")
    assert "not kept: spoken_answers.exact_match is " in ended.out


def test_a_diverging_stage_fails_the_run_with_its_name_and_the_cause(house: House, first: Ended) -> None:
    ended = house.run("--set", "stages.enhance.learning_rate=1e30")
    assert ended.status == 5
    assert ended.summary["status"] == "failed"
    cause = r"enhance: stage enhance stopped at step 1: loss .* at learning rate .*; lower the learning rate"
    assert re.match(cause, ended.summary["reason"])
    assert re.search(cause, ended.err)
    assert ended.statuses["enhance"] == "failed"
    assert "evaluate" not in ended.steps
    nested = house.nested(ended.summary)
    assert {name: run.info.status for name, run in nested.items()} == {"enhance": "FAILED"}
    assert house.parent(ended.summary).info.status == "FAILED"
    assert house.left_over() == []


def test_a_probe_stops_a_run_whose_sound_tokens_lost_their_order(house: House, first: Ended) -> None:
    ended = house.run("--set", "ablations.shuffle_sound=true", "--set", "probes.sound_gain=0.5")
    assert ended.status == 5
    assert (ended.statuses["pretrain"], ended.statuses["probe-pretrain"]) == ("done", "failed")
    assert "instruct" not in ended.steps, "the next stage is not spent"
    found, good = (run.steps["probe-pretrain"]["facts"] for run in (ended, first))
    assert found["diagnosis"] == "sound tokens are not used"
    assert abs(found["sound_gain"]) < 0.5 < good["sound_gain"]
    assert "probe-pretrain: stage pretrain is no good start for what follows" in ended.summary["reason"]
    assert "ablations.shuffle_sound" in ended.err
    nested = house.nested(ended.summary)["probe-pretrain"]
    assert (nested.info.status, nested.data.tags["ichigo.diagnosis"]) == ("FAILED", found["diagnosis"])
    assert nested.data.metrics["sound_gain"] == pytest.approx(found["sound_gain"], abs=1e-5)


def test_a_cancelled_run_is_closed_and_nothing_of_it_lives(house: House, cancelled: tuple[Terminal, Ended]) -> None:
    _, ended = cancelled
    assert ended.status == 130
    assert (ended.summary["status"], ended.statuses["pretrain"]) == ("cancelled", "done")
    assert ended.statuses["instruct"] == "cancelled"
    assert ended.steps["instruct"]["seconds"] > 0
    assert house.parent(ended.summary).info.status == "KILLED"
    nested = house.nested(ended.summary)
    assert {name: run.info.status for name, run in nested.items()} == {
        **{"pretrain": "FINISHED", "probe-pretrain": "FINISHED"},
        "instruct": "KILLED",
    }
    assert house.left_over() == []


def test_a_cancelled_run_shows_how_far_it_came(cancelled: tuple[Terminal, Ended]) -> None:
    terminal, _ = cancelled
    assert re.search(r"^instruct +cancelled .* stopped", terminal.seen, re.MULTILINE)
    assert "run again to go on from what is committed" in terminal.seen


def test_processes_die_with_a_killed_command_line(house: House, cancelled: tuple[Terminal, Ended]) -> None:
    terminal = Terminal(house, *ENDLESS)
    terminal.until(r"instruct \d+/100000")
    family = terminal.family()
    terminal.process.kill()
    assert psutil.wait_procs(family, timeout=20)[1] == []
    assert terminal.rest() == -signal.SIGKILL
    assert re.search(r"pretrain +reused ", terminal.seen)
    working = [process for process in psutil.process_iter() if str(house.temporary) in _command(process)]
    psutil.wait_procs(working, timeout=20)  # whoever sweeps up
    assert house.left_over() == []
    run_key, step = sorted((one.name for one in reap(house.endpoints)), key=len, reverse=True)
    assert (run_key.partition("-")[0], step) == ("smoke", "instruct")
    experiment = cancelled[1].summary["mlflow"]["experiment"]
    assert list(house.mlflow.search_runs([experiment], "attributes.status = 'RUNNING'")) == []


def test_the_run_after_goes_on_from_what_was_committed(
    house: House, cancelled: tuple[Terminal, Ended], resumed: Ended
) -> None:
    assert resumed.status == 0, resumed.err
    assert resumed.steps["pretrain"]["reason"] == f"made by {cancelled[1].summary['run_key']}"
    assert {name for name, status in resumed.statuses.items() if status == "done"} >= {"instruct", "enhance"}


def test_changed_bytes_stop_the_step_that_reads_them_and_are_made_anew_once_removed(
    house: House, resumed: Ended
) -> None:
    uri = resumed.steps["instruct"]["artifact"]["uri"]
    objects, key = open_objects(uri), "model.safetensors"
    data = bytearray(objects.get(key))
    data[-1] ^= 1
    objects.put(key, bytes(data))
    again = (*SHORT, "--set", "stages.enhance.learning_rate=9e-4")
    ended = house.run(*again)
    assert ended.status == 4
    assert ended.summary["reason"].startswith(f"enhance: {uri}/{key}: SHA-256 is ")
    assert "the stored bytes changed" in ended.err
    for name, _ in objects.list(""):
        objects.delete(name)
    mended = house.run(*again)
    assert mended.status == 0, mended.err
    assert mended.steps["instruct"]["reason"] == "its bytes are gone from the store"
    before, after = resumed.steps["instruct"]["artifact"], mended.steps["instruct"]["artifact"]
    assert after["digest"] == before["digest"]
    assert after["uri"] != before["uri"]


def test_two_runs_at_once_both_succeed(house: House, resumed: Ended) -> None:
    arguments = (*SHORT, "--set", "evaluation.items=3")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    ended = [house.wait(process) for process in [house.start(*arguments, **pipes) for _ in range(2)]]
    assert [run.status for run in ended] == [0, 0], [run.err for run in ended]
    keys = [re.findall(r"^run +(\S+)$", run.out, re.MULTILINE) for run in ended]
    one, other = (Records(house.store, key).summary() or {} for (key,) in keys)
    assert one["run_key"] != other["run_key"]
    assert one["evaluation"] == other["evaluation"]
    assert one["evaluation"]["transcription.items"] == 3
    assert one["model"] == other["model"]


def test_human_recordings_go_through_the_whole_chain(
    house: House, first: Ended, recordings: Path, tmp_path: Path
) -> None:
    folder = recordings / "fsdd"
    fewer = [f"stages.{stage}.steps=5" for stage in STAGES] + ["tokenizer.steps=30"]
    ended = house.run("--data", str(folder), *(word for field in fewer for word in ("--set", field)))
    assert ended.status == 0, ended.err
    corpus = house.fetch(ended.steps["prepare"]["artifact"]["uri"], tmp_path / "corpus")
    rows = read_shard(corpus)
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    spoken = first.steps["prepare"]["facts"]["rows"]
    assert Counter(row.origin for row in rows) == {"folder": len(lines), "spoken": spoken}
    assert ended.steps["prepare"]["facts"]["rows"] == len(rows)
    mine = [row for row in rows if row.origin == "folder"]
    heard, held_out = ({row.speaker for row in mine if row.split == split} for split in ("train", "test"))
    assert heard | held_out == {line["speaker"] for line in lines}
    assert held_out
    assert heard
    assert not heard & held_out
    evaluation = house.fetch(ended.steps["evaluate"]["artifact"]["uri"], tmp_path / "evaluation")
    items = pq.read_table(evaluation / "items.parquet").to_pylist()
    asked = {item["id"] for item in items if item["suite"] == "transcription" and item["outcome"] != "set_aside"}
    assert asked & {row.id for row in mine if row.split == "test"}
    assert asked <= {row.id for row in rows if row.split == "test"}
