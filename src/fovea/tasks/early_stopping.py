"""Early stopping that a run which is gone on with remembers."""

from __future__ import annotations

from typing import Any

import lightning
from lightning.pytorch import callbacks
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's, with two differences after a resume.

    A run that had been stopped does not begin another epoch, as it would since the trainer forgets
    that it should stop; and ``patience`` is what the configuration says now: raising it lets a run
    that had run out of patience go on.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up best score, epochs waited for, and whether the run had been stopped."""
        patience = self.patience
        super().load_state_dict(state_dict)
        self.patience = patience
        exhausted = self.stopping_reason == EarlyStoppingReason.PATIENCE_EXHAUSTED
        if exhausted and self.wait_count < patience:
            self.stopping_reason = EarlyStoppingReason.NOT_STOPPED

    def on_fit_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Stop before the first step if the run had been stopped."""
        if self.stopping_reason != EarlyStoppingReason.NOT_STOPPED:
            trainer.should_stop = True
