"""An S3 server in one process: OpenStack Swift with its s3api, on a socket that the starter has bound.

Run as ``python -W ignore -m ichigo.engines.platform.s3_server --data DIR --fd N`` with ``AWS_ACCESS_KEY_ID`` (of the
form ``account:user``) and ``AWS_SECRET_ACCESS_KEY`` in the environment. It must be a process of its own: eventlet
changes the standard library's sockets for everybody in it.

The proxy is the only door, and it checks signatures. The account, container and object servers behind it ask nobody
for a key, so they have no port that another user of the machine could reach: they listen on unix sockets in a folder of
mode 0700, which is also this process's working directory (a unix socket's path is limited to 108 bytes).

Left out of a full Swift: replication and auditing (one copy, one disk). A deleted object leaves an empty tombstone.
Objects are synced to the disk before they are acknowledged; listings are not, and may miss the last objects after a
power cut (not after a crash of the process).
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

from ichigo.engines.platform.endpoints import REGION
from ichigo.engines.platform.state import HOST

DEVICE = "disk"
PART_POWER = 4  # 16 partitions; fixed for ever, the data's paths contain the partition
PORTS = {"account": 6202, "container": 6201, "object": 6200}  # names of the unix sockets in the rings, nothing listens
PATIENCE = 60.0  # seconds; Swift's own 0.5-10 s limits give up on a machine that is busy training
SWEEP_EVERY = 60.0  # seconds between two repairs of listings
HOOKS = "ichigo.engines.platform.swift_hooks"

# s3api accepts 1000 parts by default and boto3 cuts an upload into up to 10 000.
# slo deletes parts "asynchronously" by default, by a daemon that does not run here: the space would never come back.
# One node must never be put aside after 10 errors, as a proxy with many nodes does for a minute: hence the limit.
PROXY = """
[DEFAULT]
swift_dir = {etc}
log_level = WARNING
log_custom_handlers = {hooks}.log_to_stderr
[pipeline:main]
pipeline = catch_errors gatekeeper listing_formats cache s3api tempauth copy slo versioned_writes symlink proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
expose_info = false
node_timeout = {patience}
conn_timeout = {patience}
error_suppression_limit = 1000000000
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:cache]
paste.filter_factory = {hooks}:cache_factory
[filter:s3api]
use = egg:swift#s3api
location = {region}
max_upload_part_num = 10000
[filter:tempauth]
use = egg:swift#tempauth
user_{account}_{user} = {secret} .admin
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
max_manifest_segments = 10000
allow_async_delete = false
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_object_versioning = true
[filter:symlink]
use = egg:swift#symlink
"""


def serve(data: Path, listener: socket.socket, access_key: str, secret_key: str) -> None:
    """Serve the objects under ``data`` on ``listener`` until the process ends; monkey patches the process."""
    from swift.common.utils import monkey_patch

    monkey_patch()
    etc, sockets = (_private_folder(data / name) for name in ("etc", "sockets"))
    _private_folder(data / "objects" / DEVICE)
    os.chdir(sockets)
    _write_rings(etc)
    _connect_by_unix_sockets()
    conf = _storage_configuration(etc, data / "objects")
    _start_storage_servers(conf)
    account, user = access_key.split(":")
    proxy = PROXY.format(
        etc=etc, hooks=HOOKS, patience=PATIENCE, region=REGION, account=account, user=user, secret=secret_key
    )
    _start_sweeps(conf, data / "objects" / DEVICE)
    _serve_proxy(proxy, listener)


def _private_folder(path: Path) -> Path:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def _write_rings(etc: Path) -> None:
    """Tell Swift that one disk holds everything, and load its configuration from ``etc``."""
    from swift.common import utils
    from swift.common.ring.builder import RingBuilder
    from swift.common.storage_policy import reload_storage_policies

    # Prefix and suffix guard against names chosen to collide, by clients who are strangers; data is lost without them.
    (etc / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_suffix = ichigo\nswift_hash_path_prefix = ichigo\n"
        "[storage-policy:0]\nname = default\ndefault = yes\n"
    )
    utils.set_swift_dir(str(etc))
    for name, port in PORTS.items():
        builder = RingBuilder(PART_POWER, 1, 1)
        builder.add_dev({"id": 0, "region": 1, "zone": 0, "weight": 1, "ip": HOST, "port": port, "device": DEVICE})
        builder.rebalance(seed=0)
        ring = etc / f"{name}.ring.gz"
        builder.get_ring().save(str(ring))
        ring.chmod(0o600)  # Swift gives it a mode of its own, whatever the umask
    reload_storage_policies()


def _connect_by_unix_sockets() -> None:
    """Let Swift's backend connections, all made by one class, find ``<port>.sock`` in the working directory."""
    from swift.common import bufferedhttp

    class UnixConnection(bufferedhttp.BufferedHTTPConnection):  # type: ignore[misc]
        def connect(self) -> None:
            self._connected_time = time.time()
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.connect(f"{self.port}.sock")

    bufferedhttp.BufferedHTTPConnection = UnixConnection


