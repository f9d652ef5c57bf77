"""HTML and SVG made of elements: whatever is not an element already is text, and is escaped.

So what a server, a model or a scenario calls itself can never become a part of the page.
"""

from collections.abc import Iterable
from html import escape

_VOID = frozenset({"meta", "br", "hr"})
_SHAPES = frozenset({"rect", "line", "path", "circle"})


class Markup(str):
    """Text that is markup already. Only `tag`, `joined` and what is written by hand make it."""

    __slots__ = ()


Child = Markup | str | int | float | None | Iterable["Child"]


def tag(name: str, /, *children: Child, **attributes: object) -> Markup:
    """One element. `class_` is class and `aria_label` aria-label; an attribute that is None or
    False is left out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_value(value))}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    if name in _SHAPES and not children:
        return Markup(f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{joined(*children)}</{name}>")


def joined(*children: Child) -> Markup:
    """All of them one after the other; texts escaped, None left out."""
    return Markup("".join(map(_child, children)))


def _child(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, str):
        return escape(child)
    if isinstance(child, int | float):
        return str(child)
    return "".join(map(_child, child))


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return "" if value is True else str(value)
