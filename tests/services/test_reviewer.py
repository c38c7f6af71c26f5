"""What a reviewer finds of a run that has ended: in the store, in MLflow by its client, and on MLflow's own pages."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest

from ichigo.engines.platform import Endpoints
from ichigo.engines.platform.gate import header
from ichigo.steps import finish
from ichigo.steps.records import REPORT, Records
from ichigo.store import Store
from ichigo.tracking.runs import Point, RunTree
from tests.unit.report_support import HOSTILE, curve, finished_run

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

pytestmark = pytest.mark.usefixtures("platform_environment")

STEPS = 300
BROWSER = next((found for name in ("chromium-headless-shell", "chromium") if (found := shutil.which(name))), None)


class Ended:
    """A run of the recipe ``smoke`` without any training, closed by the exit handler."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.key = f"smoke-{secrets.token_hex(4)}"
        self.tree = RunTree.begin("ichigo/reviewed", self.key, {"seed": 1}, {})
        run = {"experiment": self.tree.experiment, "mlflow_run": self.tree.parent}
        self.records = finished_run(store, folder, self.key, run=run)
        self.nested = self._trained()
        self.summary = self.close()

    def _trained(self) -> str:
        nested = self.tree.open_step("pretrain", self.key)
        points = curve(STEPS, 6.0).items()
        self.tree.log_points(
            nested, [Point(name, value, at, 1000 + at) for at, own in points for name, value in own.items()]
        )
        self.tree.end(nested)
        record = self.records.step("pretrain")
        assert record is not None
        self.records.save_step(replace(record, mlflow_run=nested))
        return nested

    def close(self) -> dict[str, Any]:
        record = self.records.run()
        assert record is not None
        return finish.close(self.records.uri, record.recipe_uri, record.recipe_digest, "SUCCEEDED")


@pytest.fixture(scope="module")
def store(platform: Endpoints) -> Store:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in platform.environment().items():
            patch.setenv(name, value)
        return Store.at(platform.store)


