"""What every task shares: optimiser, schedules, freezing, compilation, and the training step."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from fovea.errors import FoveaError
from fovea.evaluation import Predictions
from fovea.optim import (
    BoundFreeze,
    FreezeSchedule,
    LearningRates,
    NoDecay,
    Schedule,
    assign_stages,
    count_steps,
    decay_rule,
    match_scales,
    param_groups,
    restart_untouched_groups,
    steps_in_run,
)
from fovea.tasks import replicas, resuming
from fovea.tasks.compiling import compile_in_place
from fovea.tasks.nonfinite import NonFiniteGuard
from fovea.tasks.step_loss import StepLeftOut, StepLoss
from fovea.types import Batch

log = logging.getLogger(__name__)

TRAIN_EVERYTHING = FreezeSchedule([{"epoch": 0, "stages": {"*": 1.0}}])


class Task(lightning.LightningModule):
    """A backbone and a head in training. A task of one's own says what is learned.

    A subclass defines `training_loss` and its evaluation steps; it gets optimiser, learning rates,
    freeze schedule, compilation, and ``train/loss`` from here.

    Args:
        backbone: images -> features, with ``stages`` (see `fovea.models.Backbone`).
        head: features -> what the task needs.
        optimizer: ``functools.partial`` of an optimiser class with at least ``lr``. None will do
            for evaluation.
        schedule: factor on the learning rate of each step. None will do for evaluation.
        freeze: None trains everything.
        layer_decay: factor on the learning rate from one stage to the one below; see
            `fovea.optim.layer_scales`.
        no_decay: what weight decay spares; see `fovea.optim.decay_rule`.
        param_scales: factors on rate and decay by parameter name; see `fovea.optim.match_scales`.
        compile: whether to compile backbone and head, or the name of a ``torch.compile`` backend.
            Where that is not possible it is left out, with a warning.
        channels_last: whether to keep the weights of the backbone in channels_last.
        seed: of dropout, stochastic depth and the like.

    Attributes:
        step_loss: of the optimiser step that is being made.
        step_left_out: whether the last optimiser step was not made, see `NonFiniteGuard`.
        test_split: which split the test loop goes through, and the name its scores are logged by.
        predictions: what the network said in the last test, None before it or without labels.
        class_names: of the predictions.
    """

    step_left_out: bool = False
    test_split: str = "test"
    predictions: Predictions | None = None
    class_names: list[str]

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        *,
        optimizer: Callable[..., Optimizer] | None = None,
        schedule: Schedule | None = None,
        freeze: FreezeSchedule | None = None,
        layer_decay: float = 1.0,
        no_decay: NoDecay = "norms_and_biases",
        param_scales: Sequence[Mapping[str, Any]] = (),
        compile: bool | str = False,
        channels_last: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.make_optimizer = optimizer
        self.schedule = schedule
        self.freeze_schedule = freeze or TRAIN_EVERYTHING
        self.layer_decay = layer_decay
        self.no_decay: NoDecay = no_decay
        self.param_scales = param_scales
        self.compile_backend = "inductor" if compile is True else compile
        self.channels_last = channels_last
        self.seed = seed
        self._compiled = False
        self._frozen: BoundFreeze | None = None
        self._groups: list[dict[str, Any]] = []
        self._rates: LearningRates | None = None
        self._stepped = False
        self.step_loss = StepLoss()

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; what Lightning sets dozens of times a step is known to be no module."""
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def metric_names(self) -> list[str]:
        """Return what the task logs and may be monitored; a subclass adds its own."""
        return ["train/loss"]

    def forward(self, images: Tensor) -> Tensor:
        """Return the head's output for ``images`` (B, C, H, W) float, normalised."""
        output: Tensor = self.head(self.backbone(images))
        return output

    def training_loss(self, batch: Batch) -> Tensor:
        """Return the mean loss over the batch, a scalar that can be differentiated."""
        raise NotImplementedError

    def parts(self) -> dict[str, dict[str, int]]:
        """Return stage -> {parameter name: number of values}, stem first, ``head`` last."""
        stages: dict[str, Sequence[str]] = self.backbone.stages  # type: ignore[assignment]
        prefixes = {name: [f"backbone.{p}" for p in stage] for name, stage in stages.items()}
        sizes = {name: p.numel() for name, p in replicas.named_parameters(self)}
        assigned = assign_stages(sizes, prefixes | {"head": ["head"]})
        return {stage: {name: sizes[name] for name in names} for stage, names in assigned.items()}

    def freeze_table(self, max_epochs: int) -> list[tuple[str, str]]:
        """Return a row (epochs, what trains) for each phase of a run of ``max_epochs``."""
        return self.freeze_schedule.bind(self.parts(), max_epochs).table()

    def describe(
        self,
        max_epochs: int | None = None,
        steps_per_epoch: int | None = None,
        max_steps: int = -1,
    ) -> list[tuple[str, str]]:
        """Return rows (what, how) for the summary of a run, the more the more is known of it."""
        rows = []
        if isinstance(self.make_optimizer, partial):
            settings = ", ".join(f"{k} {v}" for k, v in self.make_optimizer.keywords.items())
            rows.append(("optimizer", f"{self.make_optimizer.func.__name__}: {settings}"))
        if self.schedule is not None and max_epochs and steps_per_epoch:
            total = steps_in_run(max_epochs, steps_per_epoch, max_steps)
            rows.append(("schedule", self.schedule.describe(total, steps_per_epoch)))
        if self.layer_decay != 1:
            rows.append(("layer decay", f"{self.layer_decay:g} a stage, from the head down"))
        if self.no_decay != "norms_and_biases":
            spared = self.no_decay if isinstance(self.no_decay, str) else ", ".join(self.no_decay)
            rows.append(("no decay", spared.replace("_", " ")))
        for rule in self.param_scales:
            how = f"rate x{rule['lr']:g}, decay x{rule['weight_decay']:g}"
            rows.append(("parameters", f"{rule['names']}: {how}"))
        if self.compile_backend:
            rows.append(("compile", str(self.compile_backend)))
        if max_epochs:
            rows += [(f"train, {span}", what) for span, what in self.freeze_table(max_epochs)]
        return rows

    def configure_callbacks(self) -> list[Callback]:
        """Return a guard against losses that are no numbers, unless the trainer has one."""
        present = any(isinstance(c, NonFiniteGuard) for c in self.trainer.callbacks)  # type: ignore[attr-defined]
        return [] if present else [NonFiniteGuard()]

    def setup(self, stage: str) -> None:
        """Convert, compile, and freeze what is frozen in epoch 0.

        Lightning calls this before it restores a checkpoint and before DDP wraps the module.
        """
        if self.channels_last:
            self.backbone.to(memory_format=torch.channels_last)
        if self.compile_backend and not self._compiled:
            device = self.trainer.strategy.root_device
            modules = [self.backbone, self.head]
            self._compiled = compile_in_place(modules, self.compile_backend, device)
            if not self._compiled:  # that was said, and is not tried again for evaluation
                self.compile_backend = False
        if stage == "fit":
            self._frozen = self._bind_freeze_schedule()
            self._groups = self._make_groups(self._frozen)
            replicas.set_trainable(self, self._frozen.trainable(0))
            self.step_loss = StepLoss()
            self.step_left_out = False

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return the optimiser, with all parameters from the start, and its learning rates."""
        assert self._frozen is not None
        assert self.make_optimizer is not None
        assert self.schedule is not None
        optimizer = self.make_optimizer(self._groups)
        self._rates = LearningRates(self.schedule, self._frozen)
        scheduler = self._rates.scheduler(optimizer)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def on_train_start(self) -> None:
        """Take up the state that belongs to the current epoch: the first, or that of a resume."""
        # Only now are the loops restored and the batches counted. Asking Lightning for the number
        # of steps any earlier would start the loaders of a resumed run at the wrong batch.
        scheduler = self.lr_schedulers()
        assert self._rates is not None
        if isinstance(scheduler, LambdaLR):
            self._rates.start(scheduler, *count_steps(self.trainer))
        # Else it is that of a learning-rate finder, which sets the rates by itself.
        # Of a checkpoint made when a batch was at hand; Lightning would count that batch twice.
        total = self.trainer.fit_loop.epoch_loop.batch_progress.total
        total.ready = total.started  # type: ignore[attr-defined]
        replicas.sum_in_fixed_order(self.trainer.strategy)
        self._enter_epoch()
        self.train()

    def on_train_epoch_start(self) -> None:
        """Take up the state that belongs to the epoch that begins."""
        self._enter_epoch()

    def epoch_scores(self) -> dict[str, Tensor]:
        """Return what was counted in the training of this epoch by metric name; begin anew."""
        return {}

    def running_scores(self) -> dict[str, Tensor]:
        """Return the last step's loss, and what this rank counted so far in this epoch."""
        loss = self.step_loss.last
        return {} if loss is None else {"train/loss": loss}

    def on_train_epoch_end(self) -> None:
        """Log the scores of the epoch, and how many parameters trained in it."""
        trainable = sum(p.numel() for p in self.parameters() if p.requires_grad)
        scores = {name: float(score) for name, score in self.epoch_scores().items()}
        scores["train/trainable_parameters"] = float(trainable)
        for name, score in scores.items():
            self.log_once(name, score, logger=False)
        # At once: Lightning would do it after the checkpoints of this hook, which would then be
        # checkpoints of an epoch whose row is not complete.
        for logger in self.loggers:
            logger.log_metrics({"epoch": self.current_epoch, **scores}, step=self.global_step - 1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store what a run that goes on, perhaps on other devices, has to know."""
        resuming.store_accumulation(checkpoint, self.trainer)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Fit the position in the data to the devices that the run goes on with."""
        resuming.convert_progress(checkpoint, self.trainer)

    def train(self, mode: bool = True) -> Task:
        """Set the mode of all modules; frozen norms with running statistics stay in eval mode."""
        super().train(mode)
        if mode and self._frozen is not None:
            replicas.hold_frozen_norms(self)
        return self

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Make the random draws of this step independent of all that came before."""
        # The step that loggers get; after a resume Lightning guesses it, at times one too many.
        self.trainer.fit_loop.epoch_loop._batches_that_stepped = self.trainer.global_step
        self._stepped = False
        place = (self.current_epoch, batch_idx, self.global_rank)
        replicas.seed_step(self.seed, *place, self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one micro-batch."""
        loss = self.training_loss(batch)
        self.step_loss.add(loss)
        return loss

    # Lightning asks for the parameters of this hook in every step, and to find them out is slow.
    training_step.__signature__ = inspect.signature(training_step)  # type: ignore[attr-defined]

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then make the ranks agree on the running statistics."""
        self.step_left_out = False
        try:
            super().optimizer_step(*args, **kwargs)
            restart_untouched_groups(self.trainer.optimizers[0])
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                replicas.average_statistics(self)
        except StepLeftOut:
            self.step_left_out = True
        self._stepped = True

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log loss and rate of a step where anybody looks at them.

        That is where loggers write, and where a validation or the epoch's end follows. To take them
        at each step costs Lightning as much time as a small network's step.
        """
        trainer = self.trainer
        every = trainer.val_check_batch if trainer.check_val_every_n_epoch else 1  # None: by time
        validates = not every or (batch_idx + 1) % every == 0
        logs = trainer._logger_connector.should_update_logs
        if not self._stepped or not (logs or validates or trainer.is_last_batch):
            return
        assert self._rates is not None
        loss = self.step_loss.reduce(trainer.strategy)
        lr = self._optimizer_setting("lr") * self._rates.factor(self.global_step - 1)
        # Not `prog_bar`: Lightning would wait for the device at each step to make a number of it.
        self.log("train/loss", loss, on_step=True, on_epoch=False)
        self.log("train/lr", lr, on_step=True, on_epoch=False)

    def log_once(
        self, name: str, value: Tensor | float, prog_bar: bool = False, logger: bool = True
    ) -> None:
        """Log a number of an epoch that all ranks hold already, without changing one bit of it."""
        value = torch.as_tensor(value, dtype=torch.float32, device=self.device)
        # Not a mean over ranks: that of three equal values may differ in the last place.
        self.log(
            name, value, on_step=False, on_epoch=True, sync_dist=True, reduce_fx="max",
            batch_size=1, prog_bar=prog_bar, logger=logger,
        )  # fmt: skip

    def _bind_freeze_schedule(self) -> BoundFreeze:
        max_epochs = self.trainer.max_epochs
        if max_epochs is None or max_epochs < 1:
            raise FoveaError(
                "trainer.max_epochs is not set: schedules need the length of the run, e.g. "
                "trainer.max_epochs=20."
            )
        freeze = self.freeze_schedule.bind(self.parts(), max_epochs)
        strategy = self.trainer.strategy
        if freeze.changes and not replicas.can_rewrap(strategy):
            raise FoveaError(
                f"freeze thaws or freezes stages during the run, which {type(strategy).__name__} "
                "cannot do. Use freeze=none or freeze=head_only, or trainer=ddp."
            )
        for number in freeze.unreached():
            log.warning(
                "freeze.phases[%d] is not reached: it begins at epoch %d, and the run has %d.",
                *(number, freeze.starts[number], max_epochs),
            )
        return freeze

    def _make_groups(self, freeze: BoundFreeze) -> list[dict[str, Any]]:
        """Return the parameter groups; in `setup`, since FSDP flattens parameters later on."""
        if self.make_optimizer is None or self.schedule is None:
            raise FoveaError("Training needs an optimizer and a schedule, and one was not given.")
        names = {f"backbone.{name}" for name in self.backbone.no_weight_decay()}  # type: ignore[operator]
        return param_groups(
            self.named_parameters(),
            self.parts(),
            lr=self._optimizer_setting("lr"),
            weight_decay=self._optimizer_setting("weight_decay", 0.0),
            layer_decay=self.layer_decay,
            split_by=freeze.histories(),
            decay_rule=decay_rule(self, self.no_decay, names),
            param_scales=match_scales(list(freeze.histories()), self.param_scales),
        )

    def _optimizer_setting(self, name: str, default: float | None = None) -> float:
        value = getattr(self.make_optimizer, "keywords", {}).get(name, default)
        if value is None:
            raise FoveaError(
                f"The optimizer has no {name}. Give functools.partial(torch.optim.SGD, lr=0.1), or "
                "in YAML `_partial_: true` and `lr`."
            )
        return float(value)

    def _enter_epoch(self) -> None:
        """Freeze what the current epoch wants frozen, however the run came there."""
        assert self._frozen is not None
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, Optimizer)
        if replicas.set_trainable(self, self._frozen.trainable(self.current_epoch)):
            optimizer.zero_grad(set_to_none=True)
            if self._compiled:
                torch._dynamo.reset()  # the graphs of the last phase would only fill up its cache
            replicas.rewrap(self.trainer)
        self._validate_at_last_step()
        self.train(self.training)

    def _validate_at_last_step(self) -> None:
        """Have an epoch that ``max_steps`` cuts short validated at its end: Lightning would not."""
        trainer = self.trainer
        total, steps_per_epoch = count_steps(trainer)
        batches = (total - self.current_epoch * steps_per_epoch) * trainer.accumulate_grad_batches
        if 0 < batches < trainer.num_training_batches == trainer.val_check_batch:
            trainer.val_check_batch = batches
