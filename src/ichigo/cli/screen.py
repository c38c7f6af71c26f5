"""What a person sees while a pipeline runs: a live table on a terminal, a few lines anywhere else.

The engine hands over what steps say (``step``: "name | message"), beats of long work (``progress``: "name | what
40/200 · rate · time left · note") and, once, the table of the ended run (``end``). :class:`Board` makes rows of that
and knows nothing of terminals; :class:`LiveScreen` draws them with rich, :class:`LineScreen` prints.
"""

from __future__ import annotations

import io
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ichigo.recipe.schema import Recipe

State = Literal["waiting", "starting", "running", "done", "reused", "skipped", "failed", "cancelled"]
Clock = Callable[[], float]

_END = re.compile(r"(?P<state>done|reused|skipped|failed|cancelled) in (?P<seconds>[\d.]+) s(?:: (?P<facts>.*))?")
_BEAT = re.compile(r"(?P<what>.+?) (?P<done>\d+)/(?P<total>\d+) · (?P<rest>.*)")
_WORDLESS = {"platform", "begin"}  # they never say that they are done; they are when another step speaks
_QUIET = 10.0  # seconds between a step's progress lines where no terminal redraws them
_REFRESH = 2  # frames per second; training shares these cores
_NAMES, _BAR = 20, 12  # columns: no name of a step is longer than tokenize-shard-00000
_ASIDE = 4  # lines of a terminal that rows must leave free
_MARKS = {
    "waiting": ("·", ".", "dim"),
    "starting": ("·", ".", ""),
    "running": ("▸", ">", "cyan"),
    "done": ("✓", "+", "green"),
    "reused": ("=", "=", "blue"),
    "skipped": ("-", "-", "dim"),
    "failed": ("✗", "x", "bold red"),
    "cancelled": ("✗", "x", "yellow"),
}


class Screen(Protocol):
    """Listens to a run."""

    def show(self, kind: str, text: str) -> None:
        """Take one event: ``step``, ``progress`` or ``end``."""

    def close(self) -> None:
        """Stop drawing; what was said stays."""


@dataclass(frozen=True)
class Beat:
    """Progress of long work: what, how much of it, and rate, time left and note as the step words them."""

    what: str
    done: int
    total: int
    rest: str


@dataclass
class Row:
    """One step: its state, when it began, how long it took (seconds), and the last it said."""

    name: str
    state: State = "waiting"
    began: float = 0.0
    seconds: float | None = None
    note: str = ""
    beat: Beat | None = None
    loop: str = ""  # of which loop it is an iteration

    @property
    def over(self) -> bool:
        """Whether nothing more is expected of it."""
        return self.state in {"done", "reused", "skipped", "failed", "cancelled"}


@dataclass
class Board:
    """The steps of a run and what they said; ``said`` is the last word of somebody who is no step."""

    rows: list[Row]
    clock: Clock = time.monotonic
    said: str = ""
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.clock()

    @classmethod
    def planned(cls, names: Iterable[str], clock: Clock = time.monotonic) -> Board:
        """A board on which every step waits."""
        return cls([Row(name) for name in names], clock)

    def take(self, kind: str, text: str) -> Row | None:
        """Note one event; returns the row that it concerns, if it is a step's."""
        name, _, message = text.partition(" | ")
        row = self._row(name)
        if row is None:
            self.said = text
            return None
        self._begin(row)
        if kind == "progress":
            row.beat = _beat(message)
        else:
            _hear(row, message)
        return row

    def rows_now(self) -> list[Row]:
        """The rows as they stand; where nothing runs, the first that still waits is about to start."""
        rows = list(self.rows)
        waiting = next((place for place, row in enumerate(rows) if row.state == "waiting"), None)
        if waiting is not None and not any(row.state in {"running", "failed", "cancelled"} for row in rows):
            rows[waiting] = Row(rows[waiting].name, state="starting")
        return rows

    def elapsed(self, row: Row) -> float | None:
        """Seconds that a step has taken so far, None before it began."""
        if row.seconds is not None:
            return row.seconds
        return self.clock() - row.began if row.state == "running" else None

    def _begin(self, row: Row) -> None:
        if row.state != "waiting":
            return
        row.state, row.began = "running", self.clock()
        for other in self.rows[: self.rows.index(row)]:
            if other.name in _WORDLESS and not other.over:
                other.state, other.seconds = "done", row.began - (other.began or self.started)

    def _row(self, name: str) -> Row | None:
        """The row called ``name``; iterations of a loop (``tokenize-shard-00001``) stand where its name stood."""
        loop: list[int] = []
        for place, row in enumerate(self.rows):
            if row.name == name:
                return row
            if name.startswith(f"{row.loop or row.name}-"):
                loop.append(place)
        if not loop:
            return None
        first = self.rows[loop[0]]
        if not first.loop:
            self.rows[loop[0]] = Row(name, loop=first.name)
            return self.rows[loop[0]]
        place = next((place for place in loop if self.rows[place].name > name), loop[-1] + 1)
        self.rows.insert(place, Row(name, loop=first.loop))
        return self.rows[place]


def _hear(row: Row, message: str) -> None:
    row.beat = None
    match = _END.fullmatch(message)
    if not match:
        row.note = message
        return
    row.state, row.seconds = cast(State, match["state"]), float(match["seconds"])
    if row.state == "done":
        row.note = match["facts"] or row.note
    elif row.state == "reused":
        row.note = re.sub(r"^reused \S+, ", "", row.note)  # the address is in the table at the end


