"""A process of its own that loads a package as a deployer does, with nothing but the package's requirements in sight.

``python load_package.py REQUEST`` reads a JSON object with ``uri``, ``constraints`` (a file with all that may be
imported; null: anything), ``audio`` (a file), ``samples`` and ``rate``, and prints another with the answers. Run it by
its path and without ``PYTHONPATH``: of the checkout around it nothing may be imported either.
"""

from __future__ import annotations

import base64
import json
import re
import sys
import sysconfig
from collections.abc import Collection
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any


def plain(name: str) -> str:
    """A distribution's name as the package index compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


class Guard(PathFinder):
    """Finds what Python brings, what ``allowed`` distributions bring, and code in a package; all else is not there."""

    allowed: Collection[str] = ()
    refused: set[str] = set()  # noqa: RUF012 - the finder is used as a class
    brings = packages_distributions()
    own = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]  # noqa: RUF012

    @classmethod
    def find_spec(cls, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        spec = super().find_spec(fullname, path, target)
        if spec is None or path is not None or cls._may(fullname, spec):
            return spec
        cls.refused.add(fullname)
        return None

    @classmethod
    def _may(cls, name: str, spec: ModuleSpec) -> bool:
        places = [spec.origin] if spec.origin else [*(spec.submodule_search_locations or ())]
        installed = any("site-packages" in place for place in places)
        if installed:
            return any(plain(one) in cls.allowed for one in cls.brings.get(name, ()))
        return all("/code/" in place or place == "frozen" or place.startswith(tuple(cls.own)) for place in places)


def guard(constraints: Path) -> None:
    """Hide everything that ``constraints`` does not name."""
    Guard.allowed = {plain(line.partition("==")[0]) for line in constraints.read_text().split()} | {"setuptools", "pip"}
    sys.meta_path = [Guard if finder is PathFinder else finder for finder in sys.meta_path]


def answers(request: dict[str, Any]) -> dict[str, Any]:
    """What the package says to the same question in each form, and to its own example."""
    import mlflow.pyfunc
    import pandas

    model = mlflow.pyfunc.load_model(request["uri"])
    audio = Path(request["audio"])
    forms = {
        "audio": {"audio": [audio.read_bytes()]},
        "path": {"path": [str(audio)]},
        "samples": {"samples": [request["samples"]], "rate": [request["rate"]]},
    }
    params = {"max_new_tokens": 8}
    said = {name: model.predict(pandas.DataFrame(form), params) for name, form in forms.items()}
    said["example"] = model.predict(model.input_example)
    import ichigo

    return {"said": said, "code": ichigo.__file__, "refused": sorted(Guard.refused)}


if __name__ == "__main__":
    asked = json.loads(Path(sys.argv[1]).read_text())
    if asked["constraints"]:
        guard(Path(asked["constraints"]))
    found = json.dumps(answers(asked))
    print(base64.b64encode(found.encode()).decode())  # the last line, whatever libraries print before it
