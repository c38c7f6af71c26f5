"""One embedded platform for all tests of a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ichigo.engines.platform import Endpoints, down, up
from ichigo.tracking.runs import client

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


@pytest.fixture(scope="session")
def platform_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``ICHIGO_HOME`` of :func:`platform`."""
    return tmp_path_factory.mktemp("platform-home")


@pytest.fixture(scope="session")
def platform(platform_home: Path) -> Iterator[Endpoints]:
    """Endpoints of a platform in a temporary folder, stopped at the end; tests must leave it running."""
    try:
        yield up(platform_home)
    finally:
        down(platform_home)


@pytest.fixture
def platform_environment(platform: Endpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process uses the platform, as a step does."""
    for name, value in platform.environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def mlflow(platform_environment: None) -> MlflowClient:
    """A client of the platform's MLflow server."""
    return client()
