"""What evaluation under corruption leaves: tables, a figure, and sections for a report."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from fovea.evaluation.corruption_error import (
    CLEAN,
    SEVERITIES,
    corruption_table,
    shared_rows,
    why_not_relative,
)
from fovea.evaluation.figures import new_figure, shorten
from fovea.evaluation.sections import Section
from fovea.evaluation.tables import write_csv

_CE_TEXT = (
    "Corruption errors (CE): the error over the five severities, relative to AlexNet's on "
    "ImageNet-C (100 % is as bad as AlexNet); {mean} their mean. After Hendrycks and Dietterich "
    "2019."
)
_PLAIN_TEXT = (
    "Mean top-1 errors over severities {severities}, and their mean over the corruptions. They are "
    "not divided by AlexNet's, as for an mCE: {why}."
)
_MADE_TEXT = (
    "The corruptions were made on the fly. Published results are of the files that were "
    "distributed, which for ImageNet went through one more JPEG compression."
)
_UNEQUAL_TEXT = (
    "Not every model has every corruption and severity: the means are of those that all have."
)
_SHORT = {"elastic_transform": "elastic", "jpeg_compression": "jpeg"}


def write_corruptions(folder: Path | str, measured: pd.DataFrame) -> list[Section]:
    """Write corruptions.csv, corruptions_by_severity.csv and corruptions.png into ``folder``.

    Args:
        folder: made if absent.
        measured: the long table of `fovea.evaluation.corruption_error`, with the columns
            ``unlike_imagenet_c``, see `corruption_table`, and ``made_here``: whether the
            corruptions were made on the fly.

    Returns:
        the sections of a report that show them.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    table = corruption_table(measured)
    write_csv(table, folder / "corruptions.csv")
    write_csv(measured, folder / "corruptions_by_severity.csv")
    figure = folder / "corruptions.png"
    plot_by_severity(measured, figure)
    unequal = len(shared_rows(measured)) < (measured["corruption"] != CLEAN).sum()
    texts = [
        _explained(measured, table),
        _UNEQUAL_TEXT if unequal else "",
        _MADE_TEXT if measured["made_here"].any() else "",
    ]
    shown = table.rename(columns=_headings(measured))
    formats = {name: ".1%" for name in shown.columns if name != "model"}
    return [
        Section(
            "Under corruption",
            shown,
            text="\n\n".join(text for text in texts if text),
            formats=formats,
            file="corruptions.csv",
        ),
        Section(
            "",
            figure=figure,
            text="Top-1 accuracy by severity; 0 is the images as they are. Every number is in "
            "corruptions_by_severity.csv.",
        ),
    ]


def _explained(measured: pd.DataFrame, table: pd.DataFrame) -> str:
    why = why_not_relative(measured)
    if not why:
        mean = (
            "the mCE is" if "mce" in table else "not all 15 were measured, so there is no mCE but"
        )
        return _CE_TEXT.format(mean=mean)
    there = sorted(set(shared_rows(measured)["severity"]))
    return _PLAIN_TEXT.format(severities=", ".join(map(str, there)), why=why)


def _headings(measured: pd.DataFrame) -> dict[str, str]:
    """Return how columns are called on the page: with the corruption's group in front."""
    groups = dict(zip(measured["corruption"], measured["group"], strict=True))
    names = {
        name: f"{group}: {_short(str(name)).removesuffix(' ' + group)}"
        for name, group in groups.items()
    }
    summaries = {"mce": "mCE", "mean_ce": "mean CE", "mean_error": "mean", "clean_error": "clean"}
    return {**names, **summaries}


def _short(corruption: str) -> str:
    """Return how a corruption is called where there is little room."""
    return _SHORT.get(corruption, corruption).replace("_", " ")


def plot_by_severity(measured: pd.DataFrame, path: Path | str) -> None:
    """Draw top-1 accuracy over severity, a panel a group of corruptions.

    A line is a corruption; of several models, a line is a model's mean over the group.

    Args:
        measured: the long table.
        path: of the PNG to write.
    """
    corrupted = measured[measured["corruption"] != CLEAN]
    clean = measured[measured["corruption"] == CLEAN].set_index("model")["top1"]
    by = "corruption" if measured["model"].nunique() == 1 else "model"
    groups = list(dict.fromkeys(corrupted["group"]))
    with new_figure(path, 3.1 * len(groups) + 0.6, 3.4) as figure:
        panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
        for axes, group in zip(panels, groups, strict=True):
            _draw(axes, corrupted[corrupted["group"] == group], clean, by)
            axes.set_title(group)
            axes.set_xlabel("severity")
        panels[0].set_ylabel("top-1 accuracy")
        panels[0].set_ylim(0, 1)
        panels[0].yaxis.set_major_formatter(PercentFormatter(1))


def _draw(axes: Axes, rows: pd.DataFrame, clean: pd.Series, by: str) -> None:
    for name, part in rows.groupby(by, sort=False):
        curve = part.groupby("severity")["top1"].mean()
        model = part["model"].iloc[0]
        if model in clean.index:
            curve.loc[0] = clean.loc[model]
            curve = curve.sort_index()
        label = _short(str(name)) if by == "corruption" else shorten(str(name), 28)
        axes.plot(curve.index, curve.to_numpy(), marker="o", markersize=3, label=label)
    axes.set_xticks([0, *SEVERITIES] if len(clean) else list(SEVERITIES))
    axes.grid(axis="y", alpha=0.25)
    axes.legend(fontsize=7, loc="lower left")
