"""Several models in one folder: a report each, their ensemble, and a page with a row a model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fovea import run_folder
from fovea.data import ImageDataModule
from fovea.errors import FoveaError
from fovea.evaluation import Predictions
from fovea.evaluation.intervals import wilson
from fovea.evaluation.sections import write_overview
from fovea.judging.ensemble import average
from fovea.judging.harder import gather_corruptions
from fovea.judging.references import ENSEMBLE
from fovea.judging.reporting import images_of_data, keep, report
from fovea.machine import ranks
from fovea.machine.no_room import spared

log = logging.getLogger("fovea")

_HARDER = {
    "real_top1": "ReaL top1",
    "mce": "mCE",
    "mean_ce": "mean CE",
    "mean_corruption_error": "error under corruption",
}
"""Columns of the overview that are there if they were measured, by the score's name."""


@dataclass(frozen=True)
class Outcome:
    """What became of one model.

    Attributes:
        name: also of its folder.
        about: of its predictions; empty where it failed.
        samples: how many were judged.
        hits: how many of them were right.
        error: why there is nothing, None if there is.
    """

    name: str
    about: Mapping[str, Any] = field(default_factory=dict)
    samples: int = 0
    hits: int = 0
    error: str | None = None

    @classmethod
    def of(cls, name: str, predictions: Predictions) -> Outcome:
        """Return that of a model that was judged."""
        hits = int(predictions.correct.sum())
        return cls(name, predictions.about, len(predictions), hits)

    @property
    def cost(self) -> Mapping[str, Any]:
        """What the model costs, as far as it was measured."""
        return self.about.get("cost") or {}

    def record(self) -> dict[str, Any]:
        """Return what summary.json says of the model."""
        return {
            "name": self.name,
            "state": "finished" if self.error is None else "failed",
            "ckpt": self.about.get("ckpt"),
            "metrics": self.about.get("metrics", {}),
            "error": self.error,
        }

    def row(self) -> dict[str, Any]:
        """Return the model's row of the overview."""
        scores = {k.partition("/")[2]: v for k, v in self.about.get("metrics", {}).items()}
        low, high = wilson(self.hits, self.samples)
        flops = self.cost.get("flops")
        return {
            "model": self.name,
            "top1": scores.get("top1"),
            "95 % from": low,
            "to": high,
            "top5": scores.get("top5"),
            "balanced accuracy": scores.get("balanced_accuracy"),
            "loss": scores.get("loss"),
            **{title: scores[name] for name, title in _HARDER.items() if name in scores},
            "parameters": self.cost.get("parameters"),
            "GFLOPs": None if flops is None else flops / 1e9,
            "images/s": self.cost.get("images_per_second"),
            **({} if self.error is None else {"remark": self.error}),
        }


def judge_each(
    names: Sequence[str], judge_one: Callable[[str], Predictions | None]
) -> Iterator[Outcome]:
    """Yield what becomes of each model; one that fails does not keep the others from being judged.

    Args:
        names: of the models.
        judge_one: judges the model of a name; its `FoveaError` is noted. None on other ranks.
    """
    for name in names:
        try:
            predictions = judge_one(name)
            if predictions is not None:
                yield Outcome.of(name, predictions)
        except FoveaError as error:
            log.error("%s failed: %s", name, error)
            yield Outcome(name, error=str(error))
        # Rank 0 may have searched for duplicates, and the next model begins with a collective.
        ranks.wait_for_main(f"judged {name}")


def judge_ensemble(
    folder: Path,
    members: Sequence[Outcome],
    load: Callable[[str, str], Predictions | None],
    split: str,
    data: ImageDataModule | None = None,
) -> Outcome:
    """Return what the mean of the members' probabilities comes to; its report is written.

    Args:
        folder: of all models.
        members: those that were judged.
        load: gives a member's predictions by its name and the split, None if there are none.
        split: that is reported.
        data: gives the pictures, if it has the images that were judged.
    """
    names = [member.name for member in members]
    about = {"run": f"{ENSEMBLE} of {', '.join(names)}", "ckpt": None, "members": names}
    try:
        if len(members) < 2:
            raise FoveaError("Fewer than two models were judged, so there is no mean of them.")
        mean = average(_loaded(names, load, split), {**about, "cost": _sum(members)})
        val = None
        if split != "val" and all(load(name, "val") is not None for name in names):
            val = average(_loaded(names, load, "val"), about)
            keep(folder / ENSEMBLE, val)
        keep(folder / ENSEMBLE, mean)
        images_of = None
        if data and data.split_fingerprints().get(split) == mean.about.get("fingerprint"):
            images_of = images_of_data(data, split)
        report(folder / ENSEMBLE, mean, images_of, val=val)
    except FoveaError as error:
        log.error("%s failed: %s", ENSEMBLE, error)
        return Outcome(ENSEMBLE, error=str(error))
    return Outcome.of(ENSEMBLE, mean)


