"""The port to an object store, S3 behind it, and a fake for unit tests.

Keys are relative to the store's root. Every method raises :class:`NoSuchObject` for a missing key and
:class:`~ichigo.errors.PlatformError` when the service refuses, or has not answered for as long as
:class:`~ichigo.store.patience.Patience` waits.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from ichigo.errors import PlatformError, UserError
from ichigo.hashing import sha256_bytes
from ichigo.store.patience import NoAnswer, Patience

P = ParamSpec("P")
T = TypeVar("T")

_CHUNK = 1 << 20
_BUSY = {"SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "Throttling", "TooManyRequests"}
"""S3's codes for "later", besides every status from 500 on."""


@dataclass(frozen=True)
class Stored:
    """An object as a listing names it: ``size`` in bytes, ``modified`` in seconds since the epoch."""

    key: str
    size: int
    modified: float


@dataclass(frozen=True)
class Upload:
    """An upload in parts that nobody has finished: ``started`` in seconds since the epoch, ``size`` of its parts."""

    key: str
    id: str
    started: float
    size: int


class NoSuchObject(KeyError):
    """There is no object under this key."""


class Objects(Protocol):
    """Named byte strings; a ``put`` is visible whole or not at all."""

    uri: str

    def put(self, key: str, data: bytes) -> None:
        """Store ``data`` under ``key``, replacing what is there."""

    def put_file(self, key: str, path: Path) -> None:
        """Store a local file under ``key``."""

    def copy(self, source: str, key: str) -> None:
        """Store the bytes under ``source`` under ``key`` as well, without their passing through here."""

    def get(self, key: str) -> bytes:
        """The bytes under ``key``."""

    def get_file(self, key: str, path: Path) -> None:
        """Write the bytes under ``key`` to ``path``."""

    def get_range(self, key: str, start: int, size: int) -> bytes:
        """``size`` (at least 1) bytes under ``key`` from ``start`` on; ``start`` lies inside the object."""

    def sha256(self, key: str) -> str:
        """Hexadecimal SHA-256 of the bytes under ``key``, read in blocks of 1 MiB and kept nowhere."""

    def list(self, prefix: str, limit: int | None = None) -> Iterator[tuple[str, int]]:
        """Keys that start with ``prefix``, in lexicographic order, with their sizes in bytes."""

    def stored(self, prefix: str) -> Iterator[Stored]:
        """The same with their ages."""

    def delete(self, key: str) -> None:
        """Remove ``key``; a missing key is no error."""

    def uploads(self, prefix: str) -> Sequence[Upload]:
        """Uploads in parts to keys that start with ``prefix`` that have not been finished."""

    def abort(self, upload: Upload) -> None:
        """Drop the parts of an unfinished upload; one that has ended is no error."""


class MemoryObjects:
    """A fake for unit tests; the contract tests run on it and on the real server alike."""

    def __init__(self, uri: str = "s3://memory/store") -> None:
        self.uri = uri
        self.data: dict[str, bytes] = {}
        self.modified: dict[str, float] = {}
        self.unfinished: list[Upload] = []

    def put(self, key: str, data: bytes) -> None:
        self.data[key], self.modified[key] = bytes(data), time.time()

    def put_file(self, key: str, path: Path) -> None:
        self.put(key, path.read_bytes())

    def copy(self, source: str, key: str) -> None:
        self.put(key, self.get(source))

    def get(self, key: str) -> bytes:
        try:
            return self.data[key]
        except KeyError:
            raise NoSuchObject(key) from None

    def get_file(self, key: str, path: Path) -> None:
        path.write_bytes(self.get(key))

    def get_range(self, key: str, start: int, size: int) -> bytes:
        return self.get(key)[start : start + size]

    def sha256(self, key: str) -> str:
        return sha256_bytes(self.get(key))

    def list(self, prefix: str, limit: int | None = None) -> Iterator[tuple[str, int]]:
        found = sorted(key for key in self.data if key.startswith(prefix))
        return iter([(key, len(self.data[key])) for key in found[:limit]])

    def stored(self, prefix: str) -> Iterator[Stored]:
        return iter([Stored(key, size, self.modified[key]) for key, size in self.list(prefix)])

    def delete(self, key: str) -> None:
        self.data.pop(key, None)

    def uploads(self, prefix: str) -> Sequence[Upload]:
        return [upload for upload in self.unfinished if upload.key.startswith(prefix)]

    def abort(self, upload: Upload) -> None:
        self.unfinished = [other for other in self.unfinished if other != upload]


def _patient(method: Callable[Concatenate[S3Objects, P], T]) -> Callable[Concatenate[S3Objects, P], T]:
    """Try again while S3 does not answer, and turn botocore's errors into ours: no caller needs to know boto3."""

    @wraps(method)
    def call(store: S3Objects, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return store.patience.call(partial(_translated, partial(method, store, *args, **kwargs), store, args))

    return call


def _translated(act: Callable[[], T], store: S3Objects, args: tuple[Any, ...]) -> T:
    from boto3.exceptions import Boto3Error, S3UploadFailedError
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return act()
    except (ClientError, BotoCoreError, Boto3Error) as error:
        cause = error.__context__ if isinstance(error, S3UploadFailedError) else error  # it wraps a ClientError
        response = cause.response if isinstance(cause, ClientError) else {}
        code = response.get("Error", {}).get("Code", "") if response else None
        if code in {"404", "NoSuchKey", "NotFound"}:
            raise NoSuchObject(str(args[0])) from None
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        later = _is_silence(error) if code is None else code in _BUSY or status >= 500
        raise (NoAnswer if later else PlatformError)(_problem(store, code, error)) from error


def _is_silence(error: Exception) -> bool:
    """Whether an error that S3 said nothing about comes from the way to it, and not from how it was asked."""
    from botocore.exceptions import CredentialRetrievalError, NoCredentialsError, ParamValidationError
    from botocore.exceptions import PartialCredentialsError as Partial

    return not isinstance(error, CredentialRetrievalError | NoCredentialsError | Partial | ParamValidationError)


def _problem(store: S3Objects, code: str | None, error: Exception) -> str:
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

    Large files travel in parts by boto3's transfer manager. botocore itself asks twice, ten seconds to connect and a
    minute to answer; what an outage takes beyond that is up to ``patience``.
    """

    def __init__(self, uri: str, patience: Patience | None = None) -> None:
        from boto3.session import Session
        from botocore.config import Config

        self.uri = uri.rstrip("/")
        self.patience = patience or Patience.configured()
        self._bucket, self._prefix = split_uri(uri)
        config = Config(
            retries={"mode": "standard", "total_max_attempts": 2},
            connect_timeout=10,
            s3={"addressing_style": "path"},
            max_pool_connections=16,
        )
        # A session of its own: boto3's default one keeps the credentials that the process began with.
        self._client: Any = Session().client("s3", config=config)

    def _key(self, key: str) -> str:
        return f"{self._prefix}/{key}" if self._prefix else key

    @_patient
    def put(self, key: str, data: bytes) -> None:
        self._client.put_object(Bucket=self._bucket, Key=self._key(key), Body=data)

    @_patient
    def put_file(self, key: str, path: Path) -> None:
        self._client.upload_file(str(path), self._bucket, self._key(key))

    @_patient
    def copy(self, source: str, key: str) -> None:
        place = {"Bucket": self._bucket, "Key": self._key(source)}
        self._client.copy(place, self._bucket, self._key(key))  # in parts, which S3 demands above 5 GB

    @_patient
    def get(self, key: str) -> bytes:
        body = self._client.get_object(Bucket=self._bucket, Key=self._key(key))["Body"]
        data: bytes = body.read()
        return data

    @_patient
    def get_file(self, key: str, path: Path) -> None:
        self._client.download_file(self._bucket, self._key(key), str(path))

    @_patient
    def get_range(self, key: str, start: int, size: int) -> bytes:
        span = f"bytes={start}-{start + size - 1}"
        data: bytes = self._client.get_object(Bucket=self._bucket, Key=self._key(key), Range=span)["Body"].read()
        return data

    @_patient
    def sha256(self, key: str) -> str:
        digest, body = hashlib.sha256(), self._client.get_object(Bucket=self._bucket, Key=self._key(key))["Body"]
        for block in body.iter_chunks(_CHUNK):
            digest.update(block)
        return digest.hexdigest()

    @_patient
    def list(self, prefix: str, limit: int | None = None) -> Iterator[tuple[str, int]]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._key(prefix), PaginationConfig={"MaxItems": limit} if limit else {}
        )
        return iter([(self._own(item["Key"]), item["Size"]) for page in pages for item in page.get("Contents", [])])

    @_patient
    def stored(self, prefix: str) -> Iterator[Stored]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._key(prefix))
        items = [item for page in pages for item in page.get("Contents", [])]
        return iter([Stored(self._own(i["Key"]), i["Size"], i["LastModified"].timestamp()) for i in items])

    @_patient
    def delete(self, key: str) -> None:
        self._client.delete_object(Bucket=self._bucket, Key=self._key(key))

    @_patient
    def uploads(self, prefix: str) -> Sequence[Upload]:
        asked = {"Bucket": self._bucket, "Prefix": self._key(prefix)}
        pages = self._client.get_paginator("list_multipart_uploads").paginate(**asked)
        found = [item for page in pages for item in page.get("Uploads", [])]
        return [
            Upload(self._own(item["Key"]), item["UploadId"], item["Initiated"].timestamp(), self._parts(item))
            for item in found
        ]

    def _parts(self, upload: dict[str, Any]) -> int:
        """Bytes of the parts of an upload that have arrived."""
        pages = self._client.get_paginator("list_parts").paginate(
            Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"]
        )
        return sum(part["Size"] for page in pages for part in page.get("Parts", []))

    @_patient
    def abort(self, upload: Upload) -> None:
        from botocore.exceptions import ClientError

        try:
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=self._key(upload.key), UploadId=upload.id)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") != "NoSuchUpload":
                raise

    def _own(self, key: str) -> str:
        """A key of the bucket as one below this root."""
        return key[len(self._key("")) :]


def split_uri(uri: str) -> tuple[str, str]:
    """``s3://bucket/some/prefix`` -> ``("bucket", "some/prefix")``; :class:`UserError` for anything else."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket:
        raise UserError(f"{uri!r} is not an S3 address; write s3://bucket/prefix")
    return bucket, prefix.strip("/")


def open_objects(uri: str) -> Objects:
    """The object store at ``uri``."""
    return S3Objects(uri)
