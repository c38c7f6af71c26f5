"""``ichigo run RECIPE``: the whole pipeline on this machine."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from ichigo.cli import recipes

HELP = "run a recipe's pipeline on this machine, starting the embedded platform if no other is configured"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The recipe's arguments."""
    recipes.arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Check everything that can be checked first, then run, show the summary and what to try next."""
    from ichigo.cli.screen import next_steps, screen
    from ichigo.engines import local, platform
    from ichigo.engines.pipeline import compiled_pipeline
    from ichigo.engines.plan import planned_steps

    recipe, home = recipes.load(args), platform.default_home(os.environ).resolve()
    local.check_places(recipe)
    with screen(f"ichigo run {recipe.name}", planned_steps(compiled_pipeline())) as seen:
        seen.show("step", "platform | starting or finding MLflow and S3")
        endpoints = platform.resolve(home, os.environ)
        platform.check_reachable(endpoints)
        seen.show("step", f"platform | {endpoints}")
        summary = local.run(recipe, endpoints, home, seen.show)
    print(f"summary  {home / 'runs' / 'latest' / 'summary.json'}\n")
    print(next_steps(recipe, args.recipe, summary, _program()))
    return 0


<<<<<<< HEAD
class Screen:
    """Prints what steps say as lines; a beat of progress replaces the last one on a terminal, and is rare elsewhere."""

    def __init__(self) -> None:
        self._start = self._beat = time.monotonic()
        self._columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        self._open = False  # a beat of progress stands on the last line

    def show(self, kind: str, text: str) -> None:
        """Show one line of a step (``name | message``) or of ``progress``, or the table at the ``end``."""
        if kind == "progress":
            self._progress(text)
            return
        self.clear()
        print(f"\n{text}" if kind == "end" else self._line(*text.split(" | ", 1)), flush=True)

    def clear(self) -> None:
        """Take a beat of progress off the terminal."""
        if self._open:
            print("\r\x1b[K", end="", flush=True)
            self._open = False

    def _progress(self, text: str) -> None:
        if self._columns:
            self.clear()
            self._open = True  # before it is: a signal may come between the two
            print(f"{self._clock()}{'':<23}{text}"[: self._columns - 1], end="", flush=True)
        elif time.monotonic() - self._beat >= _QUIET:
            self._beat = time.monotonic()
            print(self._line("", text), flush=True)

    def _line(self, name: str, message: str) -> str:
        line = f"{self._clock()}  {name:<20} {message}"
        if not self._columns:
            return line
        return textwrap.fill(line, self._columns, subsequent_indent=" " * _INDENT, break_on_hyphens=False)

    def _clock(self) -> str:
        seconds = int(time.monotonic() - self._start)
        hours, minutes = seconds // 3600, seconds // 60 % 60
        return f"{f'{hours}:{minutes:02d}' if hours else minutes}:{seconds % 60:02d}".rjust(8)
=======
def _program() -> str:
    """How to call this program again: by its path if it is not on PATH."""
    called = Path(sys.argv[0])
    return str(called) if called.name == "ichigo" and not shutil.which("ichigo") else "ichigo"
>>>>>>> hears
