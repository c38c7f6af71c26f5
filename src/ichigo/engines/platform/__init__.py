"""The embedded platform: an MLflow server and an S3 server on this machine, and the way to others.

``resolve`` gives the services that the environment configures or starts our own under ``<home>/platform/`` (``up``,
``down``, ``status``). Both listen on 127.0.0.1 only, on ports that stay the same as long as they are free. S3 asks
for the random keys and MLflow for the random password of the state file, which only its user can read; other accounts
of this machine have neither. ``reap`` closes the MLflow runs that killed processes left open.

Neither MLflow nor torch is imported here; the servers are processes of their own.
"""

from ichigo.engines.platform.endpoints import Endpoints, check_reachable
from ichigo.engines.platform.reaper import Closed, reap
from ichigo.engines.platform.supervise import ServerStatus, Status, down, login, resolve, status, up
from ichigo.home import default_home

__all__ = [
    "Closed",
    "Endpoints",
    "ServerStatus",
    "Status",
    "check_reachable",
    "default_home",
    "down",
    "login",
    "reap",
    "resolve",
    "status",
    "up",
]
