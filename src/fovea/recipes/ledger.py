"""The ledger: what recipes promise against what runs of them reached."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fovea import run_folder, runs
from fovea.arguments import compose_checked
from fovea.catalog import config_dir, groups
from fovea.recipes.counts import count_of, other_data, read_summary
from fovea.recipes.overrides import changed, in_shards
from fovea.runs.settings import Settings, flatten, parse_settings

NOT_TRIED = "unverified here"


@dataclass(frozen=True)
class Entry:
    """A line of the ledger.

    Attributes:
        recipe: its name.
        variant: "" or the name of a variant of it.
        metric: such as ``val/top1``.
        expected: its published value.
        spread: of that, over seeds; None: not published.
        run: id of the run; None: none was found.
        reached: by the run; None: nothing.
        verdict: in words; "reproduced" and "not reached" are said only of whole, unchanged runs.
        changes: what makes the run another recipe.
    """

    recipe: str
    variant: str
    metric: str
    expected: float
    spread: float | None
    run: str | None
    reached: float | None
    verdict: str
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """A recipe with a document, or one of its variants.

    Attributes:
        name: of the file in conf/experiment.
        variant: "" or its name.
        document: the document, with what the variant says in its place.
        overrides: that make the variant of the recipe.
    """

    name: str
    variant: str
    document: Mapping[str, Any]
    overrides: tuple[str, ...] = ()

    def settings(self) -> Settings:
        """Return the whole configuration, flat."""
        cfg = compose_checked("train", [f"experiment={self.name}", *self.overrides])
        cfg.paths.run = "here"
        plain: Any = OmegaConf.to_container(cfg, resolve=True)
        return flatten(plain)

    def changes(self, recipe: Settings, run: Settings) -> dict[str, tuple[Any, Any]]:
        """Return what `changed` does; weights that the document begins from have to be given."""
        found = changed(recipe, run)
        if self.document["weights"] is not None:
            if run.get("model.weights") is None:
                found["model.weights"] = (self.document["weights"], None)
            elif recipe.get("model.weights") is None:
                found.pop("model.weights", None)
        return found


def recipes() -> list[Recipe]:
    """Return all recipes that say what is to be expected of them, each followed by its variants."""
    found = []
    for name in groups()["experiment"]:
        text = (config_dir() / "experiment" / f"{name}.yaml").read_text()
        document = yaml.safe_load(text).get("expected")
        if document is None:
            continue
        found.append(Recipe(name, "", document))
        for variant, said in (document["variants"] or {}).items():
            whole = {**document, **said}
            found.append(Recipe(name, str(variant), whole, tuple(said["overrides"])))
    return found


def ledger(folder: str | Path) -> tuple[list[Entry], list[str]]:
    """Return the entries of all recipes, and a line for each run folder that can't be read.

    Raises:
        FoveaError: there is no such folder.
    """
    table = runs.load(folder)
    known = recipes()
    settings_of = lru_cache(maxsize=None)(lambda number: known[number].settings())
    entries: dict[tuple[str, str], list[Entry]] = {(r.name, r.variant): [] for r in known}
    broken = []
    for row in table.to_dict("records"):
        if _is_text(row["error"]) and row["state"] not in ("failed", "interrupted"):
            broken.append(f"{row['id']}: {row['error']}")
        if row["kind"] != "train" or not _is_text(row["overrides"]):
            continue
        chosen = re.findall(r"(?:^|\s)\+?experiment=(\S+)", row["overrides"])
        numbers = [n for n, recipe in enumerate(known) if chosen and recipe.name == chosen[-1]]
        settings = _settings(row["path"]) if numbers else None
        if settings is None:
            continue
        differing = {n: known[n].changes(settings_of(n), settings) for n in numbers}
        best = min(numbers, key=lambda n: len(differing[n]))
        stored = in_shards(settings) and not in_shards(settings_of(best))
        found = _entries(known[best], row, differing[best], table, stored)
        entries[known[best].name, known[best].variant] += found
    for recipe in known:
        if not entries[recipe.name, recipe.variant]:
            entries[recipe.name, recipe.variant] = [
                _entry(recipe, result, None, None, NOT_TRIED)
                for result in recipe.document["results"]
            ]
    return [entry for group in entries.values() for entry in group], broken


def _settings(path: str) -> Settings | None:
    """Return the run's flat settings, None where they can't be read: that is told already."""
    try:
        return parse_settings(Path(path, "config.yaml").read_text(), Path(path))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return None


def _entries(
    recipe: Recipe,
    row: Mapping[str, Any],
    differing: Mapping[str, tuple[Any, Any]],
    table: pd.DataFrame,
    stored: bool,
) -> list[Entry]:
    """Return an entry for each result of ``recipe``; ``stored``: its images are in shards."""
    summary = read_summary(row["path"])
    changes = [f"{key}={ours} (recipe: {theirs})" for key, (theirs, ours) in differing.items()]
    changes += other_data(recipe.document, summary, stored)
    entries = []
    for result in recipe.document["results"]:
        reached, note = _reached(recipe.document, result["metric"], row, table)
        images = count_of(summary, result["metric"].partition("/")[0])
        if changes:
            verdict = "another recipe"
        elif row["state"] != "finished":
            verdict = f"{row['state']}, not counted"
        elif reached is None:
            verdict = f"not measured{note}"
        else:
            if recipe.document["weights"] is not None:
                note += " (which weights it began from isn't checked)"
            note += " (images stored otherwise: in shards)" if stored else ""
            verdict = judge(result["value"], result["spread"], reached, images) + note
        entries.append(_entry(recipe, result, row["id"], reached, verdict, tuple(changes)))
    return entries


def judge(expected: float, spread: float | None, reached: float, images: int | None) -> str:
    """Return "reproduced" or by how much the run fell short.

    Short by no more than two standard deviations is reproduced: of the published spread over seeds
    or, where there is none, of the sampling of ``images`` evaluated images (binomial, of a set of
    unknown size 50,000).
    """
    deviation = spread or math.sqrt(expected * (1 - expected) / (images or 50_000))
    short = expected - reached
    if short > 2 * deviation:
        return f"not reached, short by {short:.4f}"
    return "reproduced"


def _reached(
    document: Mapping[str, Any], metric: str, row: Mapping[str, Any], table: pd.DataFrame
) -> tuple[float | None, str]:
    """Return what the run reached, and a word on how that was measured.

    Of the val split the last epoch counts: the best one was chosen by looking at it. Published with
    other views than the run's own evaluation had, the value is that of an evaluation with them.
    """
    split, views = metric.partition("/")[0], document["views"]
    if split == "val" and views == "center":
        return _number(row.get(f"last/{metric}")), ""
    if split == "test" and ((_settings(row["path"]) or {}).get("views") or "center") == views:
        return _number(row.get(metric)), "" if views == "center" else f" ({views} views)"
    # The best of val was chosen on val, so there it is the last one that counts.
    checkpoint = Path(row["path"], "checkpoints", "last.ckpt" if split == "val" else "best.ckpt")
    for other in table[table["kind"] == "eval"].to_dict("records"):
        settings = _settings(other["path"]) or {}
        asked = settings.get("views") == views and settings.get("split") == split
        if asked and other["state"] == "finished" and _judges(Path(other["path"]), checkpoint):
            return _number(other.get(metric)), f" ({views} views)"
    command = f"python src/eval.py ckpt={checkpoint} split={split} views={views}"
    return None, f": published with views={views}, so type {command}"


def _judges(evaluation: Path, checkpoint: Path) -> bool:
    """Return whether an evaluation is of ``checkpoint``, on the data of its run and as that had it.

    It is what was typed: a path from the folder where it was typed, and nothing about data.
    """
    try:
        typed = run_folder.read_overrides(evaluation)
        began_in = json.loads((evaluation / "environment.json").read_text())["folder"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError, OmegaConfBaseException):
        return False
    words = dict(word.partition("=")[::2] for word in typed)
    other_data = any(key.lstrip("+~").partition(".")[0] == "data" for key in words)
    named = Path(str(began_in), words.get("ckpt", "").strip("'\""))
    named = named / "checkpoints" / "best.ckpt" if named.is_dir() else named
    return not other_data and named.resolve() == checkpoint.resolve()


def _entry(
    recipe: Recipe,
    result: Mapping[str, Any],
    run: str | None,
    reached: float | None,
    verdict: str,
    changes: tuple[str, ...] = (),
) -> Entry:
    return Entry(
        recipe.name, recipe.variant, result["metric"], result["value"], result["spread"],
        run, reached, verdict, changes,
    )  # fmt: skip


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _number(value: Any) -> float | None:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if plain and math.isfinite(value) else None
