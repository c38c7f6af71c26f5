"""HTML that cannot be broken by what is in it: text is escaped when it enters a tag, and only tags are not.

Transcripts and answers are hostile until shown: they may hold ``<script>``, control characters, lone surrogates or
marks that turn the direction of writing. :func:`said` shows such text; every other text is escaped as well.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from pathlib import Path

STYLE = Path(__file__).with_name("style.css")
LONGEST = 400
"""Characters of a text that somebody or something said; what is longer is cut, with its length beside it."""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; media-src data:; img-src data:"
_VOID = {"br", "col", "hr", "link", "meta"}
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


Attribute = str | int | float | bool | None


def tag(name: str, *children: str | None, **attributes: Attribute) -> Html:
    """An element. Children that are no :class:`Html` are escaped, None is left out.

    ``class_`` is written ``class`` and ``stroke_width`` ``stroke-width``; an attribute that is None or False is left
    out, True stands without a value.
    """
    inner = "".join(child if isinstance(child, Html) else escaped(child) for child in children if child is not None)
    head = "".join([name, *(_attribute(key, value) for key, value in attributes.items())])
    return Html(f"<{head}>" if name in _VOID else f"<{head}>{inner}</{name}>")


def join(parts: Iterable[Html]) -> Html:
    """Elements after one another."""
    return Html("".join(parts))


def escaped(text: str) -> Html:
    """``text`` as HTML text or attribute value; what no page can hold becomes U+FFFD."""
    storable = text.encode("utf-8", "replace").decode()
    return Html(html.escape(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", storable), quote=True))


def said(text: str, longest: int = LONGEST) -> Html:
    """What a person, a model or a file said: cut to ``longest`` characters, and unable to turn what stands beside
    it."""
    if not text.strip():
        return tag("i", "nothing" if not text else "blanks", class_="quiet")
    if len(text) <= longest:
        return tag("bdi", text, class_="said")
    return join([tag("bdi", text[:longest], "…", class_="said"), tag("small", f" {len(text):,} characters")])


def _attribute(key: str, value: Attribute) -> str:
    name = key.rstrip("_").replace("_", "-")
    if value is None or value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{escaped(str(value))}"'


def page(title: str, *body: Html) -> str:
    """A whole document that loads nothing and runs nothing."""
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name_="color-scheme", content="light dark"),
        tag("title", title),
        Html(f"<style>{STYLE.read_text(encoding='utf-8')}</style>"),
    ]
    document = tag("html", tag("head", *head), tag("body", tag("main", *body)), lang="en")
    return f"<!doctype html>\n{document}\n"


def section(name: str, title: str, lead: str, *content: Html) -> Html:
    """A part of a page, reached by ``#name``."""
    intro = tag("p", lead, class_="lead") if lead else None
    return tag("section", tag("h2", title), intro, *content, id=name)


def table(head: Iterable[str], rows: Iterable[Iterable[str | Html]], kind: str = "", numbers: str = "") -> Html:
    """A table; ``numbers`` has a letter per column, ``n`` where figures stand (set right, in columns).

    On a narrow screen the rows of a table of the kind ``stack`` become blocks whose cells name their column.
    """
    titles = list(head)
    kinds = [("num" if column == "n" else None) for column in numbers.ljust(len(titles))]
    top = [tag("th", title, class_=one, scope="col") for title, one in zip(titles, kinds, strict=True)]
    body = [tag("tr", *map(_cell, row, kinds, titles)) for row in rows]
    return tag("table", tag("thead", tag("tr", *top)), tag("tbody", *body), class_=kind or None)


def _cell(content: str | Html, kind: str | None, title: str) -> Html:
    return tag("td", tag("div", content) if content else None, class_=kind, data_label=title)


def details(title: str | Html, *content: Html, opened: bool = False) -> Html:
    """Content that opens on demand."""
    return tag("details", tag("summary", title), *content, open=opened)
