"""The report of one run: what a reviewer reads, from the verdict down to how to make the run again."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ichigo import recipe as recipes
from ichigo.evaluation import table as measured
from ichigo.hashing import sha256_json
from ichigo.recipe.schema import Recipe
from ichigo.report import charts
from ichigo.report.clips import Clip
from ichigo.report.gather import STAGES, Material
from ichigo.report.markup import Html, details, escaped, join, page, said, section, table, tag
from ichigo.report.words import count, duration, number, share, when

if TYPE_CHECKING:
    from ichigo.evaluation.items import ItemResult

Metrics = Mapping[str, float]

CURVES = {"loss": "loss", "grad_norm": "gradient norm", "learning_rate": "learning rate"}
SYSTEMS = {"": "this model", "cascade": "own transcript, then base model", "base": "base model"}
"""How the systems on a suite's items are called; others by their own names."""

_WRONG, _RIGHT = 8, 4  # answers shown of each suite
_SHORT = 160  # characters on a card
_QUARANTINED = 3  # examples of each reason
_TITLES = {
    "gate": "Verdict",
    "results": "Results",
    "listen": "Listen",
    "answers": "Answers",
    "curves": "Training",
    "chain": "Steps",
    "data": "Data",
    "repeat": "Repeat",
}


def report(material: Material) -> str:
    """The page; equal material gives equal bytes."""
    summary = material.summary
    parts = {
        "gate": _gate(material),
        "results": _results(material),
        "listen": _listen(material.clips),
        "answers": _answers(material.items),
        "curves": _curves(material),
        "chain": _chain(material),
        "data": _data(material),
        "repeat": _repeat(material),
    }
    shown = {name: content for name, content in parts.items() if content}
    links = [tag("a", _TITLES[name], href=f"#{name}") for name in shown]
    body = [tag("header", *_head(material), tag("nav", *links)), *_problems(material.problems), *shown.values()]
    return page(f"{summary['recipe']}: {_outcome(summary)}", *body, _foot(summary))


def _outcome(summary: Mapping[str, Any]) -> str:
    """The verdict of a run that succeeded, else its status."""
    verdict = summary["gate"]["verdict"] or "no verdict"
    return str(verdict if summary["status"] == "succeeded" else summary["status"])


def _head(material: Material) -> Iterator[Html]:
    summary = material.summary
    loud = _outcome(summary) != "promote"
    yield tag("p", tag("b", "ichigo"), f" · run {summary['run_key']}", class_="eyebrow")
    pill = tag("span", _outcome(summary), class_="pill loud" if loud else "pill")
    yield tag("h1", summary["recipe"], " ", pill)
    yield tag("p", material.recipe.description or "", class_="lead")
    yield tag("p", _sentence(summary), class_="verdict")
    yield tag("dl", *(_fact(*fact) for fact in _facts(material)), class_="facts")


def _sentence(summary: Mapping[str, Any]) -> str:
    """What became of the run, in one sentence."""
    if summary["status"] != "succeeded":
        ended = {"cancelled": "was cancelled"}.get(summary["status"], summary["status"])
        return f"The run {ended}: {summary['reason'] or 'nobody said why'}"
    rules, model = summary["gate"]["rules"], summary["model"]
    kept = f"{sum(bool(rule.get('kept')) for rule in rules)} of {count(len(rules), 'rule')} kept"
    if not model:
        return f"The gate said {_outcome(summary)}: {kept}. No model was registered."
    alias = f" as @{model['alias']}" if model["alias"] else " without an alias"
    return f"The gate said {_outcome(summary)}: {kept}. Registered: {model['name']} version {model['version']}{alias}."


def _fact(name: str, value: str, more: str = "") -> Html:
    return tag("div", tag("dt", name), tag("dd", value, tag("small", more) if more else None))


