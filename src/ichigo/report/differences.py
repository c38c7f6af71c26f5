"""A comparison for people: as a page, and as text for a terminal. Runs are called A, B, C … in the order given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from string import ascii_uppercase

from ichigo.evaluation import table as measured
from ichigo.report import charts
from ichigo.report.comparison import Against, Comparison, Side, Step, measures
from ichigo.report.gather import STAGES
from ichigo.report.markup import Html, details, join, page, said, section, table, tag
from ichigo.report.page import CURVES, curve_points
from ichigo.report.pairing import Difference, Pair
from ichigo.report.words import count, duration, number, when

SIGNIFICANT = 0.05
"""Of a p-value after Holm."""
_STYLES = ("c1", "", "c2", "c3", "c4")  # of the lines: the first run in ink, the second in the accent
_ITEMS = 20  # where one alone is right, of a suite on the page; all of them are in the data
_LINES = 12  # of recipe, data or steps in a terminal
_SHOWN = 5  # items in a terminal


def rendered(comparison: Comparison) -> str:
    """The page; equal comparisons give equal bytes."""
    parts = {
        "paired": _paired(comparison),
        "results": _results(comparison),
        "curves": _curves(comparison),
        "items": _items(comparison),
        "recipe": _recipes(comparison),
        "data": _data(comparison),
        "steps": _steps(comparison),
    }
    titles = {"paired": "Tests", "results": "Measures", "curves": "Training", "items": "Items", "recipe": "Recipes"}
    shown = {name: content for name, content in parts.items() if content}
    links = [tag("a", titles.get(name, name.capitalize()), href=f"#{name}") for name in shown]
    letters = " and ".join(_letters(comparison))
    head = tag("header", *_head(comparison), tag("nav", *links))
    return page(f"{letters}: {' · '.join(comparison.names)}", head, *shown.values(), _foot(comparison))


def _letters(comparison: Comparison) -> list[str]:
    return list(ascii_uppercase[: len(comparison.sides)])


def _head(comparison: Comparison) -> Iterator[Html]:
    yield tag("p", tag("b", "ichigo"), f" · {len(comparison.sides)} runs compared", class_="eyebrow")
    yield tag("h1", " / ".join(dict.fromkeys(str(side.summary["recipe"]) for side in comparison.sides)))
    for sentence in conclusions(comparison):
        yield tag("p", sentence, class_="verdict")
    rows = [_side_row(letter, side) for letter, side in zip(_letters(comparison), comparison.sides, strict=True)]
    yield table(("", "run", "began", "took", "verdict", "model"), rows, "stack")


def _side_row(letter: str, side: Side) -> list[str | Html]:
    summary, model = side.summary, side.summary["model"]
    verdict = summary["gate"]["verdict"] or summary["status"]
    registered = f"{model['name']} version {model['version']}" if model else "not registered"
    times = [when(summary["started"]), duration(summary["wall_seconds"])]
    return [letter, said(side.name), *times, tag("span", verdict, class_="pill"), registered]


def conclusions(comparison: Comparison) -> list[str]:
    """What the tests say of every other run, in a sentence each."""
    first = _letters(comparison)[0]
    return [
        _conclusion(first, letter, other)
        for letter, other in zip(_letters(comparison)[1:], comparison.others, strict=True)
    ]


def _conclusion(first: str, letter: str, other: Against) -> str:
    if not other.differences:
        why = f" ({count(len(other.refused), 'suite')} with other items)" if other.refused else ""
        return f"{letter} cannot be tested against {first}: no suite was asked the same items of both{why}."
    sure = [one for one in other.differences if one.adjusted < SIGNIFICANT]
    better = [one.suite for one in sure if second_is_better(one)]
    worse = [one.suite for one in sure if not second_is_better(one)]
    parts = [f"{what} on {', '.join(names)}" for what, names in (("better", better), ("worse", worse)) if names]
    if rest := len(other.differences) - len(sure):
        parts.append(f"no certain difference on {rest}")
    refused = f" {count(len(other.refused), 'suite')} could not be paired." if other.refused else ""
    of = count(len(other.differences), "suite")
    return f"{letter} against {first}: {'; '.join(parts)} (of {of}; p < {SIGNIFICANT} after Holm).{refused}"


def second_is_better(one: Difference) -> bool:
    """Whether the units speak for the second."""
    return one.second_ahead > one.first_ahead


def _results(comparison: Comparison) -> Html | None:
    rows = measures(comparison)
    if not rows:
        return None
    letters = _letters(comparison)
    head = ["measure", *letters, "bar"]
    lines = [
        [row.measure.label.replace("… ", "\N{NO-BREAK SPACE}\N{NO-BREAK SPACE}"), *_cells(row), row.bar_words]
        for row in rows
    ]
    lead = "Results with their 95 % intervals, each run by itself; what differs for certain is under Tests."
    return section("results", "Measures", lead, table(head, lines, "stack", " " + "n" * (len(letters) + 1)))


def _cells(row: measured.Row) -> list[Html]:
    cells = []
    for result in row.results:
        value, _, interval = result.partition(" ")
        cells.append(join([tag("span", value, class_="value"), tag("small", f" {interval}".rstrip())]))
    return cells


def _paired(comparison: Comparison) -> Html | None:
    content: list[Html] = []
    first = _letters(comparison)[0]
    for letter, other in zip(_letters(comparison)[1:], comparison.others, strict=True):
        content.append(tag("h3", f"{letter} against {first}"))
        if other.differences:
            head = (
                "suite",
                first,
                letter,
                f"{letter} less {first}, points",
                f"{first} ahead",
                f"{letter} ahead",
                "p",
                "after Holm",
                "",
            )
            rows = [_test(one) for one in other.differences]
            content.append(table(head, rows, "stack", " nnnnnnn"))
        if other.refused:
            lines = [tag("li", said(str(one), 600)) for one in other.refused]
            content += [tag("p", "Not paired, because the items are not the same:"), tag("ul", *lines)]
    lead = (
        "The same items asked of both, resampled together for the interval; ahead counts the items (facts, where one "
        "is asked several times) that one run does better, and p is McNemar's exact p of these."
    )
    return section("paired", "Tests", lead, *content)


def _test(one: Difference) -> list[str | Html]:
    sure = one.adjusted < SIGNIFICANT
    word = ("better" if second_is_better(one) else "worse") if sure else ""
    points = join(
        [tag("span", f"{one.points:+.1f}", class_="value"), tag("small", f" {one.low:+.1f} to {one.high:+.1f}")]
    )
    suite = join([tag("span", one.suite), tag("small", f" {one.measure}, {count(one.items, 'item')}")])
    ahead = [f"{one.first_ahead:,}", f"{one.second_ahead:,}"]
    shares = [f"{100 * one.first:.1f} %", f"{100 * one.second:.1f} %"]
    mark = tag("span", word, class_="pill loud" if word == "worse" else "pill") if word else ""
    return [suite, *shares, points, *ahead, p_words(one.p), p_words(one.adjusted), mark]


def p_words(p: float) -> str:
    """Two digits, or that it is below 0.001."""
    return "< 0.001" if p < 0.001 else f"{p:.2g}" if p < 0.1 else f"{p:.2f}"


def _curves(comparison: Comparison) -> Html | None:
    figures = [
        figure
        for name, title in CURVES.items()
        for stage in STAGES
        for figure in _curve(stage, name, title, comparison)
    ]
    if not figures:
        return None
    styles = dict(zip(_letters(comparison), _STYLES * len(comparison.sides), strict=False))
    key = [tag("span", charts.swatch(style), letter) for letter, style in styles.items()]
    return section(
        "curves",
        "Training",
        "On one axis, by optimizer step.",
        tag("p", *key, class_="key"),
        tag("div", *figures, class_="grid"),
    )


def _curve(stage: str, name: str, title: str, comparison: Comparison) -> Iterator[Html]:
    lines = [
        charts.Curve(letter, curve_points(side.curves.get(stage, {}), name), style)
        for letter, side, style in zip(
            _letters(comparison), comparison.sides, _STYLES * len(comparison.sides), strict=False
        )
    ]
    ends = [f"{line.name} {number(line.points[-1][1])}" for line in lines if line.points]
    if ends:
        caption = tag("figcaption", f"{stage} {title}", tag("small", f"ends at {', '.join(ends)}"))
        yield tag("figure", caption, charts.curves(lines, band=False))


def _items(comparison: Comparison) -> Html | None:
    content = []
    letters = _letters(comparison)
    for letter, other in zip(letters[1:], comparison.others, strict=True):
        for suite, pairs in other.items.items():
            if pairs:
                content.append(_suite_items(suite, pairs, letters[0], letter))
    if not content:
        return None
    lead = "What one alone has right. The file of --json has all of them."
    return section("items", "Items where they differ", lead, *content)


def _suite_items(suite: str, pairs: Sequence[Pair], first: str, second: str) -> Html:
    title = join([tag("span", suite), tag("small", f" {first} and {second}: {count(len(pairs), 'item')}")])
    rows = [
        [
            said(one.question),
            said(one.reference),
            said(one.hypothesis),
            said(two.hypothesis),
            first if one.right else second,
        ]
        for one, two in pairs[:_ITEMS]
    ]
    more = [tag("p", f"{len(pairs) - _ITEMS} more", class_="quiet")] if len(pairs) > _ITEMS else []
    head = ("asked", "expected", first, second, "right")
    return details(title, table(head, rows, "stack"), *more)


def _recipes(comparison: Comparison) -> Html:
    return _lists("recipe", "Recipes", "the recipes ask for the same", comparison, lambda other: other.recipe)


def _data(comparison: Comparison) -> Html:
    return _lists("data", "Data", "the corpora have the same numbers", comparison, lambda other: other.data)


def _lists(name: str, title: str, same: str, comparison: Comparison, lines: Callable[[Against], Sequence[str]]) -> Html:
    content = []
    first = _letters(comparison)[0]
    for letter, other in zip(_letters(comparison)[1:], comparison.others, strict=True):
        found = [tag("li", tag("code", line)) for line in lines(other)]
        content.append(tag("h3", f"{first} → {letter}"))
        content.append(tag("ul", *found) if found else tag("p", same, class_="quiet"))
    return section(name, title, "", *content)


def _steps(comparison: Comparison) -> Html:
    content = []
    first = _letters(comparison)[0]
    for letter, other in zip(_letters(comparison)[1:], comparison.others, strict=True):
        rows = [
            [step.name, _sameness(step), join(tag("div", tag("code", change)) for change in step.changes[:8])]
            for step in other.steps
        ]
        content += [tag("h3", f"{first} → {letter}"), table(("step", "bytes", "made from"), rows, "stack")]
    return section(
        "steps", "Steps", "Whether what a step made is the same, and what differs in what it was made from.", *content
    )


def _sameness(step: Step) -> Html:
    return tag("span", "the same" if step.same else "others", class_="pill soft" if step.same else "pill")


def _foot(comparison: Comparison) -> Html:
    return tag("footer", f"ichigo compare {' '.join(comparison.names)} · this page loads nothing and runs nothing")


def plain(comparison: Comparison) -> str:
    """The comparison for a terminal, in some 110 columns."""
    letters = _letters(comparison)
    out = [f"{letter}  {side.name}  ({_fate(side)})" for letter, side in zip(letters, comparison.sides, strict=True)]
    out += ["", *_plain_measures(comparison)]
    for letter, other in zip(letters[1:], comparison.others, strict=True):
        out += ["", f"{letter} against {letters[0]}", *_plain_against(letters[0], letter, other)]
    return "\n".join([*out, "", *conclusions(comparison)])


def _fate(side: Side) -> str:
    return str(side.summary["gate"]["verdict"] or side.summary["status"])


def _plain_measures(comparison: Comparison) -> Iterator[str]:
    rows = measures(comparison)
    if rows:
        yield f"{'measure':<60}" + "".join(f"{letter:<22}" for letter in _letters(comparison))
    for row in rows:
        yield f"{row.measure.label:<60}{''.join(f'{result:<22}' for result in row.results)}".rstrip()


def _plain_against(first: str, letter: str, other: Against) -> Iterator[str]:
    yield from _listed("recipe", other.recipe, "the same")
    yield from _listed("data", other.data, "the same numbers")
    differing = [step for step in other.steps if not step.same]
    changes = [f"{step.name}: {'; '.join(step.changes[:2]) or 'same inputs, other bytes'}" for step in differing]
    yield from _listed("steps", changes, f"the same bytes in all {len(other.steps)}" if other.steps else "none in both")
    if other.differences:
        yield f"  {'suite':<32}{first:>8}{letter:>8}  {'points [95 %]':<24}{'ahead':>9}{'p':>9}{'Holm':>9}"
    for one in other.differences:
        points = f"{one.points:+.1f} [{one.low:+.1f}, {one.high:+.1f}]"
        ahead = f"{one.first_ahead}:{one.second_ahead}"
        shares = f"{100 * one.first:>8.1f}{100 * one.second:>8.1f}"
        yield f"  {one.suite:<32}{shares}  {points:<24}{ahead:>9}{p_words(one.p):>9}{p_words(one.adjusted):>9}"
    yield from (f"  {refusal}" for refusal in other.refused)
    differ = [pair for pairs in other.items.values() for pair in pairs]
    lines = [_plain_item(pair, first, letter) for pair in differ]
    yield from _listed("items where one alone is right", lines, "none", _SHOWN)


def _listed(what: str, lines: Sequence[str], none: str, most: int = _LINES) -> Iterator[str]:
    if not lines:
        yield f"  {what}: {none}"
        return
    yield f"  {what}: {len(lines)} differ"
    yield from (f"    {line}" for line in lines[:most])
    if len(lines) > most:
        yield f"    … {len(lines) - most} more"


def _plain_item(pair: Pair, first: str, second: str) -> str:
    one, two = pair
    right, wrong = (first, two) if one.right else (second, one)
    asked, expected, said_else = map(_short, (one.question, one.reference, wrong.hypothesis))
    return f"{one.suite} {one.id}: {asked} → {right} {expected}, else {said_else}"


def _short(text: str) -> str:
    """In one line of printable characters, 40 of them."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return repr(line if len(line) <= 40 else f"{line[:39]}…")
