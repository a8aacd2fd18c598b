"""A comparison as a folder: one page to read, tables for programs, pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from fovea.comparison.compare import Comparison
from fovea.comparison.curves import plot_learning_curves_of
from fovea.comparison.figures import plot_agreement, plot_differences, plot_scores
from fovea.comparison.pareto import hardware, plot_pareto
from fovea.comparison.sheets import plot_disagreements
from fovea.comparison.tables import (
    agreement_table,
    disagreements_table,
    pairs_for_reading,
    pairs_table,
    runs_table,
    systems_table,
)
from fovea.comparison.verdict import METHOD, in_order, say_all, say_best, say_limits, say_pair
from fovea.errors import FoveaError
from fovea.evaluation.tables import write_csv
from fovea.pages import embed, write_page
from fovea.pages.tables import Table, page_table

_SHEETS_UP_TO = 3
"""With more systems, only the two best are shown where they disagree."""

_CONSISTENCY = (
    "Error consistency is 0 where two err as independently as their accuracies allow, and 1 where "
    "they err on the same samples."
)

_FORMATS = {
    **dict.fromkeys(("top1", "low", "high", "sd", "balanced_accuracy"), ".2%"),
    **dict.fromkeys(("equal",), ".1%"),
    **dict.fromkeys(("nll", "kappa", "error_consistency"), ".3f"),
    **dict.fromkeys(("images", "parameters", "flops"), ",.0f"),
    "seconds": ",.1f",
}


@dataclass(frozen=True)
class _Part:
    """A section of the page: a note, a table, pictures with their captions."""

    title: str
    text: str = ""
    table: Table | None = None
    pictures: dict[Path, str] = field(default_factory=dict)


def write_comparison(
    folder: Path | str,
    comparison: Comparison,
    images_of: Callable[[int], Tensor] | None = None,
    count: int = 15,
) -> dict[str, Path]:
    """Write compare.html, .md, .json and .csv, further tables, and pictures as PNG.

    Args:
        folder: made if absent; files of these names are replaced.
        comparison: from `compare`.
        images_of: gives the (C, h, w) uint8 image of a sample by its index. None: no sheets of
            disagreements.
        count: how many pictures each of them shows.

    Returns:
        the files by their names without suffix; ``page`` and ``markdown`` are the two pages.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    systems, pairs = systems_table(comparison), pairs_table(comparison)
    tables = {
        "compare": pairs,
        "systems": systems,
        "runs": runs_table(comparison),
        "agreement": agreement_table(comparison),
        "disagreements": disagreements_table(comparison),
    }
    files = {name: write_csv(table, folder / f"{name}.csv") for name, table in tables.items()}
    files["json"] = folder / "compare.json"
    files["json"].write_text(json.dumps(_plain(comparison, tables), indent=2) + "\n", "utf-8")
    parts, notes = _parts(folder, comparison, tables, images_of, count)
    files |= {picture.stem: picture for part in parts for picture in part.pictures}
    files |= _write_pages(folder, comparison, parts, [*comparison.notes, *notes])
    return files


