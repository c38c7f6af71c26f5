"""``ichigo promote NAME@VERSION``: candidate -> staging -> champion, a step at a time, with an entry in the ledger."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from ichigo.errors import UserError

if TYPE_CHECKING:
    from ichigo.registry.ledger import Entry
    from ichigo.registry.lookup import Registered

HELP = "promote a registered version to staging or champion; who, when, why and on what numbers is kept in the ledger"


def arguments(parser: argparse.ArgumentParser) -> None:
    """``NAME@VERSION``, where to, and what is kept."""
    parser.add_argument("model", metavar="NAME@VERSION", help="a registered version: name@version or name@alias")
    parser.add_argument("--to", choices=("staging", "champion"), help="default: one step on from where it is")
    force = "overrule the gate, or skip a step; needs a reason"
    parser.add_argument("--force", action="store_true", help=force)
    parser.add_argument("--reason", metavar="TEXT", default="", help="kept in the ledger")
    other = parser.add_argument_group(
        "elsewhere", "copy it to another bucket or server and register it there as candidate; variables ICHIGO_TO_NAME "
        "(ICHIGO_TO_AWS_ENDPOINT_URL, ICHIGO_TO_MLFLOW_TRACKING_PASSWORD ...) are NAME of the other servers"
    )  # fmt: skip
    other.add_argument("--to-store", metavar="S3", help="s3://bucket/prefix")
    other.add_argument("--to-tracking", metavar="URI", help="MLflow's address there; default: the same server")
    other.add_argument("--to-name", metavar="NAME", help="the model's name there; default: the same")
    after(parser)


def after(parser: argparse.ArgumentParser) -> None:
    """``--after``."""
    what = "only if the ledger still has N entries, as `ichigo models NAME` showed them when you decided"
    parser.add_argument("--after", metavar="N", type=int, help=what)


def main(args: argparse.Namespace) -> int:
    """Promote, and say what the ledger now says."""
    from ichigo.cli.naming import connect
    from ichigo.engines import platform
    from ichigo.registry.models import opinion_of
    from ichigo.registry.promotion import move

    connect(platform.default_home(os.environ).resolve())
    found = _version(args.model)
    if args.to_store:
        return _elsewhere(found, args)
    if args.to_tracking or args.to_name:
        raise UserError("--to-tracking and --to-name are about a copy; name its place with --to-store")
    opinion = opinion_of(found.name, found.version)
    about = {"force": args.force, "reason": args.reason, "after": args.after}
    say(move(found.name, found.version, args.to, opinion, **about), found.name)
    return 0


def _elsewhere(found: Registered, args: argparse.Namespace) -> int:
    from ichigo.registry.transfer import transfer

    if args.to or args.force or args.after is not None:
        raise UserError("--to, --force and --after are about a ledger; copy first and promote there, as its deployers")
    done = transfer(found, args.to_store, args.to_tracking, args.to_name, args.reason)
    read = [one for one in done.findings if one.status == "ok"]
    size, files = sum(one.size for one in read) / 2**20, sum(one.files for one in read)
    print(f"copied and read back: {len(read)} artifacts, {files} files, {size:.1f} MiB; every digest as registered")
    print(f"their past came as {len(done.findings) - len(read)} manifests; its bytes stay where they were")
    new = "" if done.version.created else ", as it was already"
    print(f"{done.version.name} version {done.version.version} at {args.to_tracking or 'this server'}{new}")
    print(f"  -> {done.version.uri}")
    return 0


def say(entry: Entry, name: str) -> None:
    """Tell what was done and on what numbers."""
    from ichigo.cli.models import table

    print("\n".join([f"{name}: entry {entry}", *table(entry.numbers)]))


def _version(spec: str) -> Registered:
    from ichigo.registry.lookup import find

    if "@" not in spec:
        raise UserError(f"name a version to promote: {spec}@VERSION; `ichigo models {spec}` lists them")
    return find(spec)
