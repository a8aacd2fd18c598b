"""Settings found by trying, before a run: never without a word, and written into its record."""

from pathlib import Path

from omegaconf import DictConfig

from fovea.tuning.batch_size import describe_largest, leave_accumulation_open
from fovea.tuning.learning_rate import tune_lr

__all__ = ["describe_largest", "tune", "tune_lr"]


def tune(cfg: DictConfig, folder: Path) -> None:
    """Find what ``cfg.tune`` asks for, and put it into ``cfg``.

    Args:
        cfg: of the train command; changed in place.
        folder: of the run.

    Raises:
        FoveaError: see `tune_lr`.
    """
    if cfg.tune.batch_size:
        leave_accumulation_open(cfg)
    if cfg.tune.lr:
        tune_lr(cfg, folder)
