"""HTML and SVG as values: a text is escaped unless it is `Markup`, so that no question can inject anything."""

import html
from collections.abc import Iterable


class Markup(str):
    """Text that is markup already and is written as it stands."""

    __slots__ = ()


def escaped(text: str) -> Markup:
    """Return `text` as markup that shows exactly that text; what cannot be written as UTF-8 becomes a question mark.

    >>> escaped("<b> & 'c'")
    '&lt;b&gt; &amp; &#x27;c&#x27;'
    """
    if isinstance(text, Markup):
        return text
    return Markup(
        html.escape(text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\N{REPLACEMENT CHARACTER}"))
    )


def number(value: float) -> str:
    """Return a coordinate with two decimals at most.

    >>> number(12.0), number(0.3333333)
    ('12', '0.33')
    """
    return f"{value:.2f}".rstrip("0").rstrip(".")


def tag(name: str, *children: str | None, **attributes: str | float | None) -> Markup:
    """Return the element `name` with its children; texts are escaped, None is left out.

    An underscore in an attribute's name becomes a hyphen, one at its end is dropped (`class_`).

    >>> tag("p", "a < b", tag("br"), class_="x", id=None)
    '<p class="x">a &lt; b<br></p>'
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(value if isinstance(value, str) else number(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in ("br", "meta"):
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(children)}</{name}>")


def join(parts: Iterable[str | None], between: str = "") -> Markup:
    """Return the parts one after the other, texts escaped, None left out.

    >>> join(["<", tag("i", "x"), None], between=" ")
    '&lt; <i>x</i>'
    """
    return Markup(escaped(between).join(escaped(part) for part in parts if part is not None))


def own(text: str, limit: int = 400) -> Markup:
    """Return a text of the user's data, cut at `limit` characters, its writing direction kept to itself.

    >>> own("one  two", limit=3)
    '<bdi>one…</bdi>'
    """
    flat = " ".join(text.split())
    return tag("bdi", flat if len(flat) <= limit else flat[:limit].rstrip() + "…")


def table(label: str, head: Iterable[str], rows: Iterable[Iterable[str]], class_: str | None = None) -> Markup:
    r"""Return a table that scrolls inside its own box, named `label` for screen readers.

    The first cell of each row is the row's header; an empty text in `head` leaves its cell empty.

    >>> "<th scope=\"row\">n</th>" in table("Counts", ["", "raw"], [["n", "3"]])
    True
    """
    columns = tag("tr", *(tag("th", cell, scope="col") if cell else tag("td") for cell in head))
    lines = [
        tag("tr", *(tag("th", cell, scope="row") if index == 0 else tag("td", cell) for index, cell in enumerate(row)))
        for row in rows
    ]
    shown = tag("table", tag("thead", columns), tag("tbody", *lines), class_=class_, aria_label=label)
    return tag("div", shown, class_="scroll", role="region", aria_label=label, tabindex="0")