def _facts(material: Material) -> Iterator[tuple[str, str, str]]:
    summary, corpus = material.summary, material.corpus
    steps = summary["steps"]
    reused = [step["name"] for step in steps if step["status"] == "reused"]
    spared = sum(material.known.earlier.get(name, 0.0) for name in reused)
    yield "Took", duration(summary["wall_seconds"]), when(summary["started"])
    yield "Steps", f"{len(steps)}", f"{len(reused)} reused" + (f", {duration(spared)} spared" if spared else "")
    bars = [row for row in measured.rows([summary["evaluation"]], summary["recipe"]) if row.verdict]
    if bars:
        kept = sum(row.verdict == "kept" for row in bars)
        yield "Bars kept", f"{kept} of {len(bars)}", "goals of the recipe"
    if material.items:
        yield "Answers judged", f"{len(material.items):,}", count(len({item.suite for item in material.items}), "suite")
    if corpus:
        speakers = count(len(corpus.get("speakers", {})), "voice")
        yield "Speech", duration(corpus["seconds"]), f"{corpus['rows']:,} rows, {speakers}"
    memory = max((step["peak_memory"] for step in steps), default=0)
    if memory:
        yield "Memory", f"{memory / 2**30:.2f} GiB", "largest process"


def _problems(problems: Sequence[str]) -> Iterator[Html]:
    if problems:
        lines = [tag("li", said(problem)) for problem in problems]
        yield section("problems", "Left out", "What this report could not read.", tag("ul", *lines))


def _gate(material: Material) -> Html | None:
    rules, ledger = material.summary["gate"]["rules"], material.known.ledger
    if not (rules or ledger):
        return None
    lines = [tag("li", _kept(rule), tag("span", str(rule["line"]).partition(": ")[2])) for rule in rules]
    content = [tag("ul", *lines, class_="rules")]
    if ledger:
        head = list(dict.fromkeys(key for entry in ledger for key in entry))
        rows = [[said(entry.get(key, "")) if entry.get(key) else "" for key in head] for entry in ledger]
        content += [tag("h3", "Ledger of this model"), table(head, rows, "stack")]
    return section("gate", "Verdict", "What the gate asked, rule by rule.", *content)


def _kept(rule: Mapping[str, Any]) -> Html:
    if not rule.get("kept"):
        return tag("span", tag("span", "not kept", class_="pill loud"))
    return tag("span", tag("span", "worse" if rule.get("worse") else "kept", class_="pill"))


def _results(material: Material) -> Html | None:
    metrics = material.summary["evaluation"]
    if not metrics:
        return None
    rows = measured.reported(metrics, material.summary["recipe"])
    barred = any(row.bar for row in rows)
    bars = ", the upright mark a bar" if barred else ""
    lead = f"Each dot is the result, the band around it its 95 % interval{bars}." if rows else "No suite was asked."
    content = [_measure_table(rows, metrics)] if rows else []
    return section("results", "Results", lead, *content, *_rivals(metrics), _every_number(metrics))


def _measure_table(rows: Sequence[measured.Row], metrics: Metrics) -> Html:
    head = (("measure", None), ("result", "num"), ("95 %", "num"), ("", "wide"), ("bar", "num"), ("", None))
    top = tag("tr", *(tag("th", title, scope="col", class_=kind) for title, kind in head))
    return tag(
        "table", tag("thead", top), tag("tbody", *(_measure_line(row, metrics) for row in rows)), class_="measures"
    )


def _measure_line(row: measured.Row, metrics: Metrics) -> Html:
    measure, value = row.measure, metrics[row.measure.metric]
    low, high = metrics.get(f"{measure.metric}.low"), metrics.get(f"{measure.metric}.high")
    interval = f"{measure.number(low)} to {measure.number(high)}" if low is not None and high is not None else ""
    sub = measure.label.startswith("…")
    cells = [
        tag("td", measure.label.removeprefix("… ")),
        tag("td", tag("span", measure.with_unit(value), class_="value"), class_="num"),
        tag("td", tag("small", interval) if interval else None, class_="num"),
        tag("td", _track(row, value, low, high)),
        tag("td", row.bar_words, class_="num"),
        tag("td", *_verdict(row)),
    ]
    return tag("tr", *cells, class_="sub" if sub else None)


def _track(row: measured.Row, value: float, low: float | None, high: float | None) -> Html | None:
    if row.measure.unit != "percent":
        return None
    bar = None if row.bar is None else row.bar.at_least if row.bar.at_least is not None else row.bar.at_most
    return charts.interval(value, low, high, bar)


def _verdict(row: measured.Row) -> list[Html]:
    if not row.verdict:
        return []
    return [tag("span", row.verdict, class_="pill loud" if row.verdict == "missed" else "pill soft")]


