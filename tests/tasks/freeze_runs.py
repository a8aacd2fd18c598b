"""Training runs of a tiny network, dumped at every epoch: the tests start them as real processes.

``python freeze_runs.py OUT WORLD:NAME,NAME... [WORLD:...]`` runs the named scenarios on WORLD
ranks. A name is a scenario, or ``scenario@checkpoint`` to go on from a checkpoint of it. The dump
of an epoch holds everything that has to be equal on all ranks.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import timm.optim
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from fovea.optim import AveragedWeights, CosineSchedule, FreezeSchedule
from fovea.tasks import ClassificationTask
from fovea.types import Batch

GLOBAL_BATCH = 24
STEPS = 3
EPOCHS = 4
CLASSES = 7

OPTIMIZERS = {
    "sgd": partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=0.1, nesterov=True),
    "adamw": partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1),
    "lamb": partial(timm.optim.Lamb, lr=0.02, weight_decay=0.1),
}
GRADUAL = [
    {"epoch": 0, "stages": {"head": 1.0, "*": "frozen"}},
    {"epoch": 1, "stages": {"head": 1.0, "last": 0.5, "*": "frozen"}},
    {"epoch": "75%", "stages": {"head": 0.5, "*": 0.2}},
]
# The head rests in the middle, and so does the stem after it has trained.
BACK_AND_FORTH = [
    {"epoch": 0, "stages": {"stem": 1.0, "head": 1.0, "*": "frozen"}},
    {"epoch": 1, "stages": {"head": "frozen", "stem": "frozen", "*": 1.0}},
    {"epoch": 3, "stages": {"*": 1.0}},
]


class TinyBackbone(nn.Module):
    """Three stages of a 3x3 convolution, a norm layer (or none) and dropout (or none)."""

    def __init__(self, norm: str, dropout: float) -> None:
        super().__init__()
        self.net = nn.Sequential()
        for name, inputs in (("stem", 3), ("middle", 6), ("last", 6)):
            bias = norm == "none"  # a norm layer takes it out again
            layers: list[nn.Module] = [nn.Conv2d(inputs, 6, 3, padding=1, bias=bias)]
            layers += [nn.BatchNorm2d(6)] if norm == "batch" else []
            layers += [nn.Tanh(), nn.Dropout(dropout)]
            self.net.add_module(name, nn.Sequential(*layers))
        self.num_features = 6
        self.stages = {name: [f"net.{name}"] for name in ("stem", "middle", "last")}

    def no_weight_decay(self) -> set[str]:
        return set()

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images).mean(dim=(2, 3))


@dataclass(frozen=True)
class Scenario:
    optimizer: str = "sgd"
    norm: str = "none"
    dropout: float = 0.0
    accumulate: int = 1
    ema: bool = False
    compile: bool | str = False
    phases: list[dict[str, Any]] = field(default_factory=lambda: GRADUAL)
    loss: str = "cross_entropy"


PLAIN = Scenario()
EVERYTHING = Scenario(
    "adamw", norm="batch", dropout=0.2, accumulate=2, ema=True, compile="aot_eager"
)
SCENARIOS = {
    "sgd": PLAIN,
    "adamw": Scenario("adamw"),
    "lamb": Scenario("lamb"),
    "accumulate": Scenario(accumulate=2),
    "batchnorm": Scenario(norm="batch"),
    "batchnorm_adamw": Scenario("adamw", norm="batch"),
    "batchnorm_lamb": Scenario("lamb", norm="batch"),
    "back_and_forth": Scenario("adamw", norm="batch", phases=BACK_AND_FORTH),
    "ema": Scenario(norm="batch", ema=True),
    "compile": Scenario(norm="batch", compile="aot_eager"),
    "inductor": Scenario(norm="batch", compile=True),
    "everything": EVERYTHING,
}


class Samples(Dataset[tuple[Tensor, ...]]):
    """Noise with a class-dependent mean; the same on every rank."""

    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.randint(CLASSES, (count,), generator=generator)
        means = torch.randn(CLASSES, 3, 1, 1, generator=torch.Generator().manual_seed(0))
        noise = torch.randn(count, 3, 6, 6, generator=generator)
        self.images = noise + means[self.labels]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        if index < 0:  # fills up the last batch of a rank; a wrong label, should it be counted
            return torch.zeros(3, 6, 6), torch.tensor(0), torch.tensor(-1)
        return self.images[index], self.labels[index], torch.tensor(index)


class Slices:
    """Batches of one rank: its slices of every global batch, in the order of micro-batches.

    ``start`` says how many batches of the epoch a resumed run has behind it.
    """

    def __init__(self, count: int, size: int, rank: int, world: int) -> None:
        indices = list(range(count)) + [-1] * (-count % (size * world))
        groups = [indices[i : i + size] for i in range(0, len(indices), size)]
        self.batches = groups[rank::world]
        self.start: Callable[[], int] = lambda: 0

    def __iter__(self) -> Iterator[list[int]]:
        yield from self.batches[self.start() :]

    def __len__(self) -> int:
        return len(self.batches)


def collate(samples: list[tuple[Tensor, ...]]) -> Batch:
    images, labels, indices = (torch.stack(column) for column in zip(*samples, strict=True))
    return Batch(images, labels, indices)


def loader(samples: Samples, size: int, world: int) -> DataLoader[Batch]:
    rank = int(os.environ.get("LOCAL_RANK", 0))
    batches = Slices(len(samples), size, rank, world)
    return DataLoader(samples, batch_sampler=batches, collate_fn=collate)


class Dump(lightning.Callback):
    """Writes what the ranks have to agree on after every epoch, and each step's loss at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.losses: list[float] = []
        self.rates: list[list[float]] = []

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        self._save("start", self._content(trainer, pl_module), trainer)

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        self.rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if not trainer.fit_loop._should_accumulate():
            self.losses.append(float(pl_module.step_loss.reduce(trainer.strategy)))

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self._save(f"epoch{trainer.current_epoch}", self._content(trainer, pl_module), trainer)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        scores = {n: float(v) for n, v in trainer.callback_metrics.items() if n.startswith("val/")}
        content = {"losses": self.losses, "rates": self.rates, "scores": scores}
        content["final"] = pl_module.state_dict()
        self._save("end", content, trainer)

    def _content(self, trainer: Any, pl_module: Any) -> dict[str, Any]:
        average = next(
            (c._average_model for c in trainer.callbacks if isinstance(c, AveragedWeights)), None
        )
        return {
            "parameters": {n: p.detach().clone() for n, p in pl_module.named_parameters()},
            "buffers": {n: b.clone() for n, b in pl_module.named_buffers()},
            "optimizer": trainer.optimizers[0].state_dict(),
            "average": average.module.state_dict() if average else {},
            "trainable": [n for n, p in pl_module.named_parameters() if p.requires_grad],
        }

    def _save(self, name: str, content: dict[str, Any], trainer: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        torch.save(content, self.folder / f"{name}-rank{trainer.global_rank}.pt")


class Checkpoints(ModelCheckpoint):
    """Several may be in one run, though they differ only in when they save."""

    @property
    def state_key(self) -> str:
        return f"{super().state_key}{self.filename}"


def make_task(scenario: Scenario) -> ClassificationTask:
    torch.manual_seed(1)
    head = nn.Linear(6, CLASSES)
    nn.init.normal_(head.weight)
    return ClassificationTask(
        TinyBackbone(scenario.norm, scenario.dropout),
        head,
        CLASSES,
        [f"class {i}" for i in range(CLASSES)],
        optimizer=OPTIMIZERS[scenario.optimizer],
        schedule=CosineSchedule(warmup_steps=2),
        freeze=FreezeSchedule(scenario.phases),
        loss=scenario.loss,
        compile=scenario.compile,
        seed=3,
    )


def make_trainer(world: int, **settings: Any) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator="cpu",
        devices=world,
        strategy=DDPStrategy(process_group_backend="gloo") if world > 1 else "auto",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **settings,
    )


