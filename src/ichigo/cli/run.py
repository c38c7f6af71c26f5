"""``ichigo run RECIPE``: the whole pipeline on this machine."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import textwrap
import time

from ichigo.cli import recipes

HELP = "run a recipe's pipeline on this machine, starting the embedded platform if no other is configured"
_QUIET = 10.0  # seconds between progress lines where no terminal redraws them
_INDENT = 31  # columns before a message: the clock and the step's name


def arguments(parser: argparse.ArgumentParser) -> None:
    """The recipe's arguments."""
    recipes.arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Check everything that can be checked first, then run and print the summary."""
    from ichigo.engines import local, platform

    recipe, home = recipes.load(args), platform.default_home(os.environ).resolve()
    local.check_places(recipe)
    screen = Screen()
    try:
        screen.show("step", "platform | starting or finding MLflow and S3")
        endpoints = platform.resolve(home, os.environ)
        platform.check_reachable(endpoints)
        screen.show("step", f"platform | {endpoints}")
        local.run(recipe, endpoints, home, screen.show)
    finally:
        screen.clear()
    print(f"summary  {home / 'runs' / 'latest' / 'summary.json'}")
    return 0


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
