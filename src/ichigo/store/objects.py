"""The port to an object store, S3 behind it, and a fake for unit tests.

Keys are relative to the store's root. Every method raises :class:`NoSuchObject` for a missing key and
:class:`~ichigo.errors.PlatformError` when the service refuses or does not answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar

from ichigo.errors import PlatformError, UserError

P = ParamSpec("P")
T = TypeVar("T")


class NoSuchObject(KeyError):
    """There is no object under this key."""


class Objects(Protocol):
    """Named byte strings; a ``put`` is visible whole or not at all."""

    uri: str

    def put(self, key: str, data: bytes) -> None:
        """Store ``data`` under ``key``, replacing what is there."""

    def put_file(self, key: str, path: Path) -> None:
        """Store a local file under ``key``."""

    def get(self, key: str) -> bytes:
        """The bytes under ``key``."""

    def get_file(self, key: str, path: Path) -> None:
        """Write the bytes under ``key`` to ``path``."""

    def list(self, prefix: str, limit: int | None = None) -> Iterator[tuple[str, int]]:
        """Keys that start with ``prefix``, in lexicographic order, with their sizes in bytes."""

    def delete(self, key: str) -> None:
        """Remove ``key``; a missing key is no error."""


class MemoryObjects:
    """A fake for unit tests; the contract tests run on it and on the real server alike."""

    def __init__(self, uri: str = "s3://memory/store") -> None:
        self.uri = uri
        self.data: dict[str, bytes] = {}

    def put(self, key: str, data: bytes) -> None:
        self.data[key] = bytes(data)

    def put_file(self, key: str, path: Path) -> None:
        self.put(key, path.read_bytes())

    def get(self, key: str) -> bytes:
        try:
            return self.data[key]
        except KeyError:
            raise NoSuchObject(key) from None

    def get_file(self, key: str, path: Path) -> None:
        path.write_bytes(self.get(key))

    def list(self, prefix: str, limit: int | None = None) -> Iterator[tuple[str, int]]:
        found = sorted(key for key in self.data if key.startswith(prefix))
        return iter([(key, len(self.data[key])) for key in found[:limit]])

    def delete(self, key: str) -> None:
        self.data.pop(key, None)


def _translated(method: Callable[P, T]) -> Callable[P, T]:
    """Turn botocore's errors into ours, so that no caller needs to know boto3."""

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        from boto3.exceptions import Boto3Error, S3UploadFailedError
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return method(*args, **kwargs)
        except (ClientError, BotoCoreError, Boto3Error) as error:
            cause = error.__context__ if isinstance(error, S3UploadFailedError) else error  # it wraps a ClientError
            code = cause.response.get("Error", {}).get("Code", "") if isinstance(cause, ClientError) else None
            if code in {"404", "NoSuchKey", "NotFound"}:
                raise NoSuchObject(str(args[1])) from None
            raise PlatformError(_problem(args[0], code, error)) from error

    return call


def _problem(store: Any, code: str | None, error: Exception) -> str:
    """What to tell a person; ``code`` is S3's own, None when it said nothing."""
    from botocore.exceptions import NoCredentialsError, PartialCredentialsError

    login = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return f"no credentials for {store.uri} ({error}); set {login}"
    if code is None:
        return f"S3 does not answer for {store.uri} ({error}); is the server of AWS_ENDPOINT_URL up?"
    if code in {"403", "AccessDenied", "SignatureDoesNotMatch", "InvalidAccessKeyId"}:
        return f"S3 refuses the credentials for {store.uri} ({code}); check {login}"
    if code == "NoSuchBucket":
        return f"the bucket of {store.uri} does not exist; create it or set ICHIGO_STORE to one that does"
    return f"S3 refuses a request on {store.uri}: {error}"


class S3Objects:
    """A prefix of an S3 bucket, addressed and authenticated by the usual ``AWS_*`` variables.

    Large files travel in parts by boto3's transfer manager; five attempts in all, ten seconds to connect.
    """

    def __init__(self, uri: str) -> None:
        from boto3.session import Session
        from botocore.config import Config

        self.uri = uri.rstrip("/")
        self._bucket, self._prefix = split_uri(uri)
        config = Config(
            retries={"mode": "standard", "total_max_attempts": 5},
            connect_timeout=10,
            s3={"addressing_style": "path"},
            max_pool_connections=16,
        )
        # A session of its own: boto3's default one keeps the credentials that the process began with.
        self._client: Any = Session().client("s3", config=config)

    def _key(self, key: str) -> str:
        return f"{self._prefix}/{key}" if self._prefix else key

    @_translated
    def put(self, key: str, data: bytes) -> None:
        self._client.put_object(Bucket=self._bucket, Key=self._key(key), Body=data)

    @_translated
    def put_file(self, key: str, path: Path) -> None:
        self._client.upload_file(str(path), self._bucket, self._key(key))

    @_translated
    def get(self, key: str) -> bytes:
        body = self._client.get_object(Bucket=self._bucket, Key=self._key(key))["Body"]
        data: bytes = body.read()
        return data

    @_translated
    def get_file(self, key: str, path: Path) -> None:
        self._client.download_file(self._bucket, self._key(key), str(path))

    @_translated
    def list(self, prefix: str, limit: int | None = None) -> Iterator[tuple[str, int]]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._key(prefix), PaginationConfig={"MaxItems": limit} if limit else {}
        )
        skip = len(self._key(""))
        return iter([(item["Key"][skip:], item["Size"]) for page in pages for item in page.get("Contents", [])])

    @_translated
    def delete(self, key: str) -> None:
        self._client.delete_object(Bucket=self._bucket, Key=self._key(key))


def split_uri(uri: str) -> tuple[str, str]:
    """``s3://bucket/some/prefix`` -> ``("bucket", "some/prefix")``; :class:`UserError` for anything else."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket:
        raise UserError(f"{uri!r} is not an S3 address; write s3://bucket/prefix")
    return bucket, prefix.strip("/")


def open_objects(uri: str) -> Objects:
    """The object store at ``uri``."""
    return S3Objects(uri)