def train(scenario: Scenario, folder: Path, world: int, resume: Path | None) -> None:
    keep = partial(
        Checkpoints, folder / "checkpoints", save_top_k=-1, auto_insert_metric_name=False
    )
    trainer = make_trainer(
        world,
        max_epochs=EPOCHS,
        accumulate_grad_batches=scenario.accumulate,
        log_every_n_steps=1,
        callbacks=[
            Dump(folder),
            keep("epoch{epoch}", save_on_train_epoch_end=True),
            keep("validation{epoch}", save_on_train_epoch_end=False),
            keep("step{step}", every_n_train_steps=2),
            *([AveragedWeights(decay=0.8)] if scenario.ema else []),
        ],
    )
    size = GLOBAL_BATCH // world // scenario.accumulate
    batches = loader(Samples(GLOBAL_BATCH * STEPS, 5), size, world)
    progress = trainer.fit_loop.epoch_loop.batch_progress
    batches.batch_sampler.start = lambda: progress.current.ready
    val = loader(Samples(37, 6), 5, world)
    trainer.fit(make_task(scenario), batches, val, ckpt_path=resume, weights_only=True)


def evaluate(folder: Path, world: int) -> None:
    """Judge untrained weights on 37 samples, which do not divide among ranks and batches."""
    task, trainer = make_task(PLAIN), make_trainer(world)
    batches = loader(Samples(37, 6), 5, world)
    trainer.validate(task, batches, verbose=False)
    content = {"validate": dict(trainer.callback_metrics)}
    trainer.test(task, batches, verbose=False)
    content["test"] = dict(trainer.callback_metrics)
    content["predictions"] = vars(task.predictions)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(content, folder / f"end-rank{trainer.global_rank}.pt")


def work(world: int, out: Path, names: list[str]) -> None:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    for name in names:
        base, _, resumed = name.partition("@")
        checkpoint = out / base / "checkpoints" / f"{resumed}.ckpt" if resumed else None
        if name == "evaluate":
            evaluate(out / name, world)
        else:
            train(SCENARIOS[base], out / name, world, checkpoint)


def start(rank: int, world: int, port: int, job: Callable[[], None]) -> int:
    """Return the process id of a rank; forked, so that the libraries are imported only once."""
    pid = os.fork()
    if pid:
        return pid
    if world > 1:
        os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": str(world)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    failed = 1
    try:
        job()
        failed = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(failed)


def launch(world: int, job: Callable[[], None]) -> None:
    """Run ``job`` on every rank; if one fails, end the others."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = {start(rank, world, port, job) for rank in range(world)}
    while ranks:
        pid, status = os.wait()
        ranks.discard(pid)
        if status:
            for other in ranks:
                os.kill(other, signal.SIGKILL)
            sys.exit(f"a rank of {world} failed")


if __name__ == "__main__":
    for argument in sys.argv[2:]:
        size, _, scenarios = argument.partition(":")
        folder = Path(sys.argv[1]) / f"world{size}"
        launch(int(size), partial(work, int(size), folder, scenarios.split(",")))
