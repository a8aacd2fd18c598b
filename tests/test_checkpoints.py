"""When checkpoints are made, what a signal does at each moment of a training, and what is kept."""

import copy
import shutil
import signal
from pathlib import Path

import pytest
import torch

from fovea.checkpoints import generations
from fovea.checkpoints import schedule as checkpoints
from fovea.checkpoints.checkpoint_io import AtomicCheckpointIO
from fovea.checkpoints.schedule import BestCheckpoint, Stopped
from fovea.errors import FoveaError
from fovea.experiment import build, compose
from fovea.machine.signals import STOP
from self_signal import SelfSignal

WORDS = (
    "data.limit_per_class=8", "data.batch_size=16", "data.num_workers=0", "data.eval_batch_size=32",
    "model=timm", "model.name=test_resnet", "trainer=cpu", "trainer.max_epochs=2", "logger=none",
    "trainer.limit_val_batches=3", "callbacks=[default,ema]",
)  # fmt: skip
STEPS = 5  # of an epoch


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    STOP.give_back()
    STOP.received, STOP.deferred = None, False


@pytest.fixture
def saves(monkeypatch):
    """Return a list that gets (name, optimiser steps, batches) of each checkpoint written."""
    done, save = [], AtomicCheckpointIO.save_checkpoint

    def saving(self, checkpoint, path, storage_options=None):
        save(self, checkpoint, path, storage_options)
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        done.append((Path(path).name, checkpoint["global_step"], progress["total"]["completed"]))

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", saving)
    return done


def experiment(*words, step=None, name="run"):
    return build(compose([*WORDS, f"run_id={name}", *words]), step)


def fit(made, path=None):
    made.trainer.fit(made.task, datamodule=made.data, ckpt_path=path, weights_only=True)
    return made


def last(name="run"):
    return Path("outputs", name, "checkpoints", "last.ckpt").absolute()


def test_saves_come_after_whole_steps_and_each_epoch(here, saves):
    fit(experiment("checkpoint.every_n_steps=2", "trainer.accumulate_grad_batches=2"))
    steps = [(step, batches) for name, step, batches in saves if name == "last.ckpt"]
    assert steps == [(2, 4), (4, 8), (5, 10), (6, 12), (8, 16), (10, 20)]
    assert generations.damage(last()) is None
    assert [p.name for p in generations.existing(last())] == ["last.ckpt", "last-1.ckpt"]


def test_saves_come_by_the_clock(here, saves, monkeypatch):
    clock = iter(range(0, 10_000, 20))  # seconds: 20 pass between two looks
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: next(clock))
    made = experiment("checkpoint.every_minutes=1", "trainer.max_epochs=1")
    made.trainer.callbacks = [c for c in made.trainer.callbacks if type(c).__name__ != "EpochLines"]
    fit(made)
    steps = [step for name, step, _ in saves if name == "last.ckpt"]
    assert steps[-1] == STEPS
    assert len(steps) > 1
    assert len(steps) < STEPS


@pytest.fixture(scope="module")
def uncut(tmp_path_factory):
    """Return the last checkpoint of the run that nobody cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("uncut"))
        fit(experiment())
        return torch.load(last(), weights_only=True)


@pytest.mark.parametrize(
    ("name", "hook", "step", "stops_at"),
    [
        ("SIGUSR1", "on_fit_start", 0, 0),
        ("SIGTERM", "on_train_batch_end", 3, 3),
        ("SIGTERM", "on_validation_batch_start", STEPS, STEPS),
        ("SIGINT", "on_train_epoch_end", STEPS, STEPS),
        ("SIGTERM", "on_train_epoch_end", 2 * STEPS, 2 * STEPS),
    ],
)
def test_a_signal_at_any_moment_stops_saves_and_loses_nothing(
    here, uncut, name, hook, step, stops_at
):
    before = signal.getsignal(signal.SIGTERM)
    made = experiment()
    made.trainer.callbacks.append(SelfSignal(name, hook, step))
    with pytest.raises(SystemExit) as stopped:
        fit(made)
    assert signal.getsignal(signal.SIGTERM) is before
    if stops_at:
        assert isinstance(stopped.value, Stopped)
        assert stopped.value.code == (130 if name == "SIGINT" else 75)
    else:
        assert not last().exists(), "there is nothing to go on from"
        return
    assert torch.load(last(), weights_only=True)["global_step"] == stops_at
    shutil.move("outputs/run", "outputs/moved")
    fit(experiment(step=stops_at, name="moved"), str(last("moved")))
    resumed = torch.load(last("moved"), weights_only=True)
    for part in ("state_dict", "current_model_state"):
        for key, tensor in uncut[part].items():
            assert torch.equal(tensor, resumed[part][key]), (part, key)
    assert resumed["global_step"] == 2 * STEPS


def test_a_repeated_sigterm_is_ignored_and_a_second_ctrl_c_is_not():
    received = STOP.received
    try:
        assert STOP.listen()
        STOP.deferred = True
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert STOP.status == 75
    finally:
        STOP.give_back()
        STOP.received, STOP.deferred = received, False


def test_a_full_disk_in_mid_run_is_survived_and_at_its_end_is_told(here, monkeypatch, saves):
    full, real = [], torch.save

    def save(content, file, *arguments):
        if full:
            file.write(b"half")
            raise OSError(28, "No space left on device")
        real(content, file, *arguments)

    made = experiment("checkpoint.every_n_steps=1")
    monkeypatch.setattr(torch, "save", save)

    class Fill(SelfSignal):
        def _send(self, trainer, *_):
            full[:] = [1] * (trainer.global_step in (2, 3, 2 * STEPS))

    made.trainer.callbacks.append(Fill("", "on_train_batch_end", 0))
    with pytest.raises(FoveaError, match=r"The training is over, but last\.ckpt could not be writ"):
        fit(made)
    assert torch.load(last(), weights_only=True)["global_step"] == 2 * STEPS - 1
    assert not list(last().parent.glob(".*")), "no partial file is left"


def test_a_best_checkpoint_that_was_not_written_does_not_count(here):
    made = experiment("trainer.max_epochs=1")
    io = made.trainer.strategy.checkpoint_io
    best = made.trainer.checkpoint_callback
    assert isinstance(best, BestCheckpoint)
    real = io.save_checkpoint

    def failing(checkpoint, path, storage_options=None):
        if Path(path).name == "best.ckpt":
            io.failed = "the disk is full"
        else:
            real(checkpoint, path, storage_options)

    io.save_checkpoint = failing
    fit(made)
    assert best.best_model_path == ""
    assert best.best_model_score is None


def test_the_best_checkpoint_is_known_where_the_folder_is_now(tmp_path):
    then = BestCheckpoint(dirpath=tmp_path / "old", filename="best", monitor="val/loss")
    path = str(tmp_path / "old" / "best.ckpt")
    then.best_model_path = then.kth_best_model_path = path
    then.best_model_score, then.best_k_models = torch.tensor(0.5), {path: torch.tensor(0.5)}
    then.kth_value = torch.tensor(0.5)
    now = BestCheckpoint(dirpath=tmp_path / "new", filename="best", monitor="val/loss")
    now.load_state_dict(copy.deepcopy(then.state_dict()))
    assert now.best_model_path == str(tmp_path / "new" / "best.ckpt")
    assert now.best_k_models == {now.best_model_path: torch.tensor(0.5)}
    assert now.best_model_score == 0.5
