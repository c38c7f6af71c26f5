"""Artifacts on the embedded platform's real S3 server, and what the store says when a server cannot be used."""

from __future__ import annotations

import random
import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from boto3.session import Session

from ichigo.engines.platform import Endpoints
from ichigo.errors import PlatformError
from ichigo.store import Objects, Store, open_objects
from tests.store_contract import IDENTITY, ObjectsContract, StoreContract, commit, content, key_of


@pytest.fixture(autouse=True)
def _environment(platform: Endpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in platform.environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def objects(platform: Endpoints) -> Objects:
    """An empty root."""
    return open_objects(f"{platform.store}/test-store-{secrets.token_hex(4)}")


class TestS3Objects(ObjectsContract):
    """On the server."""

    def test_a_root_does_not_see_its_neighbours(self, objects: Objects) -> None:
        """``…/store`` and ``…/store-2`` begin with the same letters."""
        open_objects(f"{objects.uri}-2").put("key", b"1")
        objects.put("key", b"22")
        assert list(objects.list("")) == [("key", 2)]

    def test_a_slash_at_the_end_of_the_root_changes_nothing(self, objects: Objects) -> None:
        objects.put("key", b"1")
        same = open_objects(f"{objects.uri}/")
        assert same.uri == objects.uri
        assert same.get("key") == b"1"


class TestArtifacts(StoreContract):
    """On the server."""

    def test_a_file_of_20_mib_travels_in_parts_and_comes_back_whole(self, objects: Objects, tmp_path: Path) -> None:
        data = random.Random(5).randbytes(20 << 20)
        artifact = commit(objects, {"model.safetensors": data})
        root = urlsplit(objects.uri)
        key = f"{root.path.strip('/')}/{key_of(objects, artifact.reference, 'model.safetensors')}"
        head = Session().client("s3").head_object(Bucket=root.netloc, Key=key)
        assert head["ETag"].strip('"').endswith("-3")  # boto3's parts are of 8 MiB
        assert Store(objects).find(IDENTITY) == artifact
        assert content(artifact, tmp_path) == {"model.safetensors": data}


Use = Callable[[Objects, Path], object]
USES: dict[str, Use] = {
    "put": lambda objects, file: objects.put("key", b"1"),
    "put_file": lambda objects, file: objects.put_file("key", file),
    "get": lambda objects, file: objects.get("key"),
    "list": lambda objects, file: objects.list(""),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"1")
    return path


@pytest.mark.parametrize("use", [*USES, "get_file"])
@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_are_named(
    platform: Endpoints, file: Path, monkeypatch: pytest.MonkeyPatch, variable: str, use: str
) -> None:
    uses = USES | {"get_file": lambda objects, file: objects.get_file("key", file)}
    monkeypatch.setenv(variable, "hunter2")
    with pytest.raises(PlatformError, match=r"refuses the credentials.*check AWS_ACCESS_KEY_ID") as refused:
        uses[use](open_objects(platform.store), file)
    assert "hunter2" not in str(refused.value)


def test_absent_credentials_are_named(platform: Endpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(PlatformError, match=r"no credentials for .*set AWS_ACCESS_KEY_ID"):
        open_objects(platform.store).get("key")


@pytest.mark.parametrize("use", USES)
def test_a_missing_bucket_is_named(file: Path, use: str) -> None:
    with pytest.raises(PlatformError, match=r"the bucket of s3://no-such-bucket/x does not exist.*ICHIGO_STORE"):
        USES[use](open_objects("s3://no-such-bucket/x"), file)


@pytest.mark.timeout(60)
def test_a_server_that_is_not_there_is_named(platform: Endpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("ICHIGO_S3_PATIENCE", "0.5")
    with pytest.raises(PlatformError, match=f"S3 does not answer.*{address}.*AWS_ENDPOINT_URL"):
        Store.at(platform.store).find(IDENTITY)
