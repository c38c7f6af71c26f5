"""The embedded platform with its real servers: what S3 and MLflow do, and that no crash leaves a mess.

Tests of crashes share one home (:func:`home`), each begins with ``up``, which is immediate when everything runs.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

from ichigo.engines.platform import Endpoints, ServerStatus, check_reachable, down, processes, status, up
from ichigo.engines.platform.endpoints import ask_mlflow
from ichigo.engines.platform.gate import header
from ichigo.engines.platform.state import Folder
from ichigo.errors import PlatformError
from ichigo.tracking import runs as tracking


def s3(endpoints: Endpoints) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=endpoints.s3,
        aws_access_key_id=endpoints.access_key,
        aws_secret_access_key=endpoints.secret_key,
        region_name=endpoints.region,
        config=Config(retries={"total_max_attempts": 1}),
    )


def server(home: Path, name: str) -> ServerStatus:
    return next(found for found in status(home).servers if found.name == name)


def kill(home: Path, name: str) -> None:
    """End a server as a crash would, and wait until it is gone."""
    process = psutil.Process(server(home, name).pid)
    process.kill()
    process.wait()


def status_of(endpoints: Endpoints, path: str, login: Mapping[str, str]) -> int:
    """The HTTP status of a page of MLflow."""
    user, password = (login.get(name, "") for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"))
    headers = {"Authorization": header(user, password)} if login else {}
    connection = http.client.HTTPConnection(endpoints.mlflow.removeprefix("http://"))
    connection.request("GET", path, headers=headers)
    status = connection.getresponse().status
    connection.close()
    return status


def run(code: str, home: Path) -> subprocess.CompletedProcess[str]:
    """A process of its own, as the command line is."""
    return subprocess.run([sys.executable, "-c", code, str(home)], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home whose servers tests may kill."""
    path = tmp_path_factory.mktemp("killed")
    yield path
    down(path)


class TestS3:
    """What the store and MLflow ask of S3."""

    def test_a_large_object_goes_up_in_parts_and_comes_back_whole_and_in_ranges(self, platform: Endpoints) -> None:
        data = random.Random(7).randbytes(17 << 20)
        bucket, key = "ichigo", "test/large ünïcode"
        parts = TransferConfig(multipart_threshold=6 << 20, multipart_chunksize=6 << 20)
        client = s3(platform)
        client.upload_fileobj(io.BytesIO(data), bucket, key, Config=parts)
        head = client.head_object(Bucket=bucket, Key=key)
        assert head["ETag"].strip('"').endswith("-3")  # three parts
        body = client.get_object(Bucket=bucket, Key=key)["Body"].read()
        assert hashlib.sha256(body).digest() == hashlib.sha256(data).digest()
        around = (6 << 20) - 5  # across a boundary of two parts
        ranged = client.get_object(Bucket=bucket, Key=key, Range=f"bytes={around}-{around + 9}")
        assert ranged["Body"].read() == data[around : around + 10]
        client.delete_object(Bucket=bucket, Key=key)

    def test_deleting_a_large_object_gives_its_space_back(self, platform: Endpoints, platform_home: Path) -> None:
        client, before = s3(platform), server(platform_home, "s3").data
        upload = client.create_multipart_upload(Bucket="ichigo", Key="test/parts")["UploadId"]
        part = {"Bucket": "ichigo", "Key": "test/parts", "UploadId": upload}
        tags = [client.upload_part(**part, PartNumber=number, Body=bytes(5 << 20))["ETag"] for number in (1, 2)]
        numbered = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, 1)]
        client.complete_multipart_upload(**part, MultipartUpload={"Parts": numbered})
        assert server(platform_home, "s3").data > before + (10 << 20)
        client.delete_object(Bucket="ichigo", Key="test/parts")
        assert server(platform_home, "s3").data < before + (1 << 20)

    def test_listing_pages_prefixes_copies_and_bulk_deletes(self, platform: Endpoints) -> None:
        client = s3(platform)
        names = [f"test/list/{number:02d}" for number in range(7)]
        for name in names:
            client.put_object(Bucket="ichigo", Key=name, Body=name.encode())
        pages = client.get_paginator("list_objects_v2").paginate(
            Bucket="ichigo", Prefix="test/list/", PaginationConfig={"PageSize": 3}
        )
        assert [entry["Key"] for page in pages for entry in page["Contents"]] == names
        client.copy_object(Bucket="ichigo", Key="test/copy", CopySource={"Bucket": "ichigo", "Key": names[3]})
        assert client.get_object(Bucket="ichigo", Key="test/copy")["Body"].read() == names[3].encode()
        folders = client.list_objects_v2(Bucket="ichigo", Prefix="test/", Delimiter="/")
        assert {"Prefix": "test/list/"} in folders["CommonPrefixes"]
        client.delete_objects(Bucket="ichigo", Delete={"Objects": [{"Key": name} for name in names]})
        assert client.list_objects_v2(Bucket="ichigo", Prefix="test/list/")["KeyCount"] == 0

    @pytest.mark.parametrize("wrong", ["secret_key", "access_key"])
    def test_wrong_keys_are_refused(self, platform: Endpoints, wrong: str) -> None:
        changes: dict[str, Any] = {wrong: "ichigo:nobody"}
        stranger = replace(platform, **changes)
        with pytest.raises(ClientError) as refused:
            s3(stranger).put_object(Bucket="ichigo", Key="test/stranger", Body=b"")
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
        with pytest.raises(PlatformError, match=r"S3 at .* refuses the credentials"):
            check_reachable(stranger)

    def test_bytes_that_changed_on_the_way_are_refused(self, platform: Endpoints) -> None:
        with pytest.raises(ClientError, match="BadDigest"):
            s3(platform).put_object(Bucket="ichigo", Key="test/bad", Body=b"a", ContentMD5="1B2M2Y8AsgTpgAmY7PhCfg==")


