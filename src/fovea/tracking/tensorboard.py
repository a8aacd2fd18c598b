"""TensorBoard event files in the run folder."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch.loggers import TensorBoardLogger

from fovea.errors import FoveaError


def tensorboard_logger(save_dir: Path | str) -> TensorBoardLogger:
    """Return Lightning's TensorBoard logger, writing into ``<save_dir>/tensorboard``.

    Raises:
        FoveaError: the tensorboard package is not installed.
    """
    try:
        return TensorBoardLogger(
            save_dir=str(save_dir), name="tensorboard", version="", default_hp_metric=False
        )
    except ModuleNotFoundError as error:
        raise FoveaError(
            "logger=tensorboard needs a package that is not installed: pip install tensorboard"
        ) from error
