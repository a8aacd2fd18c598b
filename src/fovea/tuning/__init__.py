"""Settings found by trying, before a run: never without a word, and written into its record."""

from fovea.tuning.learning_rate import tune_lr

__all__ = ["tune_lr"]