@pytest.fixture(scope="module")
def ended(platform: Endpoints, store: Store, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in platform.environment().items():
            patch.setenv(name, value)
        return Ended(store, tmp_path_factory.mktemp("ended"))


def test_the_report_lies_beside_the_summary_and_among_the_run_s_artifacts(
    mlflow: MlflowClient, ended: Ended, tmp_path: Path
) -> None:
    page = ended.records.report()
    assert page is not None
    assert ended.key in page
    assert "polyline" in page
    assert "<script" not in page
    logged = Path(mlflow.download_artifacts(ended.tree.parent, REPORT, str(tmp_path)))
    assert logged.read_text(encoding="utf-8") == page


def test_the_parent_run_has_the_curves_thinned_and_the_tables(
    mlflow: MlflowClient, ended: Ended, tmp_path: Path
) -> None:
    history = mlflow.get_metric_history(ended.tree.parent, "curves/pretrain.loss")
    assert len(history) == 150
    assert max((point.step, point.value) for point in history) == (STEPS - 1, 6.0 / STEPS)
    listed = json.loads(mlflow.get_run(ended.tree.parent).data.tags["mlflow.loggedArtifacts"])
    assert {entry["path"]: entry["type"] for entry in listed} == {"gate.json": "table", "results.json": "table"}
    rules = json.loads(Path(mlflow.download_artifacts(ended.tree.parent, "gate.json", str(tmp_path))).read_text())
    assert rules["columns"] == ["rule"]
    assert "at least 0.4 asked" in rules["data"][0][0]


def test_the_judged_model_is_listed_with_the_numbers_of_the_run(mlflow: MlflowClient, ended: Ended) -> None:
    digest = ended.summary["steps"][1]["artifact"]["digest"]
    found = mlflow.search_logged_models([ended.tree.experiment], f"tags.`ichigo.digest` = '{digest}'")
    newest = found[0]
    assert len(found) == 1
    numbers = {metric.key: metric.value for metric in newest.metrics or [] if metric.run_id == ended.tree.parent}
    assert numbers == ended.summary["evaluation"]
    assert newest.tags["ichigo.uri"] == ended.summary["steps"][1]["artifact"]["uri"]


def test_a_run_that_is_closed_twice_has_everything_once(mlflow: MlflowClient, ended: Ended) -> None:
    """KFP may run its exit handler, and the engine then closes the run once more."""
    before = len(mlflow.get_metric_history(ended.tree.parent, "curves/pretrain.loss"))
    models = len(mlflow.search_logged_models([ended.tree.experiment]))
    ended.close()
    assert len(mlflow.get_metric_history(ended.tree.parent, "curves/pretrain.loss")) == before
    assert len(mlflow.search_logged_models([ended.tree.experiment])) == models


def test_every_run_is_described(mlflow: MlflowClient, ended: Ended) -> None:
    parent, nested = (mlflow.get_run(run).data.tags["mlflow.note.content"] for run in (ended.tree.parent, ended.nested))
    assert parent.startswith("**promote** · run succeeded")
    assert nested.startswith("**done** · no pretrain was made before")


def test_a_run_that_never_began_has_a_report(store: Store, ended: Ended) -> None:
    known = ended.records.run()
    assert known is not None
    records = Records(store, f"{ended.key}-failed")
    finish.close(records.uri, known.recipe_uri, known.recipe_digest, "FAILED", "no such image")
    page = records.report()
    assert page is not None
    assert "no such image" in page


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here; `make system` installs chromium-headless-shell")
class TestPages:
    """MLflow's pages in a browser, as a reviewer opens them."""

    @pytest.fixture(scope="class")
    def door(self, platform: Endpoints) -> Iterator[str]:
        """An address of MLflow's pages that asks for no login: a browser sends none with what a page's scripts fetch
        if it stands in the page's address."""
        with server_with_login(platform) as server:
            yield f"http://127.0.0.1:{server.server_address[1]}"

    def test_the_page_of_a_run_begins_with_its_verdict(self, ended: Ended, door: str) -> None:
        page = _dom(f"{door}/#/experiments/{ended.tree.experiment}/runs/{ended.tree.parent}")
        assert ended.key in page
        assert "promote" in page
        assert "spoken_answers.exact_match" in page

    def test_two_runs_are_compared_with_their_curves(
        self, ended: Ended, store: Store, door: str, tmp_path: Path
    ) -> None:
        other = Ended(store, tmp_path)
        runs, experiments = json.dumps([ended.tree.parent, other.tree.parent]), json.dumps([ended.tree.experiment])
        page = _dom(f"{door}/#/compare-runs?runs={quote(runs)}&experiments={quote(experiments)}")
        for told in (ended.key, other.key, "curves/pretrain.loss", "spoken_answers.exact_match"):
            assert told in page, told


def test_the_report_is_one_page_in_a_browser(ended: Ended, tmp_path: Path) -> None:
    """No script runs in it, whatever a model said; nothing is wider than a phone."""
    if BROWSER is None:
        pytest.skip("no Chromium here; `make system` installs chromium-headless-shell")
    page = ended.records.report()
    assert page is not None
    path = tmp_path / "report.html"
    path.write_text(page, encoding="utf-8")
    shown = _dom(path.as_uri())
    assert HOSTILE.replace("<", "&lt;").replace(">", "&gt;") in shown
    assert "<script" not in shown


@contextmanager
def server_with_login(platform: Endpoints) -> Iterator[ThreadingHTTPServer]:
    """A server on this machine that hands every request on to MLflow, with the login."""
    login = header(platform.login["MLFLOW_TRACKING_USERNAME"], platform.login["MLFLOW_TRACKING_PASSWORD"])

    class Door(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
            headers = {"Authorization": login, "Content-Type": self.headers.get("Content-Type") or "application/json"}
            request = Request(platform.mlflow + self.path, body, headers, method=self.command)
            try:
                with urlopen(request, timeout=120) as answer:
                    self._pass_on(answer.status, answer.headers["Content-Type"], answer.read())
            except HTTPError as error:
                self._pass_on(error.code, error.headers["Content-Type"], error.read())

        do_POST = do_GET

        def _pass_on(self, status: int, kind: str | None, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind or "application/octet-stream")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _dom(url: str) -> str:
    """The document of a page once its scripts have come to rest."""
    assert BROWSER is not None
    quiet = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1400,1200")
    command = [BROWSER, *quiet, "--virtual-time-budget=20000", "--dump-dom", url]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
