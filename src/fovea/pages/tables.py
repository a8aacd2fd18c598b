"""DataFrames as tables of a page: what is written, what is sorted by, where it leads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from fovea.errors import printable

# File names on Linux may hold bytes that are no text (Python: lone surrogates). Where pyarrow is
# installed pandas keeps text in it, and it takes UTF-8 only.
pd.set_option("mode.string_storage", "python")

MISSING = "–"
"""What stands where there is no value; sorted last."""


_WHOLE_FROM = 10_000
"""From here on fractions are not written."""


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: as written; a dash where there is nothing.
        value: the number itself, by which the column is sorted; None for text.
        link: address the text leads to, or None.
    """

    text: str
    value: float | None = None
    link: str | None = None


@dataclass(frozen=True)
class Table:
    """What the macros of ``tables.html.j2`` and ``tables.md.j2`` write.

    Attributes:
        heads: of the columns.
        numeric: whether a column holds numbers, and is set flush right.
        rows: a list of cells each.
    """

    heads: list[str]
    numeric: list[bool]
    rows: list[list[Cell]]


def page_table(
    frame: pd.DataFrame,
    formats: Mapping[str, str] | None = None,
    links: Sequence[Path | str | None] | None = None,
) -> Table:
    """Return ``frame`` as a table of a page.

    Args:
        frame: any; its index is left out. A value may be a `Cell` already.
        formats: of columns by name, as after the colon of an f-string: ``.2%``, ``,``. Else
            fractions have four significant digits and whole numbers separated thousands.
        links: a relative path a row, to which its first cell leads.
    """
    formats = formats or {}
    columns = [
        [_cell(value, formats.get(str(name))) for value in frame[name].tolist()] for name in frame
    ]
    if links is not None and columns:
        columns[0] = [
            Cell(cell.text, cell.value, None if link is None else address(link))
            for cell, link in zip(columns[0], links, strict=True)
        ]
    numeric = [
        any(cell.value is not None for cell in column)
        and all(cell.value is not None or cell.text == MISSING for cell in column)
        for column in columns
    ]
    rows = [list(row) for row in zip(*columns, strict=True)]
    return Table([printable(str(name)) for name in frame], numeric, rows)


def address(path: Path | str) -> str:
    """Return a relative ``path`` as the address of a link; odd bytes in it stay what they are."""
    return quote(Path(path).as_posix(), errors="surrogateescape")


def _cell(value: object, spec: str | None) -> Cell:
    if isinstance(value, Cell):
        return value
    if value is None or value is pd.NA or value != value:
        return Cell(MISSING)
    if isinstance(value, bool):
        return Cell("yes" if value else "no")
    if isinstance(value, Real):
        number = float(value)
        whole = not isinstance(value, float) or abs(number) >= _WHOLE_FROM
        usual = ",.0f" if whole else ".4g"
        return Cell(format(value, spec or usual).replace("%", " %"), number)
    return Cell(printable(str(value)))
