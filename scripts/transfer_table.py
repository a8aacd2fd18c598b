"""The table of a transfer study, from its runs: what was reached, and which differences hold."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from omegaconf import OmegaConf

from fovea import run_folder, runs
from fovea.comparison.resampling import Estimate
from fovea.comparison.significance import LEVEL, holm
from fovea.errors import FoveaError
from fovea.evaluation.tables import write_csv

TAG = "transfer_study"
SCORE = "test/top1"
KEY = ["schedule", "images", "seed"]


def read_runs(folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """Return a row a finished run of the study in ``folder``, and what has to be said of others.

    Columns: ``schedule``, ``images`` a class, ``seed``, ``top1`` in [0, 1], ``path``.

    Raises:
        FoveaError: no finished run; two of one kind; runs that saw other images than they should.
    """
    rows, notes = [], []
    for _, run in runs.load(folder).iterrows():
        if run["state"] != "finished":
            why = f" ({run['error']})" if isinstance(run["error"], str) else ""
            notes.append(f"left out: {run['id']} is {run['state']}{why}")
            continue
        row = _read(Path(run["path"]), run.get(SCORE))
        if row is None:
            notes.append(f"left out: {run['id']} has no tag {TAG} with a schedule, or no {SCORE}")
        else:
            rows.append(row)
    if not rows:
        raise FoveaError(
            f"{folder} holds no finished run of a transfer study. Make them: "
            f"python src/train.py -m experiment={TAG}" + "".join(f"\n  {note}" for note in notes)
        )
    table = pd.DataFrame(rows)
    _check_images(table)
    return table.drop(columns=["train", "test"]), notes


def _read(folder: Path, score: Any) -> dict[str, Any] | None:
    """Return the row of a run; None where it is none of a study, or was not tested."""
    cfg = run_folder.read_config(folder)
    tags = [str(tag) for tag in cfg.tags]
    if TAG not in tags[:-1] or score is None or not math.isfinite(score):
        return None
    splits = run_folder.read_summary(folder)["splits"]
    return {
        "schedule": tags[tags.index(TAG) + 1],
        "images": OmegaConf.select(cfg, "data.limit_per_class"),
        "seed": cfg.seed,
        "top1": float(score),
        "path": str(folder),
        "train": splits["train"]["fingerprint"],
        "test": splits["test"]["fingerprint"],
    }


def _check_images(table: pd.DataFrame) -> None:
    """Raise unless each kind is there once, and what is compared learned and was judged alike."""
    twice = table[table.duplicated(KEY, keep=False)]
    if len(twice):
        raise FoveaError(
            f"{twice.iloc[0]['path']} and {twice.iloc[1]['path']} are of one schedule, size and "
            "seed. Give the folder of one study alone."
        )
    if table["test"].nunique() > 1:
        raise FoveaError("The runs were tested on different images: these are not one study's.")
    for (images, seed), group in table.groupby(["images", "seed"]):
        if group["train"].nunique() > 1:
            raise FoveaError(
                f"Runs of seed {seed} with {images} images a class learned from different ones, so "
                "they can't be compared in pairs. Were they made with other data or val_fraction?"
            )


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Return a row a schedule and size: mean top-1, its 95 % interval, and how it stands.

    Columns: ``schedule``, ``images``, ``n`` seeds, ``mean``, ``margin`` (t with n - 1 degrees of
    freedom; NaN of one seed), ``behind`` (mean difference to the best of this size, paired by seed,
    0 for that one), ``behind_margin`` likewise, ``p`` (paired t-test of it, by Holm for the
    schedules of this size; NaN where fewer than two seeds are shared) and ``open``: not shown to be
    worse than the best.
    """
    parts = []
    for images, group in table.groupby("images"):
        scores = group.pivot(index="seed", columns="schedule", values="top1")
        scores = scores[group["schedule"].drop_duplicates()]  # as they were run
        best = scores.mean().idxmax()
        estimates = [estimate(scores[name]) for name in scores]
        behind = [estimate(scores[best] - scores[name]) for name in scores]
        p = [math.nan if name == best else difference.p_value
             for name, difference in zip(scores, behind, strict=True)]  # fmt: skip
        parts.append(
            pd.DataFrame(
                {
                    "schedule": list(scores),
                    "images": images,
                    "n": scores.notna().sum().to_list(),
                    "mean": [found.value for found in estimates],
                    "margin": [found.margin for found in estimates],
                    "behind": [difference.value for difference in behind],
                    "behind_margin": [difference.margin for difference in behind],
                    "p": holm(p),
                }
            )
        )
    cells = pd.concat(parts, ignore_index=True)
    cells["open"] = ~(cells["p"] <= LEVEL)
    return cells


def estimate(values: pd.Series) -> Estimate:
    """Return the mean of what is there of ``values``, one a seed, with its standard error."""
    known = values.dropna()
    if len(known) < 2:
        return Estimate(float(known.mean()), math.nan, math.nan)
    return Estimate(float(known.mean()), float(known.sem()), len(known) - 1)


def to_markdown(cells: pd.DataFrame, notes: list[str]) -> str:
    """Return the table in per cent: the best of a column bold, ≈ behind what may be as good."""
    sizes = sorted(cells["images"].unique())
    lines = ["| images a class | " + " | ".join(str(size) for size in sizes) + " |"]
    lines.append("| --- |" + " --- |" * len(sizes))
    for name in cells["schedule"].drop_duplicates():
        rows = cells[cells["schedule"] == name].set_index("images")
        shown = [_cell(rows.loc[size]) if size in rows.index else "" for size in sizes]
        lines.append(f"| `{name}` | " + " | ".join(shown) + " |")
    seeds = sorted(cells["n"].unique())
    counts = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    counts += " seed" if seeds == [1] else " seeds"
    lines += [
        "",
        f"Test top-1 in %, mean of {counts} ± half the 95 % interval (t over seeds). Bold: "
        f"best of its column; ≈: not shown to be worse (paired t-test over seeds, Holm, {LEVEL}).",
        *notes,
    ]
    return "\n".join(lines)


def _cell(row: pd.Series) -> str:
    margin = "" if math.isnan(row["margin"]) else f" ± {100 * row['margin']:.1f}"
    text = f"{100 * row['mean']:.1f}{margin}"
    if row["behind"] == 0:
        return f"**{text}**"
    return f"{text} ≈" if row["open"] else text


def write(folder: Path, cells: pd.DataFrame, notes: list[str]) -> None:
    """Write transfer.md, transfer.csv (shares, not per cent) and transfer.png into ``folder``."""
    (folder / "transfer.md").write_text(to_markdown(cells, notes) + "\n", encoding="utf-8")
    write_csv(cells, folder / "transfer.csv")
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    names = list(cells["schedule"].drop_duplicates())
    for i, name in enumerate(names):
        rows = cells[cells["schedule"] == name]
        # Side by side, so that intervals do not hide each other.
        places = rows["images"] * 1.06 ** (i - (len(names) - 1) / 2)
        axes.errorbar(
            places, 100 * rows["mean"], 100 * np.nan_to_num(rows["margin"].to_numpy()),
            marker="o", capsize=3, label=name,
        )  # fmt: skip
    axes.set_xscale("log")
    sizes = sorted(cells["images"].unique())
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set(xlabel="images a class", ylabel="test top-1, %")
    axes.legend()
    figure.savefig(folder / "transfer.png", dpi=120)
    plt.close(figure)
