"""The counters of a checkpoint, for a run that makes its steps in another number of micro-batches.

The global batch, its order and the number of steps stay the same on any devices (see
`fovea.data.sampling`), and so does the count of micro-batches in an epoch, which is all that
Lightning keeps of the position in the data, unless the accumulation changes.
"""

from __future__ import annotations

from typing import Any

import lightning

from fovea.errors import FoveaError

ACCUMULATION = "accumulate_grad_batches"
_PROGRESS = "epoch_loop.batch_progress"


def store_accumulation(checkpoint: dict[str, Any], trainer: lightning.Trainer) -> None:
    """Note in ``checkpoint`` in how many micro-batches a step is made."""
    checkpoint[ACCUMULATION] = trainer.accumulate_grad_batches


def convert_progress(checkpoint: dict[str, Any], trainer: lightning.Trainer) -> None:
    """Make the count of batches in ``checkpoint`` one of the micro-batches of ``trainer``.

    Raises:
        FoveaError: other settings count micro-batches too, and would now mean another length.
    """
    then, now = checkpoint[ACCUMULATION], trainer.accumulate_grad_batches
    if then == now:
        return
    for name in ("limit_train_batches", "overfit_batches", "val_check_interval"):
        value = getattr(trainer, name)
        if isinstance(value, int) and value > 0:
            raise FoveaError(
                f"trainer.{name}={value} counts micro-batches, of which a step had {then} and would"
                f" have {now}: trainer.{ACCUMULATION} can't change while the run goes on."
            )
    progress = checkpoint["loops"]["fit_loop"][_PROGRESS]
    for counts in (progress["total"], progress["current"]):
        done = counts["completed"]
        for key in counts:  # those begun and not completed stay as many
            counts[key] += done * now // then - done
