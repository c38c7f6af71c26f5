"""The services that the environment configures, and what is said when they are not all there or do not answer."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ichigo.engines.platform import Endpoints, check_reachable, resolve
from ichigo.engines.platform.endpoints import from_environment
from ichigo.errors import PlatformError, UserError

CONFIGURED = {
    "MLFLOW_TRACKING_URI": "https://mlflow.example/",
    "ICHIGO_STORE": "s3://bucket/prefix/",
    "AWS_ENDPOINT_URL": "https://s3.example",
    "AWS_ACCESS_KEY_ID": "who",
    "AWS_SECRET_ACCESS_KEY": "hush-hush",
}


def without(*names: str) -> dict[str, str]:
    return {name: value for name, value in CONFIGURED.items() if name not in names}


def test_configured_services_are_used_and_nothing_is_started(tmp_path: Path) -> None:
    endpoints = resolve(tmp_path / "home", CONFIGURED)
    assert (endpoints.mlflow, endpoints.s3, endpoints.store) == (
        "https://mlflow.example",
        "https://s3.example",
        "s3://bucket/prefix",
    )
    assert not endpoints.embedded
    assert not (tmp_path / "home").exists()


def test_what_another_process_is_told_leads_it_to_the_same_services() -> None:
    login = {"MLFLOW_TRACKING_USERNAME": "ada", "MLFLOW_TRACKING_PASSWORD": "secret", "AWS_SESSION_TOKEN": "token"}
    endpoints = from_environment({**CONFIGURED, **login, "AWS_DEFAULT_REGION": "eu-west-1"})
    assert endpoints is not None
    assert from_environment(endpoints.environment()) == endpoints


def test_an_environment_that_says_nothing_configures_nothing() -> None:
    assert from_environment({"HOME": "/root", "AWS_PROFILE": "work", "MLFLOW_TRACKING_URI": ""}) is None


@pytest.mark.parametrize(
    "missing",
    [
        ("MLFLOW_TRACKING_URI",),
        ("ICHIGO_STORE",),
        ("AWS_SECRET_ACCESS_KEY",),
        ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
        ("ICHIGO_STORE", "MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL"),
    ],
)
def test_a_part_of_the_configuration_names_exactly_what_is_missing(missing: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        resolve(tmp_path / "home", without(*missing))
    named = re.search(r"set, (.*?) missing", str(caught.value))
    assert named is not None
    assert set(named[1].split(", ")) == set(missing) - {"AWS_ENDPOINT_URL"}  # AWS itself has no endpoint variable
    assert "hush-hush" not in str(caught.value)


@pytest.mark.parametrize("source", ["AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"])
def test_keys_may_come_from_a_profile_or_a_cluster_role(source: str) -> None:
    endpoints = from_environment({**without("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), source: "x"})
    assert endpoints is not None
    assert "AWS_ACCESS_KEY_ID" not in endpoints.environment()


@pytest.mark.parametrize("store", ["bucket/prefix", "file:///data", "s3://"])
def test_a_store_that_is_not_s3_is_refused(store: str) -> None:
    with pytest.raises(UserError, match=r"ICHIGO_STORE .* s3://bucket/prefix"):
        from_environment({**CONFIGURED, "ICHIGO_STORE": store})


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(UserError, match="MLFLOW_TRACKING_PASSWORD") as caught:
        from_environment({**CONFIGURED, "MLFLOW_TRACKING_URI": "https://ada:hush@mlflow.example"})
    assert "hush" not in str(caught.value)


def test_no_secret_is_shown() -> None:
    endpoints = from_environment({**CONFIGURED, "AWS_SESSION_TOKEN": "token-1", "MLFLOW_TRACKING_TOKEN": "token-2"})
    shown = f"{endpoints!r} {endpoints}"
    assert "https://mlflow.example" in shown
    assert not re.search("hush-hush|token-1|token-2", shown)


def test_a_proxy_is_kept_away_from_embedded_servers_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "intern.example")
    embedded = Endpoints("http://127.0.0.1:1", "http://127.0.0.1:2", "s3://b/p", embedded=True)
    assert embedded.environment()["no_proxy"] == "intern.example,127.0.0.1,localhost"
    assert "no_proxy" not in Endpoints("https://mlflow.example", None, "s3://b/p").environment()


class Refusing(BaseHTTPRequestHandler):
    """A server that lets nobody in; remembers what it was asked with."""

    seen: ClassVar[list[str | None]]

    def do_GET(self) -> None:
        self.seen.append(self.headers["Authorization"])
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def refusing() -> Iterator[tuple[str, list[str | None]]]:
    class Handler(Refusing):
        seen: ClassVar[list[str | None]] = []

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", Handler.seen
        server.shutdown()
        thread.join()


def test_refused_credentials_are_told_from_no_answer(refusing: tuple[str, list[str | None]]) -> None:
    url, seen = refusing
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
        keys: dict[str, Any] = {"access_key": "who", "secret_key": "hush-hush"}
        login = {"MLFLOW_TRACKING_USERNAME": "ada", "MLFLOW_TRACKING_PASSWORD": "hush-hush"}
        with pytest.raises(PlatformError) as mlflow_refuses:
            check_reachable(Endpoints(url, nobody, "s3://bucket/p", **keys, login=login))
        with pytest.raises(PlatformError) as s3_refuses:
            check_reachable(Endpoints(nobody, url, "s3://bucket/p", **keys))
    first, second = str(mlflow_refuses.value).splitlines()
    assert re.search(f"MLflow at {url} answers but refuses the credentials .*MLFLOW_TRACKING_USERNAME", first)
    assert re.search(f"S3 at {nobody} does not answer .*AWS_ENDPOINT_URL", second)
    first, second = str(s3_refuses.value).splitlines()
    assert re.search(f"MLflow at {nobody} does not answer .*MLFLOW_TRACKING_URI", first)
    assert re.search(f"S3 at {url} answers but refuses the credentials .*AWS_ACCESS_KEY_ID", second)
    assert seen[0] == "Basic YWRhOmh1c2gtaHVzaA=="  # base64 of ada:hush-hush
    assert "hush-hush" not in f"{mlflow_refuses.value}{s3_refuses.value}"
