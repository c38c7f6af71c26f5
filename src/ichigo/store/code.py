"""The digest of the source files that a step can reach by imports inside ``ichigo``.

Found by reading the sources (imports inside functions count), not by importing them: so it costs milliseconds, needs no
torch, and a change of a README or of a room that the step never enters leaves the digest as it is.
"""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import resolve_name
from pathlib import Path

from ichigo.hashing import sha256_bytes, sha256_json

ROOT = Path(__file__).resolve().parents[1]


def code_digest(*modules: str, root: Path = ROOT) -> str:
    """Digest over path and content of every source file reachable from ``modules`` (dotted names)."""
    files = reachable(*modules, root=root)
    return sha256_json({str(file.relative_to(root)): sha256_bytes(file.read_bytes()) for file in files})


def reachable(*modules: str, root: Path = ROOT) -> list[Path]:
    """Source files of ``modules``, of what they import below ``root``, and of the packages around them, sorted."""
    seen: set[Path] = set()
    queue = list(modules)
    while queue:
        for file in _files(queue.pop(), root):
            if file not in seen:
                seen.add(file)
                around = ".".join(file.parent.relative_to(root.parent).parts)
                queue += [name for name in _imports(file.read_bytes(), around) if name.split(".")[0] == root.name]
    return sorted(seen)


def _files(module: str, root: Path) -> list[Path]:
    """The file of ``module`` (or of the longest part of it that is one) and the ``__init__`` files above it."""
    found, folder = [root / "__init__.py"], root
    for part in module.split(".")[1:]:
        if (folder / part / "__init__.py").exists():
            folder = folder / part
            found.append(folder / "__init__.py")
        else:
            leaf = folder / f"{part}.py"
            return [*found, leaf] if leaf.exists() else found
    return found


@cache
def _imports(source: bytes, package: str) -> tuple[str, ...]:
    """Every module, or name in one, that a source file of ``package`` imports."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            names += [f"{module}.{alias.name}" for alias in node.names]
    return tuple(names)
