"""Pages that open without a network: HTML and Markdown files, all in one piece."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fovea.errors import printable

__all__ = ["embed", "write_page"]


def write_page(path: Path | str, template: str, **values: Any) -> Path:
    """Write ``template`` of this folder, filled with ``values``, to ``path``, and return that.

    HTML templates extend ``base.html.j2`` (style, tables that sort at a click on their heads); text
    in them is escaped, so a class or a file may be called ``<script>``. In Markdown templates use
    the filter ``cell`` for text in tables.

    Args:
        path: the file; its folder is made if absent.
        template: such as ``"report.html.j2"``.
        values: what the template names; a name it lacks is an error.
    """
    markup = template.endswith(".html.j2")
    environment = Environment(
        loader=PackageLoader("fovea.pages", "."),
        autoescape=markup,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters: dict[str, Callable[..., Any]] = {"percent": percent, "cell": cell}
    environment.filters.update(filters)
    text = environment.get_template(template).render(**values)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", errors="backslashreplace")
    return path


def embed(picture: Path | str) -> str:
    """Return the PNG file ``picture`` as a ``data:`` address for the ``src`` of an image."""
    coded = base64.b64encode(Path(picture).read_bytes()).decode("ascii")
    return f"data:image/png;base64,{coded}"


def percent(share: float | None, digits: int = 2) -> str:
    """Return ``share`` in [0, 1] as ``"12.34 %"``; a dash for None and NaN."""
    return "–" if share is None or share != share else f"{100 * share:.{digits}f} %"


def cell(text: object) -> str:
    """Return ``text`` for a cell of a Markdown table."""
    plain = printable(str(text)).replace("\\", "\\\\").replace("\n", " ")
    for mark in "|<>`*_[]":
        plain = plain.replace(mark, f"\\{mark}")
    return plain
