"""A report as a list of sections, and its two pages: HTML of one piece, and Markdown."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from fovea.evaluation.tables import write_csv
from fovea.pages import embed, write_page
from fovea.pages.tables import Table, address, page_table

_ROWS_IN_MARKDOWN = 50
"""Markdown has no scroll bar: of a longer table it shows the first rows and names the file."""


@dataclass(frozen=True)
class Section:
    """A part of a report: text, then a table, then a figure; each may be absent.

    Attributes:
        title: heading; empty to go on under the heading before.
        table: sortable in the HTML page; its index is left out.
        figure: a PNG file.
        text: plain; an empty line begins a paragraph.
        formats: of the table's columns, see `fovea.pages.tables.page_table`.
        links: a folder a row, relative to the report's, that has a report of its own: the row's
            first cell leads there.
        file: name of the file that holds the whole table, for those who want to go on with it.
    """

    title: str
    table: pd.DataFrame | None = None
    figure: Path | None = None
    text: str = ""
    formats: Mapping[str, str] = field(default_factory=dict)
    links: Sequence[Path | str | None] | None = None
    file: str = ""


@dataclass(frozen=True)
class Part:
    """Some sections of a report, and the numbers they add to metrics.json."""

    sections: list[Section]
    numbers: dict[str, Any] = field(default_factory=dict)


def write_pages(
    folder: Path | str, title: str, sections: Sequence[Section], warnings: Sequence[str] = ()
) -> dict[str, Path]:
    """Write report.html (pictures inside) and report.md (pictures beside it) into ``folder``.

    Args:
        folder: made if absent.
        title: heading of the page.
        sections: in the order of reading.
        warnings: what one has to know before one believes a number; on top of the page.

    Returns:
        the two files, as ``report`` and ``report_markdown``.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    common = {"title": title, "warnings": list(warnings)}
    html = [_values(section, "report.html") for section in sections]
    for values, section in zip(html, sections, strict=True):
        values["source"] = None if section.figure is None else embed(section.figure)
    markdown = [_values(section, "report.md", _ROWS_IN_MARKDOWN) for section in sections]
    for values, section in zip(markdown, sections, strict=True):
        if section.figure is not None:
            values["source"] = address(os.path.relpath(section.figure, folder))
    return {
        "report": write_page(folder / "report.html", "report.html.j2", sections=html, **common),
        "report_markdown": write_page(
            folder / "report.md", "report.md.j2", sections=markdown, **common
        ),
    }


def write_overview(
    folder: Path | str,
    rows: pd.DataFrame | Sequence[Mapping[str, Any]],
    title: str,
    *,
    text: str = "",
    folders: Sequence[Path | str | None] | None = None,
    formats: Mapping[str, str] | None = None,
    sections: Sequence[Section] = (),
    warnings: Sequence[str] = (),
) -> dict[str, Path]:
    """Write report.html and report.md with one row a model (or data set, or corruption).

    Args:
        folder: made if absent.
        rows: the table; every key is a column.
        title: heading of the page.
        text: what stands above the table.
        folders: of each row's own report, relative to ``folder``; None for a row without.
        formats: of columns, such as ``{"top1": ".2%"}``.
        sections: what follows.
        warnings: on top of the page.

    Returns:
        the files: ``report``, ``report_markdown`` and ``table`` (table.csv).
    """
    folder = Path(folder)
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    first = Section("", frame, None, text, formats or {}, folders, file="table.csv")
    files = write_pages(folder, title, [first, *sections], warnings)
    return {**files, "table": write_csv(frame, folder / "table.csv")}


def _values(section: Section, page: str, limit: int | None = None) -> dict[str, Any]:
    """Return what the templates name of ``section``; ``limit`` is the most rows of its table."""
    table: Table | None = None
    hidden = 0
    if section.table is not None:
        frame = section.table if limit is None else section.table.head(limit)
        hidden = len(section.table) - len(frame)
        links = section.links
        if links is not None:
            links = [None if link is None else Path(link) / page for link in links][: len(frame)]
        table = page_table(frame, section.formats, links)
    return {
        "title": section.title,
        "paragraphs": [part for part in section.text.split("\n\n") if part],
        "table": table,
        "hidden": hidden,
        "file": section.file,
        "source": None,
        "alt": "" if section.figure is None else section.figure.stem.replace("_", " "),
    }