def _rivals(metrics: Metrics) -> list[Html]:
    """Every suite that another system was asked as well: ours, and it, and the p of the difference."""
    rows = []
    for suite, systems in rivals(metrics).items():
        for place, system in enumerate(["", *systems]):
            name = f"{suite}.{system}" if system else suite
            rows.append(_rival_row(suite if place == 0 else "", system, name, metrics, _p(suite, system, metrics)))
    if not rows:
        return []
    lead = tag("p", "The same items, asked of other systems; p is of the paired difference.", class_="lead")
    head = ("suite", "system", "exact match", "95 %", "", "p")
    return [tag("h3", "Beside the cascade and the base model"), lead, table(head, rows, "rivals", "  nn n")]


def rivals(metrics: Metrics) -> dict[str, list[str]]:
    """Suites by name, and the systems that answered the same items beside the model."""
    suites = [name.removesuffix(".exact_match") for name in metrics if name.endswith(".exact_match")]
    found: defaultdict[str, list[str]] = defaultdict(list)
    for suite in sorted(suites):
        if is_rival(suite, suites):
            above, _, system = suite.rpartition(".")
            found[above].append(system)
    return dict(found)


def is_rival(suite: str, names: Iterable[str]) -> bool:
    """Whether ``suite`` is another system on the items of a suite of ``names``: ``spoken.facts.cascade``."""
    return suite.rpartition(".")[0] in names


def _p(suite: str, system: str, metrics: Metrics) -> float | None:
    names = (f"{suite}.{system}.p", f"{suite}.lost_points.p") if system == "base" else (f"{suite}.{system}.p",)
    return next((metrics[name] for name in names if system and name in metrics), None)


def _rival_row(title: str, system: str, suite: str, metrics: Metrics, p: float | None) -> list[str | Html]:
    name = f"{suite}.exact_match"
    value, low, high = (metrics.get(f"{name}{end}") for end in ("", ".low", ".high"))
    assert value is not None
    interval = f"{share(low)} to {share(high)}" if low is not None and high is not None else ""
    track = charts.interval(value, low, high, kind="other" if system else "")
    shown = tag("span", f"{share(value)} %", class_="value")
    what = SYSTEMS.get(system, system.replace("_", " "))
    return [title, what, shown, tag("small", interval), track, "" if p is None else number(p)]


def _every_number(metrics: Metrics) -> Html:
    rows = [[tag("code", name), number(metrics[name])] for name in sorted(metrics)]
    return details(f"Every number ({len(rows)})", table(("metric", "value"), rows, "", " n"))


def _listen(clips: Sequence[Clip]) -> Html | None:
    if not clips:
        return None
    origins = Counter(clip.origin for clip in clips)
    from_where = ", ".join(f"{number} of origin {origin}" for origin, number in sorted(origins.items()))
    lead = f"Questions as the model heard them, wrong and right ones of every suite in turn: {from_where}."
    return section("listen", "Listen", lead, tag("div", *map(_clip, clips), class_="grid"))


def _clip(clip: Clip) -> Html:
    item = clip.item
    top = tag("div", tag("small", item.suite), _mark(item), class_="top")
    sound = (
        tag("audio", controls=True, preload="none", src=clip.uri) if clip.audio else tag("p", tag("small", clip.silent))
    )
    facts = [("asked", item.question), ("expected", item.reference), ("answered", item.hypothesis)]
    pairs = [tag("dt", name) + tag("dd", said(text, _SHORT)) for name, text in facts]
    voice = tag("small", f"{clip.voice or 'no voice named'} · {clip.origin} · {clip.seconds:.1f} s")
    return tag("div", top, tag("dl", *map(Html, pairs), class_="pairs"), sound, voice, class_="card")


def _mark(item: ItemResult) -> Html:
    return tag("span", item.outcome.replace("_", " "), class_="pill soft" if item.right else "pill loud")


def _answers(items: Sequence[ItemResult]) -> Html | None:
    if not items:
        return None
    from ichigo.evaluation.items import measured_as

    suites: defaultdict[str, list[ItemResult]] = defaultdict(list)
    for item in items:
        suites[measured_as(item.suite, item.system)].append(item)
    order = sorted(suites, key=lambda name: (is_rival(name, suites), name))
    parts = [_suite(name, suites[name], opened=place == 0) for place, name in enumerate(order)]
    return section("answers", "Answers", "Of each suite, some that were wrong and some that were right.", *parts)


