"""Trains recipes at toy size through fovea's own `compose` and `build`, and records each step.

``python -m recipes.stepping DATA OUT [NAME ...]`` trains the named recipes, or all, in one
process, and on two ranks with two micro-batches a step each. It writes
``OUT/<name>-<ranks>-rank<R>.pt``.
"""

from __future__ import annotations

import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
from omegaconf import DictConfig, OmegaConf
from timm.layers import DropPath
from torch import Tensor
from torchvision.ops import StochasticDepth

from fovea.catalog import config_dir
from fovea.experiment import build, compose
from fovea.optim import AveragedWeights
from recipes.narrow import put_narrow_networks
from recipes.toys import RECIPES
from tasks.freeze_runs import launch

COMMON = [
    "data.num_workers=0", "logger=none", "trainer.precision=32-true", "channels_last=false",
    "trainer.limit_val_batches=1", "trainer.check_val_every_n_epoch=2", "~callbacks.image_sheets",
    "~callbacks.learning_curves", "~callbacks.throughput",
]  # fmt: skip
"""What makes a run quick and plain; nothing that a recipe is about."""


def norm(tensors: Any) -> float:
    """Return the norm of all values together, summed in double precision."""
    return float(sum(tensor.double().square().sum() for tensor in tensors)) ** 0.5


def floats(module: torch.nn.Module) -> dict[str, Tensor]:
    """Return copies of a module's parameters and buffers, without its counters."""
    state = module.state_dict()
    return {name: t.clone() for name, t in state.items() if t.is_floating_point()}


def drop_rates(module: torch.nn.Module) -> list[float]:
    """Return the chance of each stochastic-depth layer, in the network's order."""
    rates = {DropPath: "drop_prob", StochasticDepth: "p"}
    return [
        getattr(part, attribute)
        for part in module.modules()
        for kind, attribute in rates.items()
        if isinstance(part, kind)
    ]


class Recorder(lightning.Callback):
    """Keeps what a plain loop needs to make the same steps, and what it must arrive at."""

    def __init__(self) -> None:
        self.trace: dict[str, Any] = {
            **{key: [] for key in ("batches", "rates", "losses", "norms", "average_norms")},
            **{key: [] for key in ("trainable", "steps_by_epoch", "sides")},
        }
        self._micro: list[dict[str, Any]] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        groups = trainer.optimizers[0].param_groups
        self.trace["start"] = floats(pl_module)
        self.trace["groups"] = [group["param_names"] for group in groups]
        self.trace["drop_rates"] = drop_rates(pl_module.backbone)
        self.trace["accumulate"] = trainer.accumulate_grad_batches
        # The draws of dropout begin where the network is called.
        pl_module.backbone.register_forward_pre_hook(self._note_draws)

    def _note_draws(self, module: torch.nn.Module, inputs: Any) -> None:
        if torch.is_grad_enabled():
            self._micro[-1]["draws"] = torch.get_rng_state()

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self.trace["steps_by_epoch"].append(0)

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        kept = {"images": batch.images, "labels": batch.labels, "targets": batch.targets}
        self._micro.append(kept)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.trace["rates"].append([group["lr"] for group in optimizer.param_groups])
        self.trace["decay"] = [group["weight_decay"] for group in optimizer.param_groups]

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if trainer.fit_loop._should_accumulate():
            return
        self.trace["batches"].append(self._micro)
        self._micro = []
        self.trace["steps_by_epoch"][-1] += 1
        self.trace["losses"].append(float(pl_module.step_loss.reduce(trainer.strategy)))
        self.trace["norms"].append(norm(p.detach() for p in pl_module.parameters()))
        if average := self._average(trainer):
            self.trace["average_norms"].append(norm(average.parameters()))

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        names = [name for name, p in pl_module.named_parameters() if p.requires_grad]
        self.trace["trainable"].append(names)
        self.trace["end"] = floats(pl_module)
        if average := self._average(trainer):
            self.trace["average"] = floats(average.module)
        self.trace["total_steps"] = trainer.global_step

    def _average(self, trainer: Any) -> Any:
        found = (c._average_model for c in trainer.callbacks if isinstance(c, AveragedWeights))
        return next(found, None)


def composed(name: str, data: Path, out: Path) -> DictConfig:
    """Return what a command line of the recipe and its toy sizes composes, for one process."""
    own = [f"experiment={name}", f"data.root={data / RECIPES[name].data}", f"paths.outputs={out}"]
    own += [f"run_id={name}", "trainer.accelerator=cpu", "trainer.devices=1"]
    return compose([*own, *COMMON, *RECIPES[name].words])


def on_ranks(cfg: DictConfig, world: int) -> DictConfig:
    """Return ``cfg`` for so many ranks and micro-batches: ``trainer=ddp_cpu trainer.devices=..``.

    Composing takes as long as the training does; this is done to what was composed.
    """
    cfg = cfg.copy()
    cfg.paths.run += f"-{world}"
    if world > 1:
        ddp = OmegaConf.load(config_dir() / "trainer" / "ddp_cpu.yaml")
        cfg.trainer.strategy = ddp.strategy
        cfg.trainer.devices = cfg.trainer.accumulate_grad_batches = world
    return cfg


def train(configs: dict[str, DictConfig], out: Path, world: int) -> None:
    """Train the recipes one after another and write their traces."""
    for name, cfg in configs.items():
        recorder = Recorder()
        made = build(on_ranks(cfg, world))
        made.trainer.callbacks.append(recorder)
        made.trainer.fit(made.task, datamodule=made.data)
        recorder.trace["steps_per_epoch"] = made.steps_per_epoch
        recorder.trace["train_images"] = made.data.split_sizes["train"]
        torch.save(recorder.trace, out / f"{name}-{world}-rank{made.trainer.global_rank}.pt")


if __name__ == "__main__":
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    put_narrow_networks()
    configs = {name: composed(name, data, out) for name in sys.argv[3:] or RECIPES}
    for world in (1, 2):
        launch(world, partial(train, configs, out, world))
