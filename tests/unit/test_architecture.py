"""Imports go one way, and heavy libraries stay where they compute: held by reading every source file."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import resolve_name
from pathlib import Path

import pytest

import ichigo

ROOT = Path(ichigo.__file__).parent

LEVELS = (
    {"cli"},
    {"engines"},
    {"steps"},
    {"report"},  # reads what evaluation and corpus wrote; the exit handler and the command line have it make pages
    {"serving", "registry", "evaluation", "training", "corpus"},
    {"inference"},  # generates with a model under the contract and layouts of language, for evaluation and serving
    {"speech", "language"},
    {"tracking", "store", "recipe"},
    {"errors", "hashing", "progress", "devices", "edits", "home", "linear", "__init__"},
)
"""From the top down; a room imports from levels below its own, never from its own level."""

LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
COMPUTE = {"speech", "language", "training", "inference", "linear"}
HEAVY = {"torch", "deepspeed", "transformers"}


@dataclass(frozen=True)
class Import:
    """One imported name: where (file below the package), what (dotted), and whether importing the file runs it."""

    file: Path
    name: str
    at_import: bool

    @property
    def room(self) -> str:
        """The top-level part of the package that imports."""
        return room_of(self.file.with_suffix("").parts)

    @property
    def library(self) -> str:
        """The first part of the imported name."""
        return self.name.partition(".")[0]


def room_of(parts: tuple[str, ...]) -> str:
    """``ichigo.<room>.…`` -> room; a name of the package itself (``__version__``) belongs to ``__init__``."""
    return parts[0] if parts and ((ROOT / parts[0]).is_dir() or (ROOT / f"{parts[0]}.py").exists()) else "__init__"


def imports(file: Path, source: str) -> Iterator[Import]:
    """Every import of a source file, those inside functions and for type checkers included."""
    tree = ast.parse(source)
    lazy = {id(inner) for node in ast.walk(tree) if _is_lazy(node) for inner in ast.walk(node)}
    package = ".".join(("ichigo", *file.parent.parts))
    for node in ast.walk(tree):
        for name in _names(node, package):
            yield Import(file, name, id(node) not in lazy)


def _is_lazy(node: ast.AST) -> bool:
    if isinstance(node, ast.If):
        return ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def _names(node: ast.AST, package: str) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        module = resolve_name("." * node.level + (node.module or ""), package)
        return [f"{module}.{alias.name}" for alias in node.names]
    return []


def against_the_arrows(found: Import) -> bool:
    """Whether an import leads to another room on the same level or on a higher one."""
    if found.library != "ichigo":
        return False
    target = room_of(tuple(found.name.split(".")[1:]))
    return target != found.room and LEVEL[target] <= LEVEL[found.room]


@pytest.fixture(scope="module")
def everything() -> list[Import]:
    files = sorted(ROOT.rglob("*.py"))
    return [found for file in files for found in imports(file.relative_to(ROOT), file.read_text())]


def shown(found: list[Import]) -> list[str]:
    return [f"{one.file}: {one.name}" for one in found]


def test_every_room_has_a_level() -> None:
    rooms = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms <= set(LEVEL)


def test_imports_go_one_way(everything: list[Import]) -> None:
    assert shown([found for found in everything if against_the_arrows(found)]) == []


@pytest.mark.parametrize(
    ("file", "line", "forbidden"),
    [
        ("language/layouts.py", "from ichigo.training.job import StageJob", True),
        ("corpus/shards.py", "def f():\n    from ichigo import evaluation", True),  # the same level
        ("store/code.py", "if True:\n    import ichigo.steps.mix", True),
        ("recipe/schema.py", "from ..store import Store", True),
        ("language/base.py", "from ichigo.inference import engine", True),
        ("inference/engine.py", "from ichigo.language import layouts", False),
        ("recipe/schema.py", "from .yaml12 import load", False),
        ("cli/main.py", "from ichigo import __version__", False),
        ("errors.py", "from ichigo.recipe import load", True),
    ],
)
def test_the_reader_sees_an_arrow_that_points_up(file: str, line: str, forbidden: bool) -> None:
    assert any(against_the_arrows(found) for found in imports(Path(file), line)) is forbidden


def test_only_engines_import_kfp(everything: list[Import]) -> None:
    users = {found.room for found in everything if found.library == "kfp"}
    assert users == {"engines"}


def test_torch_is_imported_at_the_top_only_by_rooms_that_compute(everything: list[Import]) -> None:
    heavy = [found for found in everything if found.library in HEAVY and found.at_import]
    assert heavy
    assert shown([found for found in heavy if found.room not in COMPUTE]) == []


def test_an_import_inside_a_function_or_for_type_checkers_does_not_count_as_one_at_the_top() -> None:
    source = "import torch\nif TYPE_CHECKING:\n    import kfp\ndef f():\n    import mlflow\nif X:\n    import numpy\n"
    at_import = {found.name: found.at_import for found in imports(Path("steps/x.py"), source)}
    assert at_import == {"torch": True, "kfp": False, "mlflow": False, "numpy": True}


def loaded(code: str) -> set[str]:
    """The top-level modules that a new interpreter holds after ``code``."""
    report = "import sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_command_line_starts_without_heavy_libraries() -> None:
    """``ichigo --help`` must answer at once on a laptop that has none of them."""
    modules = loaded("import ichigo.cli.main; ichigo.cli.main.parser().format_help()")
    assert "ichigo" in modules
    assert modules.isdisjoint({*HEAVY, "mlflow", "kfp", "numpy", "boto3"})


def test_steps_import_without_heavy_libraries() -> None:
    """A reused step ends in a second because it never imports them."""
    steps = [f"ichigo.steps.{path.stem}" for path in sorted((ROOT / "steps").glob("*.py")) if path.stem != "__init__"]
    modules = loaded(f"import {', '.join(steps)}")
    assert len(steps) > 12
    assert modules.isdisjoint({*HEAVY, "mlflow", "kfp"})