def _storage_configuration(etc: Path, devices: Path) -> dict[str, str]:
    return {
        "devices": str(devices),
        "swift_dir": str(etc),
        "mount_check": "false",
        "log_level": "WARNING",
        "log_requests": "false",
        "log_custom_handlers": f"{HOOKS}.log_to_stderr",
        "node_timeout": str(PATIENCE),
        "conn_timeout": str(PATIENCE),
        "container_update_timeout": str(PATIENCE),
        "fallocate_reserve": str(1 << 30),  # bytes left free, so that the databases beside us can still be written
        "objects_per_second": "1000",  # of listing repairs
    }


def _start_storage_servers(conf: dict[str, str]) -> None:
    import eventlet
    from swift.account.server import AccountController
    from swift.common.concurrency import wsgi
    from swift.common.http_protocol import SwiftHttpProtocol
    from swift.common.utils import NullLogger
    from swift.container.server import ContainerController
    from swift.obj.server import ObjectController

    controllers = {"account": AccountController, "container": ContainerController, "object": ObjectController}
    for name, controller in controllers.items():
        path = Path(f"{PORTS[name]}.sock")
        path.unlink(missing_ok=True)  # of the process before this one
        door = eventlet.listen(str(path), family=socket.AF_UNIX, backlog=1024)
        eventlet.spawn(wsgi.server, door, controller(conf), NullLogger(), protocol=SwiftHttpProtocol, log_output=False)


def _start_sweeps(conf: dict[str, str], device: Path) -> None:
    """Now and every ``SWEEP_EVERY`` seconds, enter objects into listings that could not be written at the time."""
    import eventlet
    from swift.obj.updater import ObjectUpdater

    updater = ObjectUpdater(conf)

    def sweep() -> None:
        while True:
            updater.begin = time.time()
            updater.object_sweep(str(device))
            eventlet.sleep(SWEEP_EVERY)

    eventlet.spawn(sweep)


def _serve_proxy(configuration: str, listener: socket.socket) -> None:
    from eventlet.greenio import GreenSocket
    from swift.common.concurrency import wsgi
    from swift.common.http_protocol import SwiftHttpProtocol
    from swift.common.utils import NullLogger
    from swift.common.wsgi import ConfigString, loadapp

    app: Any = loadapp(ConfigString(configuration))
    print("ready", file=sys.stderr, flush=True)
    # Without capitalize_response_headers=False the header is "Etag", in which boto3 does not recognise "ETag".
    wsgi.server(
        GreenSocket(listener),
        app,
        NullLogger(),
        protocol=SwiftHttpProtocol,
        log_output=False,
        capitalize_response_headers=False,
        max_size=1024,
    )


def main() -> None:
    """Read the command line and the environment, and serve."""
    parser = argparse.ArgumentParser(description="S3 server of Ichigo's embedded platform")
    parser.add_argument("--data", type=Path, required=True, help="folder of the objects; needs extended attributes")
    parser.add_argument("--fd", type=int, required=True, help="file descriptor of the listening socket")
    arguments = parser.parse_args()
    keys = (os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
    serve(arguments.data.resolve(), socket.socket(fileno=arguments.fd), *keys)


if __name__ == "__main__":
    main()
