"""``ichigo verify X``: are the stored bytes of X, and of all that it was made from, still the committed ones?"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ichigo.errors import IntegrityError, UserError

if TYPE_CHECKING:
    from ichigo.store import Store
    from ichigo.store.verification import Finding, Wanted

HELP = "read every stored file of a run, a model or an artifact and of all that it was made from, and check its digest"
_WHAT = """\
a run (its key, or its folder here), a registered model (name, name@alias or name@version), or the s3:// address of an
artifact; default: the last run here"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """``X`` and ``--json``."""
    parser.add_argument("what", metavar="X", nargs="?", help=_WHAT)
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def main(args: argparse.Namespace) -> int:
    """Print a tree; 0 when everything is as committed, 4 otherwise."""
    from ichigo.cli.naming import connect
    from ichigo.engines import platform
    from ichigo.store import Store
    from ichigo.store.verification import verify

    home = platform.default_home(os.environ).resolve()
    store = Store.at(connect(home).store)
    wanted = _wanted(args.what, store, home)
    findings = verify(store, wanted)
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        print("\n".join(tree(findings, [one.uri for one in wanted], store.objects.uri)))
    return 0 if all(map(_fine, findings)) else IntegrityError.exit_code


def _fine(finding: Finding) -> bool:
    return finding.status in {"ok", "away"}


def _wanted(what: str | None, store: Store, home: Path) -> list[Wanted]:
    from ichigo.registry.lookup import find
    from ichigo.steps.records import run_keys
    from ichigo.store.verification import Wanted

    if what and what.startswith("s3://"):
        return [Wanted(what.rstrip("/"))]
    folder = Path(what) if what and os.sep in what else home / "runs" / (what or "latest")
    if (folder / "summary.json").is_file():
        what = json.loads((folder / "summary.json").read_text())["run_key"]
    elif not what or os.sep in what:
        raise UserError(f"{folder} holds no summary.json of a run; name a run, a model or an artifact")
    assert what
    if what in run_keys(store):
        return _of_run(what, store)
    model = find(what)
    return [Wanted(model.uri, model.manifest, model.digest)]


def _of_run(key: str, store: Store) -> list[Wanted]:
    """The artifacts of a run, the last made first, so that what it led to stands at the root of the tree."""
    from ichigo.steps.records import Records
    from ichigo.store.verification import Wanted

    made = [step.artifact for step in Records(store, key).steps() if step.artifact]
    if not made:
        raise UserError(f"the run {key} made no artifact; name another one")
    return [Wanted(artifact["uri"], digest=artifact["digest"]) for artifact in reversed(made)]


def tree(findings: Sequence[Finding], roots: Sequence[str], store: str) -> list[str]:
    """A line for each artifact, below the first that was made from it; and what is wrong with it below that."""
    by_uri = {finding.uri: finding for finding in findings}
    lines: list[str] = []
    shown: set[str] = set()
    for uri in roots:
        if uri not in shown:
            _branch(by_uri, uri, "", "", shown, lines, store)
    size = sum(finding.size for finding in findings) / 2**20
    bad = sum(not _fine(finding) for finding in findings)
    verdict = f"{bad} of {len(findings)} artifacts are not as committed" if bad else "everything is as committed"
    lines.append(f"{verdict}: {len(findings)} artifacts, {sum(f.files for f in findings)} files, {size:.1f} MiB read")
    return lines


def _branch(
    by_uri: Mapping[str, Finding], uri: str, name: str, indent: str, shown: set[str], lines: list[str], store: str
) -> None:
    finding, called = by_uri[uri], f"{name}: " if name else ""
    again = uri in shown
    place = uri.removeprefix(f"{store}/")
    lines.append(f"{finding.status:<8} {indent}{called}{place}{' (above)' if again else ''}")
    if again:
        return
    shown.add(uri)
    said = [*finding.problems, *([f"its manifest; the bytes lie at {finding.bytes_at}"] if finding.bytes_at else [])]
    lines += [f"{'':<8} {indent}    {one}" for one in said]
    for parent, address in sorted(finding.parents.items()):
        if address in by_uri:
            _branch(by_uri, address, parent, indent + "  ", shown, lines, store)