def _beat(message: str) -> Beat | None:
    match = _BEAT.fullmatch(message)
    return Beat(match["what"], int(match["done"]), int(match["total"]), match["rest"]) if match else None


class LineScreen:
    """Lines for a log: what steps say, and of progress one line per step every ten seconds."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._printed: dict[str, float] = {}

    def show(self, kind: str, text: str) -> None:
        """Print the event, or keep quiet."""
        if kind == "end":
            print(f"\n{text}", flush=True)
            return
        row = self._board.take(kind, text)
        name, _, message = text.partition(" | ") if row else ("", "", text)
        now = self._board.clock()
        if kind == "step" or now - self._printed.get(name, self._board.started) >= _QUIET:
            self._printed[name] = now
            print(f"{_time(now - self._board.started):>7}  {name:<21} {message}", flush=True)

    def close(self) -> None:
        """Nothing to stop."""


class LiveScreen:
    """A table of all steps that redraws itself; it vanishes when the run ends well, because a better one follows."""

    def __init__(self, board: Board, console: Console, title: str) -> None:
        from rich.live import Live

        self._board, self._console, self._title = board, console, title
        self._lock = threading.Lock()
        self._end = ""
        self._live = Live(
            console=console,
            get_renderable=self._draw,
            refresh_per_second=_REFRESH,
            redirect_stderr=False,
            transient=True,
        )
        self._live.start()

    def show(self, kind: str, text: str) -> None:
        """Take the event; it is seen with the next frame."""
        with self._lock:
            if kind == "end":
                self._end = text
            else:
                self._board.take(kind, text)

    def close(self) -> None:
        """Stop redrawing and print the table of the ended run; without one, the last frame stays."""
        self._live.transient = bool(self._end)
        self._live.stop()
        if self._end:
            print(f"\n{self._end}", flush=True)

    def _draw(self) -> Table:
        with self._lock:
            return draw(self._board, self._title, self._console)


def draw(board: Board, title: str, console: Console) -> Table:
    """The board as a table that fits the console: where it has too few lines, the steps that ended first give way."""
    from rich.table import Table
    from rich.text import Text

    rows = board.rows_now()
    hidden = _to_hide(rows, console.height - _ASIDE)
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(width=1)
    table.add_column(min_width=_NAMES, no_wrap=True)
    table.add_column(min_width=6, justify="right", no_wrap=True)
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_row("", Text(title, style="bold"), _time(board.clock() - board.started), Text(board.said, style="dim"))
    if hidden:
        table.add_row("", Text(f"{hidden} steps before", style="dim"))
    ascii_only = console.options.ascii_only
    for row in rows[hidden:]:
        mark, plain, style = _MARKS[row.state]
        seconds = board.elapsed(row)
        name, time_taken = Text(row.name, style=style), "" if seconds is None else _time(seconds)
        table.add_row(Text(plain if ascii_only else mark, style=style), name, time_taken, _what(row, ascii_only))
    return table


def _to_hide(rows: Sequence[Row], lines: int) -> int:
    """How many rows from the top to leave out, all of them over, so that the others and a line for these fit."""
    if len(rows) < lines:
        return 0
    over = next((place for place, row in enumerate(rows) if not row.over), len(rows))
    return min(over, len(rows) - max(lines, 2) + 2)


def _what(row: Row, ascii_only: bool) -> Text:
    from rich.text import Text

    if row.beat is None:
        return Text(row.state if row.state in {"waiting", "starting"} else row.note, style="" if row.over else "dim")
    beat = row.beat
    filled = _BAR * min(beat.done, beat.total) // max(beat.total, 1)
    line = "-" if ascii_only else "━"
    what = "" if beat.what == row.name else f"{beat.what} "
    bar = (line * filled, "cyan"), ((" " if ascii_only else line) * (_BAR - filled), "dim")
    return Text.assemble(*bar, f" {what}{beat.done}/{beat.total} · {beat.rest}")


def _time(seconds: float) -> str:
    whole = int(seconds)
    if whole >= 3600:
        return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
    return f"{whole // 60}:{whole % 60:02d}" if whole >= 100 else f"{seconds:.0f} s"


@contextmanager
def screen(title: str, steps: Iterable[str]) -> Iterator[Screen]:
    """The screen that suits standard output, closed at the end of the block."""
    from rich.console import Console

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a step may say what the terminal's encoding lacks
    console, board = Console(), Board.planned(("platform", *steps))
    live = sys.stdout.isatty() and not console.is_dumb_terminal
    opened: Screen = LiveScreen(board, console, title) if live else LineScreen(board)
    try:
        yield opened
    finally:
        opened.close()


def next_steps(recipe: Recipe, named: str, summary: Mapping[str, Any], program: str = "ichigo") -> str:
    """Three things to try after a run: ask the model, look at the curves, change one thing."""
    sentences = recipe.data.sentences
    question = sentences[0].text if sentences else "what is two plus three"
    last = recipe.stages[-1]
    mlflow = summary["mlflow"]
    lines = [
        (f'{program} ask --say "{question}"', "hear what it answers"),
        (f"{mlflow['uri']}/#/experiments/{mlflow['experiment']}", "curves, and this run beside others"),
        (f"{program} run {named} --set stages.{last.name}.steps={2 * last.steps}", "only what this changes runs again"),
    ]
    return "\n".join(["next", *(f"  {what}\n      {why}" for what, why in lines)])