def _suite(name: str, items: Sequence[ItemResult], opened: bool) -> Html:
    ranked = sorted(items, key=lambda item: sha256_json([item.id, item.turn]))
    wrong, right = ([item for item in ranked if item.right is wanted] for wanted in (False, True))
    counts = ", ".join(
        f"{number} {outcome}" for outcome, number in Counter(item.outcome for item in items).most_common()
    )
    title = join([escaped(f"{name} "), tag("small", f" {counts.replace('_', ' ')}")])
    rows = [
        [said(item.question), said(item.reference), said(item.hypothesis), _mark(item)]
        for item in [*wrong[:_WRONG], *right[:_RIGHT]]
    ]
    return details(title, table(("asked", "expected", "answered", ""), rows, "stack"), opened=opened)


def _curves(material: Material) -> Html | None:
    figures = [
        figure for name, title in CURVES.items() for stage in STAGES for figure in _curve(stage, name, title, material)
    ]
    if not figures:
        return None
    lead = "By optimizer step; the line is a mean over neighbouring steps, the band their range."
    return section("curves", "Training", lead, tag("div", *figures, class_="grid"))


def _curve(stage: str, name: str, title: str, material: Material) -> Iterator[Html]:
    points = curve_points(material.known.curves.get(stage, {}), name)
    if points:
        last = tag("small", f"ends at {number(points[-1][1])}")
        yield tag("figure", tag("figcaption", f"{stage} {title}", last), charts.curves([charts.Curve(title, points)]))


def curve_points(curve: Mapping[int, Mapping[str, float]], name: str) -> list[tuple[float, float]]:
    """(step, value) of one name of a stage's curves."""
    return charts.finite((float(step), values[name]) for step, values in curve.items() if name in values)


def _chain(material: Material) -> Html:
    summary, known = material.summary, material.known
    steps = summary["steps"]
    total = max([summary["wall_seconds"], *(step["ended_seconds"] for step in steps)])
    foretold = [("estimate", "n")] if known.estimates else []
    head = ["step", "", "when", "work", *(name for name, _ in foretold), "what, or why"]
    rows = [_step(step, material, total) for step in steps]
    kfp = f"The pipeline engine itself cost {duration(summary['kfp_seconds'])} of {duration(summary['wall_seconds'])}."
    numbers = "   n" + "n" * len(foretold)
    lead = f"Every step, why it ran or whose work it reused. {kfp}"
    return section("chain", "Steps", lead, table(head, rows, "stack steps", numbers))


def _step(step: Mapping[str, Any], material: Material, total: float) -> list[str | Html]:
    known, name = material.known, step["name"]
    loud = step["status"] in {"failed", "cancelled"}
    pill = tag("span", step["status"], class_=f"pill {'loud' if loud else 'soft'}")
    end = step["ended_seconds"]
    bar = charts.span(end - step["seconds"], end, total, hot=step["status"] == "done")
    spared = (
        f" ({duration(known.earlier[name])} spared)" if step["status"] == "reused" and name in known.earlier else ""
    )
    facts = ", ".join(f"{key} {number(value)}" for key, value in _numbers(step["facts"]))
    what = join([said(f"{step['reason']}{spared}"), Html("<br>") if facts else Html(), tag("small", facts)])
    foretold = [duration(known.estimates[name]) if name in known.estimates else ""] if known.estimates else []
    return [name, pill, bar, duration(step["seconds"]), *foretold, what if step["reason"] or facts else ""]


def _numbers(facts: Mapping[str, Any]) -> list[tuple[str, float]]:
    return [(key, value) for key, value in facts.items() if isinstance(value, int | float)]


def _data(material: Material) -> Html | None:
    corpus, survey = material.corpus, material.survey
    if not corpus:
        return None
    content = [tag("dl", *(_fact(*fact) for fact in _corpus_facts(corpus)), class_="facts")]
    if survey.get("sources"):
        content += [tag("h3", "Sources"), _sources(survey["sources"])]
    content += [tag("h3", "Set aside"), *_quarantine(corpus["rejected"], survey.get("examples", {}))]
    if (overlap := survey.get("overlap")) and overlap["items"]:
        content += [tag("h3", "Training rows that share something with what is asked"), _overlap(overlap)]
    return section("data", "Data", "What the model was trained and judged on.", *content)