class TestMlflow:
    """What runs ask of MLflow."""

    def test_a_run_is_kept_and_its_artifact_has_a_direct_s3_address(
        self, platform: Endpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in platform.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=platform.mlflow)
        run = client.create_run(client.create_experiment("platform"), tags={"step": "test"})
        client.log_metric(run.info.run_id, "loss", 2.5, step=3)
        (tmp_path / "card.txt").write_text("hello")
        client.log_artifact(run.info.run_id, str(tmp_path / "card.txt"))

        found = client.get_run(run.info.run_id)
        assert found.data.metrics == {"loss": 2.5}
        assert found.info.artifact_uri.startswith("s3://ichigo/mlflow/")
        key = found.info.artifact_uri.removeprefix("s3://ichigo/") + "/card.txt"
        assert s3(platform).get_object(Bucket="ichigo", Key=key)["Body"].read() == b"hello"


class TestPrivacy:
    """Nothing is open to other users or machines."""

    def test_each_server_listens_at_one_port_of_the_loopback_interface(
        self, platform: Endpoints, platform_home: Path
    ) -> None:
        for name, url in (("s3", platform.s3), ("mlflow", platform.mlflow)):
            connections = psutil.Process(server(platform_home, name).pid).net_connections(kind="inet")
            doors = [connection.laddr for connection in connections if connection.status == psutil.CONN_LISTEN]
            assert [f"http://{door.ip}:{door.port}" for door in doors] == [url]
            assert doors[0].ip == "127.0.0.1"

    def test_the_secrets_are_in_the_state_file_alone(self, platform: Endpoints, platform_home: Path) -> None:
        check_reachable(platform)
        folder = Folder(platform_home)
        for secret in (str(platform.secret_key), platform.login["MLFLOW_TRACKING_PASSWORD"]):
            files = [path for path in folder.path.rglob("*") if path.is_file()]
            assert [path for path in files if secret.encode() in path.read_bytes()] == [folder.state_file]
            assert all(secret not in " ".join(process.cmdline()) for process in processes.ours(folder.path))
            assert secret not in f"{platform} {platform!r} {platform.mlflow} {platform.s3}"

    def test_others_may_read_nothing_of_the_home(self, home: Path) -> None:
        """Whatever the starter's umask: a home made here, with data of both servers."""
        before = os.umask(0)
        try:
            endpoints = up(home / "made here")
        finally:
            os.umask(before)
        try:
            s3(endpoints).put_object(Bucket="ichigo", Key="test/private", Body=b"recorded")
            ask_mlflow(endpoints, "experiments/create", {"name": "private"})
            found = [home / "made here", *(home / "made here").rglob("*")]
            assert {path.name for path in found} > {"state.json", "lock", "mlflow.db", "mlflow.log"}
            assert any(path.suffix == ".data" for path in found)  # Swift's objects
            assert [path for path in found if path.lstat().st_mode & 0o077] == []
        finally:
            down(home / "made here")

    def test_mlflow_asks_everybody_for_the_login(self, platform: Endpoints) -> None:
        user, password = platform.login.values()
        paths = ["/", "/health", "/version", "/static-files/x", "/api/2.0/mlflow/experiments/search", "/graphql"]
        paths += ["/ajax-api/3.0/mlflow/server-info", "/openapi.json", "/docs"]
        for wrong in ({}, {"MLFLOW_TRACKING_PASSWORD": password}, {"MLFLOW_TRACKING_USERNAME": user}):
            assert {status_of(platform, path, wrong) for path in paths} == {401}
        assert status_of(platform, "/", platform.login) == 200  # the web page
        with pytest.raises(PlatformError, match="refuses the credentials"):
            check_reachable(replace(platform, login={**platform.login, "MLFLOW_TRACKING_PASSWORD": password[:-1]}))

    def test_clients_are_told_which_variables_to_check(
        self, platform: Endpoints, platform_environment: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert tracking.client().search_experiments()
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
        with pytest.raises(PlatformError, match=f"{platform.mlflow} refuses .*MLFLOW_TRACKING_PASSWORD"):
            tracking.client().search_experiments()

    def test_an_open_mlflow_of_an_earlier_version_is_closed(self, home: Path) -> None:
        before, folder = up(home), Folder(home)
        state = folder.read()
        assert state is not None
        folder.write(replace(state, password=""))
        open_server = server(home, "mlflow").pid
        after = up(home)
        assert server(home, "mlflow").pid != open_server
        assert after.mlflow == before.mlflow
        assert after.login != before.login
        check_reachable(after)


class TestLife:
    """``up`` and ``down`` after everything that can happen in between."""

    def test_a_second_up_changes_nothing_and_loads_nothing_heavy(self, home: Path) -> None:
        first = up(home)
        check_reachable(first)
        before = status(home)
        assert before.running
        code = (
            "import sys, pathlib; from ichigo.engines.platform import up, status; home = pathlib.Path(sys.argv[1])\n"
            "up(home), status(home); print(*{'torch', 'mlflow', 'kfp', 'boto3'} & set(sys.modules))"
        )
        done = run(code, home)
        assert (done.stdout.split(), done.stderr) == ([], "")
        assert up(home) == first
        assert [found.pid for found in status(home).servers] == [found.pid for found in before.servers]

    def test_only_a_killed_server_is_started_again_at_its_address(self, home: Path) -> None:
        before = up(home)
        untouched, killed = server(home, "mlflow").pid, server(home, "s3").pid
        kill(home, "s3")
        with pytest.raises(PlatformError, match=r"S3 at .* does not answer .*ichigo up"):
            check_reachable(before)
        assert not status(home).running
        assert up(home) == before
        assert server(home, "mlflow").pid == untouched
        assert server(home, "s3").pid not in (None, killed)

    def test_a_port_that_somebody_took_is_left_to_them(self, home: Path) -> None:
        before = up(home)
        port = int(str(before.s3).rsplit(":", 1)[1])
        kill(home, "s3")
        with processes.listen(port) as somebody:
            assert somebody.getsockname()[1] == port
            after = up(home)
            assert after.s3 != before.s3
            assert after.mlflow == before.mlflow
            check_reachable(after)

    def test_an_object_whose_listing_failed_is_listed_after_the_next_start(self, home: Path) -> None:
        client = s3(up(home))
        others = set(Folder(home).data("s3").rglob("containers/**/*.db"))
        client.create_bucket(Bucket="broken")
        client.put_object(Bucket="broken", Key="first", Body=b"1")
        assert client.list_objects_v2(Bucket="broken")["KeyCount"] == 1
        (listing,) = set(Folder(home).data("s3").rglob("containers/**/*.db")) - others
        pending = listing.with_suffix(".db.pending")
        pending.unlink()
        pending.mkdir()  # in the place of the file that takes new entries
        client.put_object(Bucket="broken", Key="second", Body=b"2")
        pending.rmdir()
        assert [entry["Key"] for entry in client.list_objects_v2(Bucket="broken")["Contents"]] == ["first"]
        kill(home, "s3")
        keys = [entry["Key"] for entry in s3(up(home)).list_objects_v2(Bucket="broken")["Contents"]]
        assert keys == ["first", "second"]

    def test_two_starts_at_once_make_one_platform_and_data_survives(self, home: Path) -> None:
        before = up(home)
        s3(before).put_object(Bucket="ichigo", Key="kept", Body=b"bytes")
        down(home)
        assert processes.ours(Folder(home).path) == []
        code = (
            "import sys, pathlib; from ichigo.engines.platform import up; e = up(pathlib.Path(sys.argv[1]))\n"
            "print(e.s3, e.mlflow)"
        )
        command = [sys.executable, "-c", code, str(home)]
        both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        said = [process.communicate()[0] for process in both]
        assert said == [f"{before.s3} {before.mlflow}\n"] * 2
        assert len(processes.ours(Folder(home).path)) == 2
        assert s3(before).get_object(Bucket="ichigo", Key="kept")["Body"].read() == b"bytes"
        check_reachable(before)

    @pytest.mark.parametrize("state_file", ["kept", "lost"])
    def test_down_ends_servers_whose_starter_was_killed(self, tmp_path: Path, state_file: str) -> None:
        code = (
            "import os, signal, sys, pathlib; from ichigo.engines.platform import health, up\n"
            "health.answers = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"  # asked once both are started
            "up(pathlib.Path(sys.argv[1]))"
        )
        assert run(code, tmp_path).returncode == -signal.SIGKILL
        folder = Folder(tmp_path)
        assert len(processes.ours(folder.path)) == 2
        if state_file == "lost":
            folder.state_file.unlink()
        down(tmp_path)
        assert processes.ours(folder.path) == []

    def test_a_server_that_cannot_start_is_quoted(self, tmp_path: Path) -> None:
        database = Folder(tmp_path).data("mlflow") / "mlflow.db"
        database.parent.mkdir(parents=True)
        database.write_bytes(b"no database at all, but long enough to be taken for one" * 20)
        try:
            with pytest.raises(PlatformError, match=r"(?s)mlflow server ended .*file is not a database"):
                up(tmp_path)
        finally:
            down(tmp_path)
