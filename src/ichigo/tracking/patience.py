"""MLflow's client, every call of which outlasts a short outage and ends a long one with an error for a person.

MLflow's own retries are switched off (:data:`SETTINGS`): they know no limit in seconds, say nothing while they wait,
and end in an ``MlflowException`` with a traceback of requests and urllib3.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ichigo.errors import PlatformError

PATIENCE = 60.0  # seconds; a killed server of ours is back in 3 to 22
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",  # the default, 120, is for downloads through the server
}
_PAUSE, _LONGEST_PAUSE = 0.5, 8.0  # seconds between two attempts, doubled after each
_REMEDY = "start it (`ichigo up` where it is the embedded one) and run again: what is committed is found"
_REFUSED = {"UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED"}


class Patient:
    """Whatever ``client`` can do, asked again for up to ``patience`` seconds while the server does not answer.

    The seconds are those of an outage and not of a call: whoever has waited them for one call waits them not again for
    the next, until the server has answered once.

    A call whose answer was lost is repeated, so it may be carried out twice. Batches of points, parameters, tags and
    datasets are then the same as once (``tests/services/test_tracking.py``); a run created twice is closed with its
    tree.

    Raises:
        PlatformError: MLflow, or S3 behind it, does not answer for so long, or refuses the credentials.
    """

    def __init__(self, client: Any, patience: float = PATIENCE) -> None:
        self._client, self._patience = client, patience
        self._silent_since: float | None = None

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        return partial(self._ask, found) if callable(found) else found

    def _ask(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        pause = _PAUSE
        while True:
            began = time.monotonic()
            try:
                answer = call(*args, **kwargs)
            except Exception as error:
                self._wait(error, began, pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                self._silent_since = None
                return answer

    def _wait(self, error: Exception, began: float, pause: float) -> None:
        """Sleep before the next attempt, or raise: the error itself if the server gave it as its answer."""
        if refusal := _refusal(error):
            raise PlatformError(refusal) from error
        silent = _silent(error)
        if silent is None:
            self._silent_since = None
            raise error
        since = self._silent_since = self._silent_since or began
        if time.monotonic() + pause > since + self._patience:
            raise PlatformError(f"{silent}, asked for {self._patience:.0f} s; {_REMEDY}") from error
        if since == began:
            print(f"{silent}; asking again for up to {self._patience:.0f} s", flush=True)
        time.sleep(pause)


def server() -> str:
    """The configured server, as a person knows it."""
    return f"MLflow at {os.environ.get('MLFLOW_TRACKING_URI')}"


def _refusal(error: Exception) -> str | None:
    """What to tell a person whom the server does not let in; asking again would not help."""
    if getattr(error, "error_code", None) not in _REFUSED:
        return None
    login = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD or MLFLOW_TRACKING_TOKEN"
    return f"{server()} refuses the credentials; check {login}"


def _silent(error: Exception) -> str | None:
    """Who did not answer, or None if it answered and the answer is the error."""
    for cause in _causes(error):
        library = type(cause).__module__.partition(".")[0]
        if library == "requests":
            return f"{server()} does not answer ({_words(cause)})"
        if library in {"botocore", "boto3"}:
            return f"S3 at {os.environ.get('AWS_ENDPOINT_URL') or 'AWS'}, behind MLflow, fails ({_words(cause)})"
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it was raised from; MLflow sometimes says ``from`` and sometimes not."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _words(error: BaseException) -> str:
    """The innermost cause in one short line."""
    *_, root = _causes(error)
    return f"{type(root).__name__}: {root}".splitlines()[0][:160]