def _loaded(
    names: Sequence[str], load: Callable[[str, str], Predictions | None], split: str
) -> Iterator[Predictions]:
    for name in names:
        predictions = load(name, split)
        if predictions is None:
            raise FoveaError(f"The predictions of {name} on {split} could not be kept.")
        yield predictions


def _sum(members: Sequence[Outcome]) -> dict[str, Any]:
    """Return parameters and operations of all members together, where all of them are known."""
    total = {}
    for key in ("parameters", "flops"):
        values = [member.cost.get(key) for member in members]
        if None not in values:
            total[key] = sum(value for value in values if value is not None)
    return total


def load_kept(folder: Path, name: str, split: str) -> Predictions | None:
    """Return the predictions of the model ``name`` in ``folder``, None if there are none."""
    place = folder / name / run_folder.PREDICTIONS / f"{split}.npz"
    return Predictions.load(place) if place.is_file() else None


def finish(folder: Path, outcomes: Sequence[Outcome], split: str, **fields: Any) -> None:
    """Write the overview and summary.json.

    Args:
        folder: of all models.
        outcomes: of the models, in the order of their rows.
        split: that was judged.
        fields: of the summary.

    Raises:
        FoveaError: some model failed: names it, after everything is written.
    """
    failed = [outcome.name for outcome in outcomes if outcome.error is not None]
    good = [outcome for outcome in outcomes if outcome.error is None]
    _write_overview(folder, outcomes, split)
    run_folder.write_summary(
        folder,
        state="finished" if good else "failed",
        models=[outcome.record() for outcome in outcomes],
        split=split,
        **fields,
    )
    for outcome in good:
        log.info("  %s", outcome_line(outcome, split))
    if failed:
        count = len(failed) - (ENSEMBLE in failed)
        what = f"{count} of {_models(outcomes)} models" if count else "The mean of them"
        raise FoveaError(
            f"{what} could not be judged; why stands above and in the report: {', '.join(failed)}"
        )


def _models(outcomes: Sequence[Outcome]) -> int:
    """Return how many models these are, of which the ensemble is none."""
    return sum(outcome.name != ENSEMBLE for outcome in outcomes)


def _write_overview(folder: Path, outcomes: Sequence[Outcome], split: str) -> None:
    good = [outcome for outcome in outcomes if outcome.error is None]
    warnings = [f"{o.name} failed: {o.error}" for o in outcomes if o.error is not None]
    if len({outcome.about.get("fingerprint") for outcome in good}) > 1:
        warnings.append(
            "The models were judged on different images, so their scores can't be compared. "
            "data=… gives all of them the same."
        )
    top = ("top1", "95 % from", "to", "top5", "balanced accuracy")
    shares = dict.fromkeys((*top, *_HARDER.values()), ".2%")
    with spared("The overview", folder):
        write_overview(
            folder,
            [outcome.row() for outcome in outcomes],
            f"{_models(outcomes)} models on {split}",
            text="The interval is of the share of right predictions (95 %, Wilson). A multiply-add "
            "is two operations; images/s is of the network alone.",
            folders=[None if outcome.error else outcome.name for outcome in outcomes],
            formats={**shares, "loss": ".4f", "parameters": ",", "images/s": ",.1f"},
            sections=gather_corruptions(folder, [outcome.name for outcome in good]),
            warnings=warnings,
        )


def outcome_line(outcome: Outcome, split: str) -> str:
    """Return name and top-1 with its interval."""
    low, high = wilson(outcome.hits, outcome.samples)
    share = outcome.hits / outcome.samples
    return f"{outcome.name}  {split}/top1 {share:.6f} (95 %: {low:.6f} to {high:.6f})"
