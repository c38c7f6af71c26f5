"""What service tests share beside the platform."""

from __future__ import annotations

import pytest

from ichigo.engines.platform import Endpoints
from ichigo.store import Store
from tests.services.world_model import WorldModel, make_world_model


@pytest.fixture(scope="session")
def world_model(platform: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> WorldModel:
    """A model of a small world in the platform's store; its run has no record."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in platform.environment().items():
            patch.setenv(name, value)
        return make_world_model(Store.at(platform.store), tmp_path_factory.mktemp("world"))
