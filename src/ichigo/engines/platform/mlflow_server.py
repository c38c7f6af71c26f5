"""The MLflow tracking server in one process, on a socket that the starter has bound.

Run as ``python -W ignore -m ichigo.engines.platform.mlflow_server --data DIR --artifacts s3://… --fd N`` with the login
that it asks for (:mod:`ichigo.engines.platform.gate`) in ``MLFLOW_TRACKING_USERNAME`` and ``MLFLOW_TRACKING_PASSWORD``.

``mlflow server --workers 1`` imports MLflow twice, in a launcher that then only waits and in its one worker (measured
with MLflow 3.17.2: 500 MB and 4.6 s, and with its default job runners 10 processes). This module does what launcher and
worker do, in one process, by the names that they use; MLflow calls those internal, so its version is pinned and
``tests/services`` holds this against the real client.
"""

from __future__ import annotations

import argparse
import os
import socket
import uuid
from pathlib import Path

from ichigo.engines.platform.gate import Gate

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # 8 more processes, for judges and scheduled scorers
    "MLFLOW_ENABLE_ASSISTANT_SANDBOX": "true",  # else the web page's assistant may offer a shell on this machine
}
"""Environment of the server; must be set before MLflow is imported."""


def serve(data: Path, artifacts: str, listener: socket.socket) -> None:
    """Serve ``data/mlflow.db``, migrating it first, with ``artifacts`` as root of new experiments."""
    login = os.environ.pop("MLFLOW_TRACKING_USERNAME"), os.environ.pop("MLFLOW_TRACKING_PASSWORD")
    os.environ.update(SETTINGS)
    from mlflow.server import constants

    database = f"sqlite:///{data / 'mlflow.db'}"
    os.environ[constants.BACKEND_STORE_URI_ENV_VAR] = database
    os.environ[constants.ARTIFACT_ROOT_ENV_VAR] = artifacts
    os.environ["_MLFLOW_SERVER_BOOT_ID"] = uuid.uuid4().hex  # a server rebuilds no code from the database
    from mlflow.server.handlers import initialize_backend_stores

    initialize_backend_stores(database, database, artifacts)
    import uvicorn
    from mlflow.server.fastapi_app import app

    config = uvicorn.Config(
        Gate(app, *login),
        access_log=False,  # one line per request
        lifespan="off",  # looks for the assistant's Docker containers
        timeout_graceful_shutdown=5,
    )
    uvicorn.Server(config).run(sockets=[listener])


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description="MLflow server of Ichigo's embedded platform")
    parser.add_argument("--data", type=Path, required=True, help="folder of mlflow.db")
    parser.add_argument("--artifacts", required=True, help="s3:// root of the artifacts")
    parser.add_argument("--fd", type=int, required=True, help="file descriptor of the listening socket")
    arguments = parser.parse_args()
    serve(arguments.data.resolve(), arguments.artifacts, socket.socket(fileno=arguments.fd))


if __name__ == "__main__":
    main()
