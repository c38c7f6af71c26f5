"""``ichigo data check SOURCE``: what a source holds and what of it would be set aside, before any run.

It reads every line as the pipeline's first step does, writes nothing, and needs no server unless the source lies in S3.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ichigo.errors import DataError, UserError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ichigo.corpus.lines import Line, Settings, Source
    from ichigo.corpus.sources import Reading
    from ichigo.corpus.survey import Report, Share
    from ichigo.recipe.schema import Recipe

HELP = "look at recordings, token strings or instructions before a run: data check SOURCE"
_CHECK = """\
read every line of a source, count what is in it, and say what would be set aside and why; exit status 2 where no
corpus can be made of it"""
_SHOWN = 6  # languages, speakers, licences, reasons beyond which a line says how many more there are
_EVERY = 10.0  # seconds between lines of progress where no terminal redraws them


def arguments(parser: argparse.ArgumentParser) -> None:
    """The sub-verb ``check`` and its arguments."""
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    check = verbs.add_parser("check", help=_CHECK, description=_CHECK)
    what = "a file, a folder, a pattern with * or an s3:// address; default: all that the recipe names"
    check.add_argument("source", metavar="SOURCE", nargs="?", help=what)
    check.add_argument(
        "--kind", metavar="KIND", help="folder, parquet, webdataset, tokens or instructions; else guessed"
    )
    field = "a field of the source, for instance columns.text=sentence; may be repeated"
    check.add_argument("--set", dest="fields", metavar="A.B=C", action="append", default=[], help=field)
    recipe = "the recipe whose limits hold, whose evaluation items are compared, and whose sources are the default"
    check.add_argument("--recipe", metavar="RECIPE", help=recipe)
    check.add_argument("--json", action="store_true", help="print the report as JSON")


def main(args: argparse.Namespace) -> int:
    """Print the report; 0 if a corpus can be made of the source, else 2."""
    from rich.console import Console

    recipe = _recipe(args.recipe)
    sources = _sources(args, recipe)
    report = check(sources, recipe)
    if args.json:
        print(json.dumps(report.plain(), indent=2, sort_keys=True))
    else:
        show(report, [f"{source.place} ({name})" for source, name in sources], Console())
    return DataError.exit_code if report.fatal else 0


def check(sources: Sequence[tuple[Source, str]], recipe: Recipe | None) -> Report:
    """Read all of ``sources`` (each with the name of its kind) under the limits of ``recipe``."""
    from ichigo.corpus.sources import Reading
    from ichigo.corpus.survey import Survey, items_of
    from ichigo.corpus.world import World
    from ichigo.recipe.schema import Data

    data, seed = (recipe.data, recipe.seed) if recipe else (Data(), 0)
    survey, fatal = Survey(), []
    reading = Reading([source for source, _ in sources], data, seed, lambda rejected: None)
    try:
        for line in watched(reading):
            survey.add(line)
    except DataError as error:
        fatal.append(str(error))
    world = World(data.world, seed) if data.world else None
    return survey.report(reading.tallies, reading.held_out(), items_of(world), fatal)


def _recipe(name: str | None) -> Recipe | None:
    from ichigo import recipe

    return recipe.load(name) if name else None


def _sources(args: argparse.Namespace, recipe: Recipe | None) -> list[tuple[Source, str]]:
    from ichigo.corpus.sources import open_source, settings_of
    from ichigo.recipe.schema import Data

    data, seed = (recipe.data, recipe.seed) if recipe else (Data(), 0)
    named = {"source": _settings(args)} if args.source else settings_of(data)
    if not named:
        raise UserError("there is nothing to check: give a SOURCE, or a --recipe that names some")
    return [(open_source(one, data, label, seed, speak=False), one.kind) for label, one in named.items()]


def _settings(args: argparse.Namespace) -> Settings:
    """The source that the arguments describe; :class:`UserError` with every wrong field."""
    from pydantic import TypeAdapter, ValidationError

    from ichigo.corpus.sources import guess
    from ichigo.recipe import schema, yaml12

    tree: dict[str, Any] = {"path": args.source}
    if args.kind:
        tree["kind"] = args.kind
        tree |= {"tokenizer": schema.PUBLISHED} if args.kind == "tokens" else {}
    else:
        tree |= guess(args.source).model_dump(exclude_defaults=True)
    for field in args.fields:
        path, equals, text = field.partition("=")
        if not equals:
            raise UserError(f"--set {field}: expected field=value, as in columns.text=sentence")
        *above, last = path.split(".")
        section = tree
        for part in above:
            section = section.setdefault(part, {})
        section[last] = yaml12.read(text).value
    try:
        found: Settings = TypeAdapter(schema.Source).validate_json(json.dumps(tree))
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, one['loc'][1:])) or 'kind'}: {one['msg']}" for one in error.errors()]
        raise UserError("\n  - ".join([f"{args.source} cannot be read so:", *wrong])) from None
    return found


def watched(reading: Reading) -> Iterator[Line]:
    """The lines of ``reading`` with a bar on a terminal, or a line now and then in a log."""
    from rich.console import Console

    console = Console(stderr=True)
    with _bar(console, reading.size) if console.is_terminal else _beats(reading.size) as advance:
        for line in reading.lines():
            yield line
            advance(line.size)


@contextmanager
def _bar(console: Console, size: int) -> Iterator[Callable[[int], None]]:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("reading"), BarColumn(), DownloadColumn(), TextColumn("{task.fields[lines]} lines"))
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True, refresh_per_second=4) as progress:
        task, lines = progress.add_task("reading", total=size, lines=0), 0

        def advance(count: int) -> None:
            nonlocal lines
            lines += 1
            progress.update(task, advance=count, lines=lines)

        yield advance


@contextmanager
def _beats(size: int) -> Iterator[Callable[[int], None]]:
    from ichigo.progress import Progress

    progress, done = Progress("reading", max(size // 1000, 1), "kB", every=_EVERY, out=sys.stderr), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if (new := min(done // 1000, progress.total - 1) - progress.done) > 0:
            progress.advance(new)

    yield advance


def show(report: Report, places: Iterable[str], console: Console) -> None:
    """Draw the report."""
    from rich.text import Text

    for place in places:
        console.print(Text(place, style="bold"))
    console.print(_facts(report))
    if report.set_aside:
        console.print(_reasons(report))
    for reason in report.fatal:
        console.print(Text(f"✗ {reason}", style="bold red"))
    if not report.fatal:
        share = 100 * report.kept / max(report.lines, 1)
        console.print(Text(f"✓ {report.kept} of {report.lines} lines can be used ({share:.1f} %)", style="green"))


def _facts(report: Report) -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts(report):
        table.add_row(name, value)
    return table


def facts(report: Report) -> Iterator[tuple[str, str]]:
    """What the report says, in a line for each thing that there is to say."""
    yield "lines", f"{report.lines:,}: {report.kept:,} kept, {sum(report.set_aside.values()):,} set aside"
    if report.rows:
        range_ = f"{report.shortest:.2f} to {report.longest:.2f} s, half of them under {report.typical:.2f} s"
        yield "speech", f"{report.rows:,} rows, {_duration(report.seconds)}; {range_}"
        yield "split", ", ".join(f"{count:,} {split}" for split, count in report.splits.items())
        for name, shares in (("languages", report.languages), ("speakers", report.speakers)):
            yield name, _shares(shares)
        yield "licences", _shares(report.licenses)
    if report.texts:
        yield "written", f"{report.texts:,} questions with answers"
    wordless = f", {report.without_words:,} rows without words" if report.without_words else ""
    yield "texts", f"{report.distinct_texts:,} different{wordless}"
    yield "tokens", f"some {report.sound_tokens:,} of sound and {report.text_tokens:,} of text"
    yield "overlap", _overlap(report)


def _overlap(report: Report) -> str:
    overlap = report.overlap
    if not overlap.items:
        return "nothing is held out, so nothing to compare with"
    shared = [
        f"{count:,} with {what}"
        for what, count in (
            ("the same text", overlap.same_text),
            ("nearly the same text", overlap.near_text),
            ("the same sound", overlap.same_sound),
        )
        if count
    ]
    against = f"with {overlap.items:,} different texts that are asked in evaluation"
    shown = f", such as {'; '.join(overlap.examples)}" if overlap.examples else ""
    return f"training rows {against}: {', '.join(shared) or 'none'}{shown}"


def _reasons(report: Report) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title="set aside", title_justify="left", title_style="bold", pad_edge=False)
    table.add_column("reason", no_wrap=True)
    table.add_column("lines", justify="right")
    table.add_column("for instance", overflow="fold", style="dim")
    for reason, count in report.set_aside.items():
        first = report.examples[reason][0]
        where = f"{first.unit}:{first.line}" if first.line else first.unit
        table.add_row(reason, f"{count:,}", f"{where}  {first.detail}")
    return table


def _shares(shares: Mapping[str, Share]) -> str:
    shown = [f"{name or 'none named'} {share.rows:,}" for name, share in list(shares.items())[:_SHOWN]]
    more = [f"and {len(shares) - _SHOWN:,} more"] if len(shares) > _SHOWN else []
    return ", ".join([*shown, *more])


def _duration(seconds: float) -> str:
    if seconds >= 7200:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 60:.1f} minutes" if seconds >= 120 else f"{seconds:.1f} s"