def _corpus_facts(corpus: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    splits = corpus["splits"]
    yield "To learn from", f"{splits.get('train', 0):,} rows", duration(corpus["train_seconds"])
    yield "To be judged by", f"{splits.get('test', 0):,} rows", duration(corpus["test_seconds"])
    for title, name in (("Origins", "origins"), ("Languages", "languages"), ("Licences", "licenses")):
        ranked = sorted(corpus[name].items(), key=lambda pair: (-pair[1], pair[0]))
        more = ", ".join(f"{key or 'unnamed'} {rows:,}" for key, rows in ranked[:4])
        yield title, f"{len(ranked)}", more
    yield "Voices", f"{len(corpus['speakers'])}", ""


def _sources(sources: Mapping[str, Mapping[str, Any]]) -> Html:
    head = ("source", "lines", "kept", "rows", "texts", "set aside")
    names = ("lines", "kept", "rows", "texts")
    rows = [
        [label, *(f"{one[name]:,}" for name in names), f"{sum(one['set_aside'].values()):,}"]
        for label, one in sorted(sources.items())
    ]
    return table(head, rows, "stack", " nnnnn")


def _quarantine(rejected: Mapping[str, int], examples: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Html]:
    if not rejected:
        return [tag("p", "Nothing: every line that was read is in the corpus.", class_="quiet")]
    ranked = sorted(rejected.items(), key=lambda pair: (-pair[1], pair[0]))
    rows = [[reason.replace("_", " "), f"{lines:,}", _examples(examples.get(reason, ()))] for reason, lines in ranked]
    return [table(("reason", "lines", "for example"), rows, "stack", " n")]


def _examples(found: Sequence[Mapping[str, Any]]) -> Html:
    lines = [
        said(f"{one['file'] or one['unit'] or one['source']}: {one['detail']}", 160) for one in found[:_QUARANTINED]
    ]
    return join(part for line in lines for part in (line, Html("<br>")))


def _overlap(overlap: Mapping[str, Any]) -> Html:
    named = (("the same text", "same_text"), ("nearly the same text", "near_text"), ("the same sound", "same_sound"))
    words = [f"{overlap[name]:,} {title}" for title, name in named]
    return tag("p", f"{overlap['items']:,} distinct texts are asked; of the training rows have {', '.join(words)}.")


def _repeat(material: Material) -> Html:
    summary, recipe = material.summary, material.recipe
    facts = [
        ("run", summary["run_key"]),
        ("recipe", f"{recipe.name}, fingerprint {summary['fingerprint']}"),
        ("seed", str(recipe.seed)),
        ("software", ", ".join(material.software)),
        ("store", summary["store"]),
        *([("model", f"{model['uri']}, digest {model['digest']}")] if (model := summary["model"]) else []),
    ]
    pairs = [tag("dt", name) + tag("dd", text) for name, text in facts]
    whole = json.dumps(json.loads(recipe.model_dump_json()), indent=2, sort_keys=True, ensure_ascii=False)
    text = details("recipe.yaml (JSON is YAML)", tag("pre", whole))
    command, why = repeat(recipe)
    artifacts = [[step["name"], tag("code", step["artifact"]["uri"]), tag("code", step["artifact"]["digest"][:12])]
                 for step in summary["steps"] if step["artifact"]]  # fmt: skip
    made = details("Artifacts", table(("step", "address", "digest"), artifacts, "stack"))
    return section(
        "repeat", "Repeat", why, tag("pre", command), tag("dl", *map(Html, pairs), class_="pairs"), text, made
    )


def repeat(recipe: Recipe) -> tuple[str, str]:
    """The command that makes the run again, and what has to be there for it."""
    shipped = {one.name for one in recipes.shipped()}
    places = f" --data {recipe.data.folder}" if recipe.data.folder else ""
    if recipe.name in shipped and recipes.fingerprint(recipes.load(recipe.name)) == recipes.fingerprint(recipe):
        return f"ichigo run {recipe.name}{places}", "The recipe as it ships."
    return "ichigo run recipe.yaml", "The recipe differs from the one that ships: save the one below as recipe.yaml."


def _foot(summary: Mapping[str, Any]) -> Html:
    stamp = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(summary["started"] + summary["wall_seconds"]))
    return tag("footer", f"{summary['run_key']} · ended {stamp} · this page loads nothing and runs nothing")
