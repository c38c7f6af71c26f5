"""A package in an environment that has nothing but its requirements: ``python -m tests.clean_package``.

Makes a virtual environment, installs the package's ``requirements.txt`` into it as a deployer does (about 1 GB; a
minute or two), loads the package there and compares what it answers with what the same model answers here. ``--venv``
keeps the environment for another time, ``--pip`` gives pip more arguments, such as an index with torch for CPUs.
The exit status is 1 if the answers differ.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.package_folder import Packed, make_package_folder


def install(venv: Path, package: Path, pip: list[str]) -> Path:
    """The interpreter of ``venv`` with the requirements of ``package``."""
    python = venv / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    quick = ["--quiet", "--no-compile"]  # half of the time would go into bytecode
    command: list[str | Path] = [
        python,
        "-m",
        "pip",
        "install",
        *quick,
        *pip,
        "--requirement",
        package / "requirements.txt",
    ]
    subprocess.run(command, check=True)
    return python


def check(packed: Packed, python: Path, scratch: Path) -> list[str]:
    """Load the package under ``python``; what is wrong with its answers."""
    found = packed.load(str(python), str(packed.folder), None, scratch)
    print(json.dumps(found, indent=2, ensure_ascii=False))
    said = {form: answer for form, answer in found["said"].items() if form != "example"}
    wrong = [f"{form}: {answer} instead of {packed.expected!r}" for form, answer in said.items()]
    return [line for line, answer in zip(wrong, said.values(), strict=True) if answer != [packed.expected]]


def main() -> int:
    """Make, install, load, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", metavar="FOLDER", type=Path, help="where the environment goes; default: temporary")
    parser.add_argument("--pip", metavar="ARGS", default="", help="more arguments for pip install")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        packed = make_package_folder(folder)
        began = time.monotonic()
        python = install(args.venv or folder / "venv", packed.folder, shlex.split(args.pip))
        print(f"installed in {time.monotonic() - began:.0f} s")
        wrong = check(packed, python, folder)
    print("\n".join(wrong) or "the package answers as the model does")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
