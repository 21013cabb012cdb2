"""Templates of Markdown in which every value is escaped, unless it is said to be Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources

import jinja2

from talking_points.escaping import fence_text, for_code, for_markdown
from talking_points.publishing.terms import TERMS


class Markdown(str):
    """Text that stands in a card as it is: the project's own, or escaped already. What is made of it is not."""

    __slots__ = ()


def render_markdown(template: str, **values: object) -> str:
    """A text of ``data_cards``; every value that is no ``Markdown`` is escaped, as in the cell of a table."""
    return markdown_environment().get_template(template).render(**values)


def _escape(value: object) -> Markdown:
    """Text from a source, a configuration or a manifest, safe inside Markdown, a table included."""
    return value if isinstance(value, Markdown) else Markdown(for_markdown("" if value is None else value))


def _reasons(reasons: Mapping[str, int] | None) -> Markdown:
    ordered = sorted((reasons or {}).items(), key=lambda item: (-item[1], item[0]))
    return Markdown(", ".join(f"{_escape(reason)} {number:,}" for reason, number in ordered) or "-")


def _figure(value: float | None) -> Markdown:
    """A score with one decimal, a count with none, a dash for what there is not."""
    if value is None:
        return Markdown("-")
    return Markdown(f"{value:,}" if isinstance(value, int) else f"{value:.1f}")


@cache
def markdown_environment() -> jinja2.Environment:
    """Templates of ``data_cards`` with the filters of cards, which escape what they are given."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (resources.files("data_cards") / name).read_text(encoding="utf-8")),
        undefined=jinja2.StrictUndefined,
        finalize=_escape,
        keep_trailing_newline=True,
    )
    environment.filters["code"] = lambda text: Markdown(for_code(text))
    environment.filters["fenced"] = lambda text, language: Markdown(fence_text(text, language))
    environment.filters["count"] = lambda number: f"{number:,}"
    environment.filters["figure"] = _figure
    environment.filters["percent"] = lambda share: f"{100 * share:.1f} %"
    environment.filters["reasons"] = _reasons
    environment.filters["title_of"] = lambda source: Markdown(TERMS[source].title)
    return environment
