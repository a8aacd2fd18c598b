"""TensorBoard event files in the run folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from fovea.errors import FoveaError
from fovea.machine.no_room import spared


def tensorboard_logger(save_dir: Path | str) -> TensorBoardRun:
    """Return a TensorBoard logger that writes into ``<save_dir>/tensorboard``.

    Raises:
        FoveaError: the tensorboard package is not installed.
    """
    try:
        return TensorBoardRun(
            save_dir=str(save_dir), name="tensorboard", version="", default_hp_metric=False
        )
    except ModuleNotFoundError as error:
        raise FoveaError(
            "logger=tensorboard needs a package that is not installed: pip install tensorboard"
        ) from error


class TensorBoardRun(TensorBoardLogger):
    """Lightning's logger, which a full disk cannot stop: it is said once, and nothing more written.

    Its writer is a thread that ends at the first error, so there is no going on later.
    """

    _stopped = False

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add a point to the curves."""
        self._try(super().log_metrics, dict(metrics), step)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Write the run's configuration."""
        self._try(super().log_hyperparams, *args, **kwargs)

    def log_figure(self, name: str, path: Path) -> None:
        """Add the picture in the file ``path``."""
        self._try(self._add_figure, name, path)

    def log_table(self, name: str, table: pd.DataFrame) -> None:
        """Add ``table`` as text; empty cells stay empty."""
        lines = [list(table.columns), ["---"] * len(table.columns), *table.itertuples(index=False)]
        text = "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)
        self._try(lambda: self.experiment.add_text(name, text))

    def save(self) -> None:
        """Write what is pending."""
        self._try(super().save)

    def finalize(self, status: str) -> None:
        """Close the files."""
        self._try(super().finalize, status)

    def _add_figure(self, name: str, path: Path) -> None:
        pixels = np.asarray(Image.open(path).convert("RGB"))
        self.experiment.add_image(name, pixels, dataformats="HWC")

    @rank_zero_only
    def _try(self, write: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        if self._stopped:
            return
        self._stopped = True
        with spared("TensorBoard's events", Path(self.log_dir)):
            try:
                write(*args, **kwargs)
            except ValueError as error:  # Lightning takes any error for a wrong type
                raise (error.__cause__ if isinstance(error.__cause__, OSError) else error) from None
            self._stopped = False


def _cell(value: Any) -> str:
    """Return ``value`` for a cell of a Markdown table."""
    if isinstance(value, float):
        return "" if value != value else f"{value:.6g}"
    return str(value).replace("|", "\\|").replace("\n", " ")
