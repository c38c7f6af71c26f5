"""A real S3 server that is killed in the middle of an upload: it comes back, or it stays away."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ichigo.engines.platform.state import BUCKET, address
from ichigo.errors import PlatformError
from ichigo.store import Draft, S3Objects, Store
from ichigo.store.patience import Patience
from ichigo.store.workplace import folder_of, kept
from tests.services.s3_process import S3Process
from tests.store_contract import IDENTITY, content

DATA = random.Random(7).randbytes(20 << 20)  # three parts of boto3's 8 MiB


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Process]:
    with S3Process(tmp_path / "s3") as made:
        for name, value in made.environment().items():
            monkeypatch.setenv(name, value)
        opened(Patience(120.0))._client.create_bucket(Bucket=BUCKET)
        yield made


def opened(patience: Patience) -> S3Objects:
    return S3Objects(f"s3://{BUCKET}/store", patience)


def kill_after(objects: S3Objects, operation: str, server: S3Process) -> None:
    """Kill the server when it has answered the first ``operation`` of ``objects``."""

    def kill(**_: Any) -> None:
        objects._client.meta.events.unregister(f"after-call.s3.{operation}", kill)
        server.kill()

    objects._client.meta.events.register(f"after-call.s3.{operation}", kill)


def pauses(third: Callable[[], None]) -> Callable[[float], None]:
    """A sleep that takes no time and calls ``third`` at its third call."""
    count = 0

    def sleep(_: float) -> None:
        nonlocal count
        count += 1
        if count == 3:
            third()

    return sleep


def work(draft: Draft) -> None:
    (draft.folder / "model.safetensors").write_bytes(DATA)


def test_a_server_that_comes_back_gets_the_whole_file_and_what_lay_about_is_found(
    server: S3Process, tmp_path: Path
) -> None:
    objects = opened(Patience(120.0, sleep=pauses(server.start)))
    kill_after(objects, "UploadPart", server)
    with Store(objects).write(IDENTITY, parents={}) as draft:
        work(draft)
    (tmp_path / "to").mkdir()
    assert content(Store(objects).open(draft.committed.reference), tmp_path / "to") == {"model.safetensors": DATA}
    (left,) = objects.uploads("")
    assert left.key.startswith("model/")
    assert left.key.endswith("/model.safetensors")
    assert 0 < left.size < len(DATA)
    objects.abort(left)
    objects.abort(left)
    assert list(objects.uploads("")) == []
    assert objects.get_range(left.key, 0, 9) == DATA[:9]  # the parts went, the object stays


@pytest.mark.parametrize("operation", ["UploadPart", "CompleteMultipartUpload"])
def test_a_server_that_stays_away_ends_the_step_retryable_and_the_next_run_takes_the_work_up(
    server: S3Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    monkeypatch.setenv("ICHIGO_HOME", str(tmp_path / "home"))
    objects = opened(Patience(0.5))
    kill_after(objects, operation, server)

    def first() -> None:
        with Store(objects).write(IDENTITY, parents={}, keep=True) as draft:
            work(draft)

    with pytest.raises(PlatformError, match=r"S3 does not answer.*AWS_ENDPOINT_URL.*run again") as found:
        first()
    assert found.value.exit_code == 3
    assert len(kept(folder_of(tmp_path / "home"))) == 1

    server.start()
    store = Store(opened(Patience(60.0)))
    assert store.find(IDENTITY) is None
    with store.write(IDENTITY, parents={}, keep=True) as draft:
        assert draft.kept
    (tmp_path / "to").mkdir()
    assert content(store.open(draft.committed.reference), tmp_path / "to") == {"model.safetensors": DATA}
    assert kept(folder_of(tmp_path / "home")) == []


def test_a_read_waits_for_the_server_too(server: S3Process) -> None:
    objects = opened(Patience(120.0, sleep=pauses(server.start)))
    objects.put("key", b"value")
    server.kill()
    assert objects.get("key") == b"value"
    assert os.environ["AWS_ENDPOINT_URL"] == address(server.port or 0)
