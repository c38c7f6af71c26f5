"""Markers by folder, and the fixtures that every kind of test shares.

A test's folder is its marker: ``tests/unit`` holds the tests marked ``unit``, and so on. A test that this machine
cannot run is skipped with its reason; under CI (``CI=true``) missing recordings fail instead, because CI is given
them.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"unit", "wiring", "services", "end_to_end", "gpu", "containers"}

pytest.register_assert_rewrite("tests.store_contract")
pytest_plugins = ["tests.services.platform_fixture"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with the name of its folder."""
    for item in items:
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        if folder in FOLDERS:
            item.add_marker(folder)


@pytest.fixture(autouse=True)
def _needs(request: pytest.FixtureRequest) -> None:
    """Skip what this machine cannot run."""
    if request.node.get_closest_marker("gpu"):
        torch = pytest.importorskip("torch")
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device on this machine")
    if request.node.get_closest_marker("containers") and not shutil.which("podman"):
        pytest.skip("podman is not installed; `make system` brings it")


@pytest.fixture(autouse=True)
def _no_services(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unit tests never see the services of the person who runs them."""
    if request.node.get_closest_marker("unit"):
        for name in list(os.environ):
            if name.startswith(("AWS_", "MLFLOW_", "ICHIGO_")) and name != "ICHIGO_RECORDINGS":
                monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder with real human recordings: ``ICHIGO_RECORDINGS``, by default ``../shared/data``."""
    folder = Path(os.environ.get("ICHIGO_RECORDINGS") or ROOT.parent / "shared" / "data").resolve()
    if not (folder / "fsdd" / "metadata.jsonl").exists():
        reason = f"no recordings at {folder}; set ICHIGO_RECORDINGS to the folder that holds fsdd/ and clips/"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder
