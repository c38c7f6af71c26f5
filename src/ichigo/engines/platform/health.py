"""Questions that only a working server of ours answers: a signed bucket listing to S3, ``/health`` to MLflow by login.

Requests are signed with botocore's signer alone, which loads in 0.1 s without boto3 and its model of S3: asking whether
everything runs should cost next to nothing.
"""

from __future__ import annotations

import http.client
from collections.abc import Mapping

from ichigo.engines.platform.endpoints import REGION
from ichigo.engines.platform.gate import header
from ichigo.engines.platform.state import BUCKET, HOST, USER, ServerName, State, address
from ichigo.errors import PlatformError


def answers(name: ServerName, state: State, timeout: float) -> bool:
    """Whether the server says within ``timeout`` seconds that it works."""
    try:
        return (_s3(state, "GET", "/", timeout) if name == "s3" else _mlflow(state, timeout)) == 200
    except (OSError, http.client.HTTPException):
        return False


def create_bucket(state: State, timeout: float) -> None:
    """Create the bucket of the store and of MLflow's artifacts, unless it exists.

    Raises:
        PlatformError: S3 refuses.
    """
    status = _s3(state, "PUT", f"/{BUCKET}", timeout)
    if status not in (200, 409):  # 409: it exists, and all buckets of this server are ours
        raise PlatformError(f"The embedded S3 server refused to create the bucket {BUCKET!r} (HTTP {status}).")


def _mlflow(state: State, timeout: float) -> int:
    login = {"Authorization": header(USER, state.password)}
    return _status("GET", state.servers["mlflow"].port, "/health", login, timeout)


def _s3(state: State, method: str, path: str, timeout: float) -> int:
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    port = state.servers["s3"].port
    request = AWSRequest(method=method, url=address(port) + path, data=b"")
    S3SigV4Auth(Credentials(state.access_key, state.secret_key), "s3", REGION).add_auth(request)
    return _status(method, port, path, dict(request.headers.items()), timeout)


def _status(method: str, port: int, path: str, headers: Mapping[str, str], timeout: float) -> int:
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout)
    try:
        connection.request(method, path, headers=dict(headers))
        return connection.getresponse().status
    finally:
        connection.close()
