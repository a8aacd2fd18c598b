"""What happens when the training loss or a gradient is no number."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer

from fovea.errors import FoveaError
from fovea.machine.no_room import spared
from fovea.optim import AveragedWeights
from fovea.tasks import fault_report
from fovea.tasks.step_loss import StepLeftOut
from fovea.types import Batch

log = logging.getLogger(__name__)

OnNan = Literal["stop", "skip", "restore"]

MAX_REPORTS = 3
"""Steps of which a run keeps batch and report: all are alike, and disks are finite."""


class _Step(NamedTuple):
    """A step that has not been looked at yet; everything on the device."""

    number: int
    faulty: Tensor
    loss: Tensor
    losses: Tensor
    micro_batches: list[dict[str, Tensor]]


class NonFiniteGuard(Callback):
    """Keeps a step whose loss or gradients hold NaN or infinity from being the run's end unseen.

    ``stop`` ends the run, and leaves a report, ``nan/step_<n>.json``, and the batch beside it.
    ``skip`` makes no optimiser step: weights, optimiser, averaged weights and running statistics
    stay as they were, and the count of steps, the schedule and the position in the data go on.
    ``restore`` does so too, and takes weights, optimiser, averaged weights and statistics back to
    the last checkpoint; count, schedule and data go on past the step. (Chowdhery et al. 2022, PaLM,
    section 5.1: an earlier checkpoint and other batches get over what the same batches do not.)

    Both look at each step, for which a GPU has to be waited for. ``stop`` looks on a GPU only at
    the steps that are logged, before a checkpoint is saved and at an epoch's end: it names the
    first bad step, while the statistics are those of the moment. A checkpoint never holds what
    came after a bad step. With ``16-mixed`` precision infinite gradients are the loss scaler's
    business; only the loss is looked at.

    What it does is a function of seed, configuration and, for ``restore``, of the last checkpoint:
    a run that is cut and resumed does the same, but after ``restore`` only if the cut did not leave
    a newer checkpoint to go back to.

    Args:
        on_nan: what to do.
        limit: after so many steps in a row that ``skip`` left out, or so many restores in a run,
            it stops as well.
        folder: of the run; None keeps no files.
        last_checkpoint: returns the one to go back to, None where there is none yet.
    """

    def __init__(
        self,
        on_nan: OnNan = "stop",
        limit: int = 10,
        folder: Path | None = None,
        last_checkpoint: Callable[[], Path | None] = lambda: None,
    ) -> None:
        self.on_nan: OnNan = on_nan
        self.limit = limit
        self.folder = folder
        self.last_checkpoint = last_checkpoint
        self.left_out = 0
        self.in_a_row = 0
        self._micro_batches: list[dict[str, Tensor]] = []
        self._unseen: list[_Step] = []
        self._buffers: list[Tensor] = []

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run goes on counting from."""
        return {"left_out": self.left_out, "in_a_row": self.in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what `state_dict` gave."""
        self.left_out, self.in_a_row = state_dict["left_out"], state_dict["in_a_row"]

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Begin with no steps."""
        self._micro_batches, self._unseen = [], []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Note which samples the step sees, and what the forward passes will change."""
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._micro_batches = []
            if self.on_nan != "stop":
                self._buffers = [buffer.detach().clone() for buffer in pl_module.buffers()]
        kept = {"indices": batch.indices, "labels": batch.labels, "seeds": batch.seeds}
        self._micro_batches.append({k: v for k, v in kept.items() if v is not None})

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: Any, optimizer: Optimizer
    ) -> None:
        """Look at loss and gradients, before they are clipped and the weights moved.

        Raises:
            StepLeftOut: the optimiser must not move anything; `Task.optimizer_step` catches it.
            FoveaError: the run ends; all ranks raise it together.
        """
        if (faulty := _gradients_faulty(trainer, optimizer)) is not None:
            pl_module.step_loss.note_fault(faulty)
        self._unseen.append(
            _Step(
                trainer.global_step,
                pl_module.step_loss.faulty(trainer.strategy),
                pl_module.step_loss.reduce(trainer.strategy),
                pl_module.step_loss.of_micro_batches(),
                self._micro_batches,
            )
        )
        logged = (trainer.global_step + 1) % trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
        each = self.on_nan != "stop" or pl_module.device.type == "cpu"
        if each or logged or trainer.is_last_batch:
            self._look(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Log how many steps the run has left out so far."""
        if self.on_nan != "stop":
            pl_module.log_once("train/skipped_steps", float(self.left_out))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: Any, checkpoint: Any) -> None:
        """Look before anything is written: a checkpoint is a good one."""
        self._look(trainer, pl_module)

    def _look(self, trainer: Trainer, task: Any) -> None:
        """Read off the device whether a step was bad, and act on the first that was."""
        steps, self._unseen = self._unseen, []
        bad = torch.stack([step.faulty for step in steps]).tolist() if steps else []
        if True not in bad:
            if steps:
                self.in_a_row = 0
            return
        step = steps[bad.index(True)]
        if self.on_nan == "stop":
            self._stop(trainer, task, step)
        self._leave_out(trainer, task, step)

    def _leave_out(self, trainer: Trainer, task: Any, step: _Step) -> NoReturn:
        """Undo what the forward passes changed; for ``restore`` also go back."""
        self.left_out += 1
        self.in_a_row += 1
        if (self.left_out if self.on_nan == "restore" else self.in_a_row) > self.limit:
            self._stop(trainer, task, step)
        source = None
        if self.on_nan == "restore":
            source = self.last_checkpoint()
            if source is None:
                self._stop(trainer, task, step)
        kept = self._keep(trainer, task, step) if self.left_out <= MAX_REPORTS else ""
        with torch.no_grad():
            for buffer, before in zip(task.buffers(), self._buffers, strict=True):
                buffer.copy_(before)
        if source is not None:
            restore(trainer, source)
        trainer.optimizers[0].zero_grad(set_to_none=True)
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is not None:  # what `scaler.step` would have led to
            scaler.update()
        back = f", and back to {source.name}" if source is not None else ""
        log.warning("%s: left out%s (%d so far).%s", _what(step), back, self.left_out, kept)
        raise StepLeftOut

    def _stop(self, trainer: Trainer, task: Any, step: _Step) -> NoReturn:
        kept = self._keep(trainer, task, step)
        trainer.strategy.barrier("fault_report")  # a rank that ends takes the others with it
        what = _what(step)
        if not trainer.is_global_zero:
            raise FoveaError(f"{what} (this is rank {trainer.global_rank}, rank 0 says more)")
        if self.on_nan == "restore" and self.left_out <= self.limit:
            what += ", before there was a checkpoint to go back to"
        elif self.on_nan != "stop":
            what += f", and on_nan_limit={self.limit} is reached"
        instead = ", or on_nan=skip to leave such steps out" if self.on_nan == "stop" else ""
        raise FoveaError(
            f"{what}. Try a lower optimizer.lr, a longer scheduler.warmup_epochs, or "
            f"trainer.gradient_clip_val=1{instead}.{kept}"
        )

    def _keep(self, trainer: Trainer, task: Any, step: _Step) -> str:
        """Write the report and this rank's batch; return where they are. All ranks come here."""
        if self.folder is None:
            return ""
        dataset = getattr(trainer.train_dataloader, "dataset", None)
        rows = fault_report.micro_batch_rows(
            trainer.global_rank, step.micro_batches, step.losses, dataset
        )
        stem = self.folder / "nan" / f"step_{step.number}"
        batch = stem.with_name(f"{stem.name}_rank{trainer.global_rank}.pt")
        with spared("The batch", batch):
            fault_report.save_batch(batch, step.micro_batches, dataset, task.current_epoch)
        report = {
            "step": step.number,
            "seen_at_step": trainer.global_step,
            "epoch": trainer.current_epoch,
            "loss": float(step.loss),
            "lr": max(group["lr"] for group in trainer.optimizers[0].param_groups),
            "precision": trainer.precision,
            "on_nan": self.on_nan,
            **fault_report.describe_model(task),
            "micro_batches": rows,
        }
        if trainer.is_global_zero:
            with spared("The report", stem):
                fault_report.write_report(stem.with_suffix(".json"), report)
        return fault_report.where(stem.with_suffix(".json"), batch, report)


def restore(trainer: Trainer, path: Path) -> None:
    """Give network, averaged weights and optimiser the values of a checkpoint, and nothing else."""
    strategy = trainer.strategy
    checkpoint = strategy.load_checkpoint(path, weights_only=True)
    strategy.load_model_state_dict(checkpoint, strict=True)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, AveragedWeights):
            callback.on_load_checkpoint(trainer, trainer.lightning_module, checkpoint)
    strategy.load_optimizer_state_dict(checkpoint)


def _gradients_faulty(trainer: Trainer, optimizer: Optimizer) -> Tensor | None:
    """Return whether this rank's gradients hold NaN or infinity; None if it need not be known."""
    if getattr(trainer.precision_plugin, "scaler", None) is not None:
        return None
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    gradients = [p.grad for p in parameters if p.grad is not None]
    # Squares that overflow count as well: so would the optimiser's. (The norm is fast everywhere;
    # the largest absolute value takes a CPU fifty times as long.)
    return ~torch.nn.utils.get_total_norm(gradients).isfinite()


def _what(step: _Step) -> str:
    where = f"became NaN or infinite at step {step.number}"
    if step.loss.isfinite():
        return f"A gradient {where} (training loss {float(step.loss):.4g})"
    return f"The training loss {where}"
