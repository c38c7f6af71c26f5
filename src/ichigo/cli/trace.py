"""``ichigo trace ROW_OR_SPEAKER``: what was made from a row, or from everything that one speaker said."""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from ichigo.errors import UserError

if TYPE_CHECKING:
    from ichigo.corpus.tracing import Trace
    from ichigo.registry.lookup import Registered

HELP = "say which corpora, tokens, mixes and models used a row or a speaker, for training or for evaluation"


def arguments(parser: argparse.ArgumentParser) -> None:
    """``ROW_OR_SPEAKER`` and ``--json``."""
    parser.add_argument("what", metavar="ROW_OR_SPEAKER", help="the id of a row (16 hexadecimal digits), or a speaker")
    parser.add_argument("--json", action="store_true", help="print everything as JSON, the ids among it")


def main(args: argparse.Namespace) -> int:
    """Print what was found."""
    from ichigo.cli.naming import connect
    from ichigo.corpus.tracing import trace
    from ichigo.engines import platform
    from ichigo.registry.lookup import registered
    from ichigo.store import Store

    store = Store.at(connect(platform.default_home(os.environ).resolve()).store)
    found = trace(args.what, store.every())
    if not found.rows:
        raise UserError(f"no row of a corpus in {store.objects.uri} has the id or the speaker {args.what!r}")
    versions = registered()
    if args.json:
        print(json.dumps(as_data(args.what, found, versions), indent=2, sort_keys=True))
    else:
        print("\n".join(lines(args.what, found, versions, store.objects.uri)))
    return 0


def as_data(what: str, found: Trace, versions: Sequence[Registered]) -> dict[str, object]:
    """Everything that was found, for a machine."""
    uses = [asdict(use) for use in found.uses]
    models = [
        {**asdict(one), "trained": found.trained.get(one.uri, []), "judged": found.judged.get(one.uri, 0)}
        for one in _concerned(found, versions)
    ]
    return {"asked": what, "rows": found.rows, "uses": uses, "versions": models}


def lines(what: str, found: Trace, versions: Sequence[Registered], store: str) -> list[str]:
    """The same for a person."""
    splits = ", ".join(f"{count} {split}" for split, count in sorted(Counter(found.rows.values()).items()))
    out = [f"{what}: {len(found.rows)} rows ({splits})"]
    for use in found.uses:
        counts = ", ".join(f"{name} {count}" for name, count in use.counts.items())
        out.append(f"  {use.uri.removeprefix(store + '/')}: {'; '.join(use.how)}{f' ({counts})' if counts else ''}")
    for one in _concerned(found, versions):
        ways = ["trained on them"] * (one.uri in found.trained) + ["judged by them"] * (one.uri in found.judged)
        aliases = "".join(f" @{alias}" for alias in one.aliases)
        out.append(f"registered: {one}{aliases}: {' and '.join(ways)}")
    return out


def _concerned(found: Trace, versions: Sequence[Registered]) -> list[Registered]:
    return [one for one in versions if one.uri in found.trained or one.uri in found.judged]
