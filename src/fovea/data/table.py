"""Data sets listed in a CSV or TSV of ``path,label[,split]``."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from fovea.data.layout import SPLIT_NAMES, shortened, sorted_classes
from fovea.data.sources import FileSource
from fovea.data.splits import Found, Split
from fovea.errors import FoveaError

TABLE_SUFFIXES = (".csv", ".tsv")


class _Row(NamedTuple):
    line: int
    path: str
    label: str
    split: str | None


def find_table(table: Path) -> Found:
    """Return the splits that a table lists; without a ``split`` column all is one train split.

    Raises:
        FoveaError: naming the table's line, for what cannot be understood; files that do not
            exist; classes that differ between splits.
    """
    if not table.is_file():
        raise FoveaError(f"No table {table} (data.root): a CSV with the columns path,label[,split]")
    rows = list(_rows(table))
    if not rows:
        raise FoveaError(f"{table} lists no images: a line of path,label for each is expected")
    absent = [f"line {r.line}: {r.path}" for r in rows if not (table.parent / r.path).is_file()]
    if absent:
        raise FoveaError(
            f"{len(absent)} file(s) listed in {table} do not exist in {table.parent}: "
            f"{shortened(absent)}. Paths are relative to the table's own folder."
        )
    undivided = rows[0].split is None
    names = sorted_classes(row.label for row in rows)
    splits = {}
    for split in SPLIT_NAMES:
        chosen = [row for row in rows if (row.split or "train") == split]
        if chosen:
            splits[split] = _split(table, chosen, names)
    _check_classes(table, splits, names)
    missing = {
        "test": f"{table} has no rows with split test, and a divided data set is not divided "
        "further. Evaluate on another split by split=val, or add such rows."
    }
    return Found(names, splits, undivided, f"table {table}", {} if undivided else missing)


def _split(table: Path, rows: list[_Row], names: list[str]) -> Split:
    number = {name: label for label, name in enumerate(names)}
    source = FileSource(table.parent, [row.path for row in rows])
    return Split.whole(source, torch.tensor([number[row.label] for row in rows]))


def _rows(table: Path) -> Iterator[_Row]:
    with open(table, newline="", encoding="utf-8-sig") as file:
        header = file.readline()
        file.seek(0)
        reader = csv.reader(file, delimiter="\t" if "\t" in header else ",")
        columns = [cell.strip().lower() for cell in next(reader, [])]
        if "path" not in columns or "label" not in columns:
            raise FoveaError(
                f"{table} begins with '{header.strip()}', where a first line path,label or "
                "path,label,split is expected"
            )
        for cells in reader:
            if cells:
                yield _row(table, reader.line_num, dict(zip(columns, cells, strict=False)))


def _row(table: Path, line: int, cells: dict[str, str]) -> _Row:
    path, label = (cells.get(column, "").strip() for column in ("path", "label"))
    if not path or not label:
        raise FoveaError(f"{table}, line {line}: no {'label' if path else 'path'}")
    if "split" not in cells:
        return _Row(line, os.path.normpath(path), label, None)
    given = cells["split"].strip()
    for split, aliases in SPLIT_NAMES.items():
        if given.lower() in aliases:
            return _Row(line, os.path.normpath(path), label, split)
    raise FoveaError(f"{table}, line {line}: split '{given}' is not train, val or test")


def _check_classes(table: Path, splits: dict[str, Split], names: list[str]) -> None:
    if "train" not in splits:
        raise FoveaError(f"{table} has no rows with split train")
    trained = splits["train"].counts(len(names))
    extra = [name for name, count in zip(names, trained, strict=True) if not count]
    if extra:
        raise FoveaError(
            f"{table}: class(es) {shortened(extra)} occur in val or test but not in train"
        )
