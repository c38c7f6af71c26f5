"""The embedded platform: an MLflow server and an S3 server on this machine, and the way to others.

``resolve`` gives the services that the environment configures or starts our own under ``<home>/platform/`` (``up``,
``down``, ``status``). Both listen on 127.0.0.1 only, on ports that stay the same as long as they are free. S3 asks
for the random keys of the state file. MLflow asks for none: every account of this machine can use it, and through its
web page read the artifacts of runs. On a machine shared with people who must not, configure a server with a login
(``MLFLOW_TRACKING_URI``).

Neither MLflow nor torch is imported here; the servers are processes of their own.
"""

from ichigo.engines.platform.endpoints import Endpoints, check_reachable
from ichigo.engines.platform.supervise import ServerStatus, Status, default_home, down, resolve, status, up

__all__ = ["Endpoints", "ServerStatus", "Status", "check_reachable", "default_home", "down", "resolve", "status", "up"]
