"""The code digest: it changes with every source file that a step can reach, and with nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from ichigo.store import code_digest
from ichigo.store.code import ROOT, reachable

SOURCES = {
    "__init__.py": '"""Root."""\n',
    "steps/__init__.py": "NAME = 1\n",
    "steps/mix.py": "from fake.room import helper\n\ndef main():\n    from fake.room.deep import leaf\n",
    "room/__init__.py": "",
    "room/helper.py": "import json\nimport fake.room.cycle as cycle\n",
    "room/cycle.py": "from fake.room import helper\nfrom fake.absent import nothing\n",
    "room/deep/__init__.py": "",
    "room/deep/leaf.py": "VALUE = 1\n",
    "room/unreached.py": "from fake.room import helper\n",
    "other/__init__.py": "",
    "other/unreached.py": "",
    "room/README.md": "text\n",
    "room/table.csv": "1,2\n",
}


def package(folder: Path, changes: Mapping[str, str] | None = None) -> Path:
    """A package called ``fake`` below ``folder``."""
    root = folder / "fake"
    for name, text in {**SOURCES, **(changes or {})}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def digest(root: Path) -> str:
    return code_digest("fake.steps.mix", root=root)


@pytest.mark.parametrize("name", ["room/README.md", "room/table.csv", "room/unreached.py", "other/unreached.py"])
def test_what_a_step_cannot_reach_leaves_the_digest(tmp_path: Path, name: str) -> None:
    root = package(tmp_path)
    before = digest(root)
    (root / name).write_text("CHANGED = 1\n")
    assert digest(root) == before


@pytest.mark.parametrize(
    "name",
    [
        "steps/mix.py",
        "room/helper.py",  # imported at the top
        "room/deep/leaf.py",  # imported inside a function
        "room/cycle.py",  # imported by what is imported
        "__init__.py",  # run by Python on the way there
        "steps/__init__.py",
        "room/deep/__init__.py",
    ],
)
def test_what_a_step_reaches_changes_the_digest(tmp_path: Path, name: str) -> None:
    root = package(tmp_path)
    before = digest(root)
    (root / name).write_text(SOURCES[name] + "CHANGED = 1\n")
    assert digest(root) != before


def test_a_moved_module_changes_the_digest(tmp_path: Path) -> None:
    """The same sources under another name are another program."""
    before = digest(package(tmp_path))
    moved = {
        "steps/mix.py": SOURCES["steps/mix.py"],
        "room/deep/leaf.py": "",
        "room/deep/leaf/__init__.py": "VALUE = 1\n",
    }
    assert digest(package(tmp_path / "moved", moved)) != before


def test_the_digest_does_not_depend_on_where_the_package_lies(tmp_path: Path) -> None:
    """The laptop and the image of a cluster must agree, or nothing is ever reused between them."""
    here = package(tmp_path / "here")
    there = tmp_path / "some where" / "else" / "fake"
    shutil.copytree(here, there)
    assert digest(here) == digest(there)


def test_the_order_of_the_starting_points_does_not_matter(tmp_path: Path) -> None:
    root = package(tmp_path)
    one = code_digest("fake.steps.mix", "fake.other.unreached", root=root)
    assert one == code_digest("fake.other.unreached", "fake.steps.mix", root=root)
    assert one != digest(root)


@pytest.mark.parametrize(
    "line",
    [
        "import fake.room.deep.leaf",
        "import json, fake.room.deep.leaf as leaf",
        "from fake.room.deep import leaf as other",
        "from fake.room.deep.leaf import VALUE",
        "from fake.room.deep.leaf import *",
        "from ..room.deep import leaf",
        "from ..room.deep.leaf import VALUE",
        "from . import near",
        "from .near import leaf",
        "try:\n    from fake.room.deep import leaf\nexcept ImportError:\n    leaf = None",
        "class Step:\n    def run(self):\n        return [__import__ for _ in ()]\n    import fake.room.deep.leaf",
        "from fake import front",
    ],
)
def test_every_form_of_an_import_is_followed(tmp_path: Path, line: str) -> None:
    changes = {
        "steps/mix.py": line + "\n",
        "steps/near.py": "from fake.room.deep import leaf\n",
        "front/__init__.py": "from ..room.deep.leaf import VALUE\n",  # relative to the package itself
    }
    root = package(tmp_path, changes)
    assert root / "room/deep/leaf.py" in reachable("fake.steps.mix", root=root)


def test_a_package_whose_name_only_begins_alike_is_not_followed(tmp_path: Path) -> None:
    root = package(tmp_path, {"steps/mix.py": "import fakery.room.helper\nfrom json import fake\n"})
    assert {file.relative_to(root).as_posix() for file in reachable("fake.steps.mix", root=root)} == {
        "__init__.py",
        "steps/__init__.py",
        "steps/mix.py",
    }


def rooms(*modules: str) -> set[str]:
    """The top-level parts of the real package that ``modules`` reach."""
    return {file.relative_to(ROOT).parts[0] for file in reachable(*modules)}


def test_mixing_does_not_depend_on_training_or_on_the_command_line() -> None:
    """Or every change of the training loop would lay out all data again."""
    assert rooms("ichigo.steps.mix").isdisjoint({"training", "evaluation", "inference", "engines", "cli", "registry"})
    assert ROOT / "language" / "mixing.py" in reachable("ichigo.steps.mix")


def test_training_depends_on_the_loop_that_only_its_workers_import() -> None:
    from_the_step, with_workers = (
        reachable("ichigo.steps.train"),
        reachable("ichigo.steps.train", "ichigo.training.worker"),
    )
    assert ROOT / "training" / "loop.py" not in from_the_step
    assert ROOT / "training" / "loop.py" in with_workers
    assert rooms("ichigo.steps.train", "ichigo.training.worker").isdisjoint({"engines", "cli", "evaluation"})
