"""A network on images under corruption, version by version."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from fovea.data import Corruption, ImageDataModule, StoredCorruptionsDataModule
from fovea.data.corruptions import GROUPS
from fovea.errors import FoveaError
from fovea.evaluation import Predictions
from fovea.evaluation.corruption_error import CLEAN, corruption_scores, measured_row
from fovea.evaluation.tables import write_csv
from fovea.judging.candidates import Candidate
from fovea.judging.harder import TABLE
from fovea.judging.reporting import require_samples
from fovea.machine.no_room import spared

log = logging.getLogger("fovea")

_GROUP_OF = {name: group for group, names in GROUPS.items() for name in names}


@dataclass
class Measured:
    """What a network scored under corruption.

    Attributes:
        marks: columns that have one value for all rows.
        rows: of the long table, see `fovea.evaluation.corruption_error`.
        failed: what could not be measured, and why.
    """

    marks: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def table(self) -> pd.DataFrame | None:
        """The long table; None where nothing that is corrupted was measured."""
        if all(row["corruption"] == CLEAN for row in self.rows):
            return None
        return pd.DataFrame(self.rows).assign(**self.marks)

    def add(self, found: Predictions, model: str, corruption: Corruption | None) -> None:
        """Add the row of a version, or of the images as they are (None)."""
        name, severity = (
            (CLEAN, 0) if corruption is None else (corruption.name, corruption.severity)
        )
        self.rows.append(measured_row(found, model, _GROUP_OF.get(name, CLEAN), name, severity))

    def keep(self, folder: Path) -> None:
        """Write the table, as far as it goes, into ``folder``."""
        if (table := self.table) is not None:
            with spared("The table", folder / TABLE):
                write_csv(table, folder / TABLE)


def measure_corruptions(
    candidate: Candidate,
    predict: Callable[[], Predictions | None],
    seen: Predictions | None,
    folder: Path,
    alone: bool,
) -> Measured:
    """Return what the network scores under each corruption of the candidate's plan.

    Every rank has to call this; rows are there on rank 0 alone. They are kept one by one, so that
    what ends the evaluation leaves those before.

    Args:
        candidate: its ``plan`` says in which order.
        predict: has the network predict the split of the data as they then are, on every rank.
        seen: what it said of the data as they are; None on the other ranks.
        folder: gets the table.
        alone: whether there is one rank. What fails is then noted, and the rest goes on; of
            several ranks one may fail that the others wait for.

    Raises:
        FoveaError: a version can't be read, on several ranks.
    """
    data, plan, split = candidate.data, candidate.plan, candidate.config.split
    stored = isinstance(data, StoredCorruptionsDataModule)
    shown = data.version if isinstance(data, StoredCorruptionsDataModule) else None
    marks = {"unlike_imagenet_c": data.unlike_imagenet_c(split), "made_here": not stored}
    measured = Measured(marks)
    if seen is not None and not stored:
        measured.add(seen, candidate.name, None)
    for number, corruption in enumerate(plan, start=1):
        try:
            found = seen if corruption == shown else _predicted(data, corruption, predict)
        except FoveaError as error:
            if not alone:
                raise
            measured.failed.append(f"{corruption}, was not measured: {error}")
            log.error("  corruption %d/%d  %s", number, len(plan), measured.failed[-1])
            continue
        if found is not None:
            measured.add(found, candidate.name, corruption)
            measured.keep(folder)
            words = (number, len(plan), corruption, measured.rows[-1]["top1"])
            log.info("  corruption %d/%d  %s: top1 %.4f", *words)
    return measured


def _predicted(
    data: ImageDataModule, corruption: Corruption, predict: Callable[[], Predictions | None]
) -> Predictions | None:
    with data.corrupting(corruption):
        found = predict()
    if found is not None:
        require_samples(found)
    return found


def with_corruptions(
    predictions: Predictions, data: ImageDataModule, measured: Measured
) -> Predictions:
    """Return ``predictions`` with the scores under corruption in ``about``, and ``warnings``."""
    about, table = predictions.about, measured.table
    warnings = list(measured.failed)
    if isinstance(data, StoredCorruptionsDataModule) and table is not None:
        warnings.insert(
            0,
            f"The rest of this page is of {data.version}, alone: see 'Under corruption' for all "
            "that was measured.",
        )
        log.info("top1 and all but the errors under corruption are of %s, alone", data.version)
    if not warnings and table is None:
        return predictions
    scores = {} if table is None else corruption_scores(table)
    metrics = about["metrics"] | {f"{about['split']}/{k}": v for k, v in scores.items()}
    about = {**about, "metrics": metrics, "warnings": warnings}
    return dataclasses.replace(predictions, about=about)