def _plain(comparison: Comparison, tables: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """Return what goes into compare.json: null for what is no number."""
    records = {
        name: json.loads(tables[name].to_json(orient="records"))
        for name in ("systems", "compare", "runs", "agreement")
    }
    return {
        "split": comparison.split,
        "samples": comparison.samples,
        "words": say_all(comparison),
        "limits": say_limits(comparison),
        "notes": list(comparison.notes),
        "systems": records["systems"],
        "pairs": records["compare"],
        "runs": records["runs"],
        "agreement": records["agreement"],
    }


def _parts(
    folder: Path,
    comparison: Comparison,
    tables: dict[str, pd.DataFrame],
    images_of: Callable[[int], Tensor] | None,
    count: int,
) -> tuple[list[_Part], list[str]]:
    """Draw everything; return the sections of the page, and notes on what could not be drawn."""
    scores, differences, agreement = (
        folder / f"{name}.png" for name in ("scores", "differences", "agreement")
    )
    plot_scores(comparison, scores)
    plot_differences(comparison, differences)
    plot_agreement(comparison, agreement)
    sheets, notes = _draw_sheets(folder, comparison, images_of, count)
    curves, curve_notes = _draw_curves(folder, comparison)
    pareto, cost_notes = _draw_pareto(folder, comparison, tables["systems"])
    agreements = page_table(tables["agreement"], _FORMATS)
    parts = [
        _Part(
            "Systems",
            "Runs that differ only in their seed are one system. low, high: 95 % of top-1.",
            page_table(tables["systems"].dropna(axis="columns", how="all"), _FORMATS),
            {scores: "Top-1 of each system"},
        ),
        _Part("Differences", "", pairs_for_reading(comparison), {differences: "Differences"}),
        _Part(
            "Where they disagree",
            f"{len(tables['disagreements']):,} samples are right for some runs only: "
            "disagreements.csv.",
            pictures=sheets,
        ),
        _Part("How far they agree", _CONSISTENCY, agreements, {agreement: "Agreement of the runs"}),
        _Part("Learning curves", " ".join(curve_notes), pictures=curves),
        _Part("Cost and accuracy", " ".join(cost_notes), pictures=pareto),
        _Part("Runs", table=page_table(tables["runs"], _FORMATS)),
    ]
    return parts, notes


def _draw_sheets(
    folder: Path,
    comparison: Comparison,
    images_of: Callable[[int], Tensor] | None,
    count: int,
) -> tuple[dict[Path, str], list[str]]:
    if images_of is None:
        return {}, ["The images are not at hand: samples are listed, not shown."]
    systems = comparison.systems
    if len(systems) > _SHEETS_UP_TO:
        tops = [estimate.value for estimate in comparison.scores["top1"]]
        best = sorted(range(len(systems)), key=lambda i: -tops[i])[:2]
        systems = tuple(systems[i] for i in sorted(best))
    pictures = {}
    for a, b in combinations(systems, 2):
        for right, wrong in ((a, b), (b, a)):
            path = folder / f"right_{right.letter}_wrong_{wrong.letter}.png"
            plot_disagreements(right, wrong, images_of, path, count)
            pictures[path] = f"{right.letter} right, {wrong.letter} wrong"
    return pictures, []


def _draw_curves(folder: Path, comparison: Comparison) -> tuple[dict[Path, str], list[str]]:
    path = folder / "learning_curves.png"
    folders = {
        system.title: [entry.folder for entry in system.entries if entry.folder is not None]
        for system in comparison.systems
    }
    try:
        notes = plot_learning_curves_of(folders, path)
    except FoveaError as error:
        return {}, [str(error)]
    return {path: "Mean over the runs of a system; band: from the lowest to the highest"}, notes


def _draw_pareto(
    folder: Path, comparison: Comparison, systems: pd.DataFrame
) -> tuple[dict[Path, str], list[str]]:
    path = folder / "pareto.png"
    named = systems.assign(name=systems["system"])
    machines = {hardware(entry.folder) for entry in comparison.entries if entry.folder is not None}
    try:
        notes = plot_pareto(named, path)
    except FoveaError as error:
        return {}, [str(error)]
    if len(machines) > 1:
        notes.append("Times are of different machines.")
    return {path: "Accuracy over cost; the line joins systems that none beats in both"}, notes


def _write_pages(
    folder: Path, comparison: Comparison, parts: list[_Part], notes: list[str]
) -> dict[str, Path]:
    claims = [
        {"text": say_pair(comparison, pair), "shown": pair.shown} for pair in in_order(comparison)
    ]
    runs = len(comparison.entries)
    common = {
        "title": "Comparison of " + " and ".join(s.name for s in comparison.systems)
        if len(comparison.systems) == 2
        else f"Comparison of {len(comparison.systems)} systems",
        "subtitle": f"{runs} runs of {len(comparison.systems)} systems on the same "
        f"{comparison.samples:,} samples of '{comparison.split}'",
        "summary": say_best(comparison) if len(comparison.systems) > 2 else "",
        "claims": claims,
        "limits": say_limits(comparison),
        "notes": notes,
        "method": METHOD,
    }
    html, markdown = [], []
    for part in parts:
        values = {"title": part.title, "text": part.text, "table": part.table}
        pictures = part.pictures.items()
        html.append({**values, "figures": [{"data": embed(p), "caption": c} for p, c in pictures]})
        markdown.append(
            {**values, "figures": [{"file": p.name, "caption": c} for p, c in pictures]}
        )
    return {
        "page": write_page(folder / "compare.html", "compare.html.j2", parts=html, **common),
        "markdown": write_page(folder / "compare.md", "compare.md.j2", parts=markdown, **common),
    }
