"""Losses that are no numbers, jumps of the loss, and no memory left: what a run does then."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from fovea.errors import FoveaError
from fovea.experiment import build, compose
from fovea.machine.out_of_memory import explaining_out_of_memory
from fovea.models import Backbone
from fovea.tasks import ClassificationTask
from fovea.tasks.spikes import LossSpikes

TINY = (
    "data.limit_per_class=16", "data.batch_size=32", "data.num_workers=0", "model=timm",
    "model.name=test_resnet", "trainer=cpu", "trainer.max_epochs=3", "trainer.log_every_n_steps=1",
    "logger=none", "callbacks=[default,ema]",
)  # fmt: skip


def prepare(tmp_path, *words):
    cfg = compose([*TINY, f"paths.outputs={tmp_path}", *words])
    folder = Path(cfg.paths.run)
    folder.mkdir(parents=True)
    return build(cfg), folder


def spoil(monkeypatch, steps, how):
    real = ClassificationTask.training_loss

    def training_loss(task, batch):
        loss = real(task, batch)
        return how(loss) if task.trainer.global_step in steps else loss

    monkeypatch.setattr(ClassificationTask, "training_loss", training_loss)


def nan_loss(loss):
    return loss * math.nan


def infinite_gradient(loss):
    return loss + 0 * torch.sqrt(0 * loss)


def everything(trainer, task):
    """Return copies of all that an optimiser step moves, by name."""
    average = next(c for c in trainer.callbacks if hasattr(c, "_average_model"))
    found = {f"task.{k}": v for k, v in task.state_dict().items()}
    found |= {f"average.{k}": v for k, v in average._average_model.state_dict().items()}
    for i, state in trainer.optimizers[0].state_dict()["state"].items():
        found |= {f"optimizer.{i}.{k}": v for k, v in state.items()}
    return {name: value.clone() for name, value in found.items()}


def assert_equal(a, b):
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


class Watcher(Callback):
    """Keeps everything as it was before each step, by step; and the last rate of each."""

    def __init__(self):
        self.before, self.seen = {}, {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.before.setdefault(trainer.global_step, everything(trainer, pl_module))
        self.seen.setdefault(trainer.global_step, []).append(batch.indices.clone())


def fit(experiment):
    watcher = Watcher()
    experiment.trainer.callbacks.append(watcher)
    experiment.trainer.fit(experiment.task, datamodule=experiment.data)
    return watcher


@pytest.mark.parametrize("how", [nan_loss, infinite_gradient])
def test_stop_names_the_step_and_keeps_its_batch_and_the_last_checkpoint(
    tmp_path, monkeypatch, how
):
    experiment, folder = prepare(tmp_path, "trainer.accumulate_grad_batches=2")
    spoil(monkeypatch, {7}, how)
    with pytest.raises(FoveaError, match=r"NaN or infinite at step 7[ .]") as error:
        fit(experiment)
    assert ("A gradient" in str(error.value)) == (how is infinite_gradient)
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 5
    assert all(v.isfinite().all() for v in experiment.task.state_dict().values())

    report = json.loads((folder / "nan" / "step_7.json").read_text())
    batch = torch.load(folder / "nan" / "step_7_rank0.pt", weights_only=True)
    files = [file for row in report["micro_batches"] for file in row["files"]]
    source = experiment.data.dataset("train")
    assert files == [source.path(i) for i in batch["indices"].tolist()]
    assert len(files) == len(set(files)) == 32
    assert torch.equal(batch["labels"], source.labels[batch["indices"]])
    assert batch["micro_batch"].tolist() == [0] * 16 + [1] * 16
    assert batch["images"].dtype == torch.uint8
    # As the loader gives it: the images of the same samples, asked for again.
    again = {
        int(index): image
        for loaded in fresh(experiment, 1)
        for index, image in zip(loaded.indices, loaded.images, strict=True)
    }
    for index, image in zip(batch["indices"].tolist(), batch["images"], strict=True):
        assert torch.equal(image, again[index])
    gradients, parameters = report["gradients"], report["parameters"]
    assert gradients[0]["not_finite"] == max(row["not_finite"] for row in gradients) > 0
    assert {row["stage"] for row in parameters} == set(experiment.task.parts())
    head = next(row for row in parameters if row["stage"] == "head")
    values = torch.cat([p.detach().flatten() for p in experiment.task.head.parameters()])
    assert head["values"] == len(values)
    assert head["max"] == pytest.approx(values.max().item())
    assert head["mean_abs"] == pytest.approx(values.abs().mean().item(), rel=1e-5)
    assert report["loss"] == "nan" or how is infinite_gradient


def fresh(experiment, epoch):
    """Return the batches of an epoch from a loader that no trainer moves."""
    data = experiment.data
    data.trainer, data.epoch = None, epoch
    return list(data.train_dataloader())


def test_skip_moves_nothing_and_the_next_step_sees_the_next_batch(tmp_path, monkeypatch):
    words = ("trainer.accumulate_grad_batches=2", "optimizer=lamb", "on_nan=skip")
    clean, folder = prepare(tmp_path / "clean", *words)
    reference = fit(clean)
    experiment, folder = prepare(tmp_path / "cut", *words)
    spoil(monkeypatch, {6, 7}, nan_loss)
    watcher = fit(experiment)
    assert_equal(watcher.before[7], watcher.before[6])
    assert_equal(watcher.before[8], watcher.before[6])
    assert any(
        not torch.equal(watcher.before[9][name], watcher.before[8][name])
        for name in watcher.before[8]
    )
    assert watcher.seen.keys() == reference.seen.keys()
    for step, batches in reference.seen.items():
        assert all(map(torch.equal, batches, watcher.seen[step])), step
    table = pd.read_csv(folder / "metrics.csv").set_index("step")
    rates = pd.read_csv(next((tmp_path / "clean").glob("*/metrics.csv"))).set_index("step")
    pd.testing.assert_series_equal(table["train/lr"], rates["train/lr"])
    assert table["train/loss"].isna().to_numpy().nonzero()[0].tolist() == [6, 7]
    assert table["train/skipped_steps"].dropna().to_dict() == {4: 0, 9: 2, 14: 2}


def test_skip_ends_after_so_many_steps_in_a_row(tmp_path, monkeypatch):
    experiment, _ = prepare(tmp_path, "on_nan=skip", "on_nan_limit=2")
    spoil(monkeypatch, {1, 2, 4, 6, 7, 8}, nan_loss)
    with pytest.raises(FoveaError, match=r"at step 8, and on_nan_limit=2 is reached"):
        fit(experiment)


def test_restore_goes_back_to_the_last_checkpoint_and_on_in_the_data(tmp_path, monkeypatch):
    experiment, _ = prepare(tmp_path, "on_nan=restore")
    spoil(monkeypatch, {8}, nan_loss)
    watcher = fit(experiment)
    assert_equal(watcher.before[9], watcher.before[5])  # as the first epoch left it
    order = torch.cat([indices for step in range(5, 10) for indices in watcher.seen[step]])
    assert len(set(order.tolist())) == len(order) == 160
    assert experiment.trainer.global_step == 15


def test_restore_without_a_checkpoint_says_so(tmp_path, monkeypatch):
    experiment, _ = prepare(tmp_path, "on_nan=restore")
    spoil(monkeypatch, {2}, nan_loss)
    with pytest.raises(FoveaError, match="before there was a checkpoint to go back to"):
        fit(experiment)


def test_a_jump_of_the_loss_is_noted_once_and_counted(tmp_path, monkeypatch, caplog):
    experiment, folder = prepare(tmp_path, "trainer.max_epochs=8")
    spoil(monkeypatch, {30, 32}, lambda loss: loss * 100)
    fit(experiment)
    warnings = [r.getMessage() for r in caplog.records if "jumped" in r.getMessage()]
    assert len(warnings) == 1, "the second comes too soon after it"
    assert warnings[0].startswith("step 30: the training loss jumped to ")
    table = pd.read_csv(folder / "metrics.csv").set_index("step")
    assert table["train/spikes"].dropna().iloc[-1] == 2
    assert table["train/spikes"].dropna().iloc[5] == 0


def test_spikes_of_losses_near_zero_and_of_noise_are_none():
    generator = torch.Generator().manual_seed(0)
    watch = LossSpikes()
    falling = 2.3 * torch.exp(-torch.arange(400) / 60)
    noise = 1 + 0.3 * torch.randn(400, generator=generator)
    watch._unseen = list(enumerate((falling * noise).abs() + 1e-4))
    assert watch.state_dict()["count"] == 0


def limit_memory(monkeypatch, images):
    real = Backbone.forward

    def forward(backbone, batch):
        if len(batch) > images:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return real(backbone, batch)

    monkeypatch.setattr(Backbone, "forward", forward)


def test_auto_finds_what_fits_and_leaves_no_trace(tmp_path, monkeypatch):
    words = ("augment=mixup_cutmix", "data.eval_batch_size=8")
    given, _ = prepare(tmp_path / "given", *words, "trainer.accumulate_grad_batches=4")
    drawn = torch.rand(3)
    limit_memory(monkeypatch, 8)
    found, _ = prepare(tmp_path / "found", *words, "trainer.accumulate_grad_batches=auto")
    assert torch.equal(torch.rand(3), drawn)
    assert found.trainer.accumulate_grad_batches == 4
    assert found.data.batch_size == 32
    a, b = given.task.state_dict(), found.task.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert vars(found.task)["_seen"] == 0
    found.trainer.fit(found.task, datamodule=found.data)
    given.trainer.fit(given.task, datamodule=given.data)
    assert all(torch.equal(a[name], b[name]) for name in a), "one run"


def test_auto_is_one_where_all_fits_and_an_error_where_nothing_does(tmp_path, monkeypatch):
    roomy, _ = prepare(tmp_path / "roomy", "trainer.accumulate_grad_batches=auto")
    assert roomy.trainer.accumulate_grad_batches == 1
    limit_memory(monkeypatch, 0)
    with pytest.raises(FoveaError, match="Not even one image"):
        prepare(tmp_path / "none", "trainer.accumulate_grad_batches=auto")


def test_out_of_memory_says_what_to_change_in_training_and_in_evaluation(tmp_path, monkeypatch):
    experiment, _ = prepare(tmp_path, "trainer.accumulate_grad_batches=2")
    limit_memory(monkeypatch, 8)
    with (
        pytest.raises(FoveaError, match=r"in training, at step 0.*\n.*grad_batches=4: 8 images"),
        explaining_out_of_memory(experiment.trainer, experiment.data),
    ):
        experiment.trainer.fit(experiment.task, datamodule=experiment.data)
    with (
        pytest.raises(FoveaError, match=r"in evaluation.*\n.*data\.eval_batch_size=16"),
        explaining_out_of_memory(experiment.trainer, experiment.data),
    ):
        experiment.trainer.validate(experiment.task, datamodule=experiment.data, verbose=False)
    for error in (
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ):
        with (
            pytest.raises(FoveaError, match="Out of memory on cpu"),
            explaining_out_of_memory(experiment.trainer, experiment.data),
        ):
            raise error
    with (
        pytest.raises(RuntimeError, match="shapes"),
        explaining_out_of_memory(experiment.trainer, experiment.data),
    ):
        raise RuntimeError("shapes do not fit")
