"""Classification against torch's losses and hand-made cases, on one process."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from timm.loss import BinaryCrossEntropy
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fovea.errors import FoveaError
from fovea.optim import AveragedWeights, ConstantSchedule, FreezeSchedule
from fovea.tasks import ClassificationTask
from fovea.tasks.losses import ClassificationLoss, make_class_weights
from fovea.tasks.replicas import seed_step
from fovea.tracking.metrics_csv import MetricsCSV, read_rows
from fovea.types import Batch

NAMES = ["cat", "dog", "eel"]


class LinearBackbone(nn.Module):
    """Pixels through one linear layer and a BatchNorm."""

    num_features = 4

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.BatchNorm1d(4))
        self.stages = {"stem": ["net.1"], "last": ["net.2"]}

    def no_weight_decay(self) -> set[str]:
        return {"net.1.weight"}

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)


def make_task(classes: int = 3, lr: float = 0.1, **settings: Any) -> ClassificationTask:
    torch.manual_seed(0)
    names = NAMES if classes == 3 else [f"class {i}" for i in range(classes)]
    defaults = {
        "optimizer": partial(torch.optim.SGD, lr=lr, weight_decay=0.1),
        "schedule": ConstantSchedule(),
    }
    head = nn.Linear(4, classes)
    return ClassificationTask(LinearBackbone(), head, classes, names, **defaults | settings)


def batches(count: int = 4, classes: int = 3, size: int = 6) -> DataLoader:
    generator = torch.Generator().manual_seed(1)
    made = [
        Batch(
            torch.randn(size, 3, 2, 2, generator=generator),
            torch.randint(classes, (size,), generator=generator),
            torch.arange(size) + size * number,
        )
        for number in range(count)
    ]
    return DataLoader(made, batch_size=None)  # type: ignore[arg-type]


def make_trainer(folder: Path, **settings: Any) -> lightning.Trainer:
    defaults: dict[str, Any] = {"max_epochs": 2, "log_every_n_steps": 1, "logger": False}
    defaults["enable_checkpointing"] = False
    return lightning.Trainer(
        accelerator="cpu", enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, default_root_dir=folder, **defaults | settings,
    )  # fmt: skip


# Losses

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.3, -0.2], [-4.0, 1.0, 3.0], [1.0, 1.0, 1.0]])
LABELS = torch.tensor([0, 2, 2, 1])
SOFT = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.0, 1.0], [0.1, 0.0, 0.9], [0.0, 0.5, 0.5]])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("targets", [None, SOFT])
def test_cross_entropy_is_torchs(smoothing: float, targets: Tensor | None) -> None:
    got = ClassificationLoss("cross_entropy", smoothing)(LOGITS, LABELS, targets).mean()
    wanted = LABELS if targets is None else targets
    assert got == pytest.approx(F.cross_entropy(LOGITS, wanted, label_smoothing=smoothing))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_bce_is_timms(smoothing: float) -> None:
    got = ClassificationLoss("bce", smoothing)(LOGITS, LABELS).mean()
    assert got == pytest.approx(BinaryCrossEntropy(smoothing)(LOGITS, LABELS))
    soft = ClassificationLoss("bce")(LOGITS, LABELS, SOFT).mean()
    assert soft == pytest.approx(F.binary_cross_entropy_with_logits(LOGITS, SOFT))


@pytest.mark.parametrize("name", ["cross_entropy", "bce"])
def test_hard_labels_and_their_one_hot_targets_are_one_thing(name: Any) -> None:
    loss = ClassificationLoss(name, 0.1, torch.tensor([0.5, 1.0, 2.0]))
    one_hot = F.one_hot(LABELS, 3).float()
    torch.testing.assert_close(loss(LOGITS, LABELS), loss(LOGITS, LABELS, one_hot))


@pytest.mark.parametrize("name", ["cross_entropy", "bce"])
def test_weighted_losses_of_halves_average_to_that_of_the_whole(name: Any) -> None:
    loss = ClassificationLoss(name, 0.0, torch.tensor([0.1, 1.0, 5.0]))
    halves = [loss(LOGITS[part], LABELS[part]).mean() for part in (slice(0, 2), slice(2, 4))]
    assert sum(halves) / 2 == pytest.approx(loss(LOGITS, LABELS).mean())
    plain = ClassificationLoss(name)(LOGITS, LABELS)
    expected = plain * torch.tensor([0.1, 5.0, 5.0, 1.0])
    torch.testing.assert_close(loss(LOGITS, LABELS), expected)


def test_evaluation_is_neither_smoothed_nor_weighted() -> None:
    loss = ClassificationLoss("cross_entropy", 0.3, torch.tensor([0.1, 1.0, 5.0]))
    plain = F.cross_entropy(LOGITS, LABELS, reduction="none")
    torch.testing.assert_close(loss.evaluate(LOGITS, LABELS), plain)


def test_class_weights() -> None:
    counts = [30, 60, 10]
    assert make_class_weights(None, NAMES, counts) is None
    auto = make_class_weights("auto", NAMES, counts)
    assert auto is not None
    torch.testing.assert_close(auto, torch.tensor([100 / 90, 100 / 180, 100 / 30]))
    named = make_class_weights({"eel": 4.0}, NAMES, counts)
    assert named is not None
    torch.testing.assert_close(named / named[0], torch.tensor([1.0, 1.0, 4.0]))
    for weights in (auto, named):
        assert (weights * torch.tensor(counts)).sum() / 100 == pytest.approx(1)
    absent = make_class_weights("auto", NAMES, [5, 0, 5])
    assert absent is not None
    assert absent.isfinite().all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "cross-entropy"}, r"task\.loss is 'cross-entropy'.*Did you mean 'cross_entropy'"),
        ({"label_smoothing": 1.0}, r"task\.label_smoothing is 1\.0"),
        ({"class_weights": {"eal": 2}}, r"names 'eal', which is no class\. Did you mean 'eel'"),
        ({"class_weights": {"eel": 0}}, r"task\.class_weights\.eel is 0: it takes a number > 0"),
        ({"class_weights": "balanced"}, r"is 'balanced': it takes null, auto, or a map"),
        ({"class_weights": "auto", "class_counts": None}, "needs the counts of the 3 classes"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(FoveaError, match=message):
        make_task(**{"class_counts": [1, 2, 3]} | settings)


# Training


def test_the_logged_loss_is_that_of_the_global_batch(tmp_path: Path) -> None:
    data = batches(4)
    task = make_task(lr=1e-12)  # so that the weights stay what they are
    trainer = make_trainer(
        tmp_path, max_epochs=1, accumulate_grad_batches=2, logger=MetricsCSV(tmp_path)
    )
    trainer.fit(task, data)
    rows = [row for row in read_rows(tmp_path / "metrics.csv") if "train/loss" in row]
    losses, rates = ([float(row[f"train/{name}"]) for row in rows] for name in ("loss", "lr"))
    made = list(data)
    expected = []
    for pair in (made[:2], made[2:]):
        task.train()
        expected.append(sum(task.training_loss(batch).item() for batch in pair) / 2)
    assert losses == pytest.approx(expected, abs=1e-6)
    assert rates == pytest.approx([1e-12, 1e-12])


def test_a_step_on_the_cpu_draws_what_torch_manual_seed_would() -> None:
    def draws(kind: str) -> Tensor:
        seed_step(3, 1, 7, 0, torch.device(kind))
        return torch.rand(5)

    with torch.random.fork_rng():
        assert torch.equal(draws("cpu"), draws("meta"))  # the latter goes by torch.manual_seed
        assert not torch.equal(torch.rand(5), draws("cpu"))


def test_mixed_images_train_on_soft_targets_and_count_by_their_largest_part() -> None:
    task = make_task()
    task.head.weight.data.zero_()
    task.head.bias.data = torch.tensor([0.0, 1.0, 0.5])  # dog, whatever the image
    images = torch.randn(4, 3, 2, 2)
    targets = torch.tensor([[0.4, 0.6, 0.0], [0.6, 0.4, 0.0], [0.0, 0.9, 0.1], [0.0, 0.3, 0.7]])
    labels = torch.zeros(4, dtype=torch.int64)
    loss = task.training_loss(Batch(images, labels, torch.arange(4), targets))
    expected = F.cross_entropy(task.head.bias.expand(4, 3), targets)
    assert loss.item() == pytest.approx(expected.item())
    assert (int(task._hits), task._seen) == (2, 4)


def test_top1_of_an_epoch_is_the_share_of_hits(tmp_path: Path) -> None:
    task = make_task(lr=1e-12)
    task.head.weight.data.zero_()
    task.head.bias.data = torch.tensor([0.0, 1.0, 0.5])
    data = batches(4)
    trainer = make_trainer(tmp_path)
    trainer.fit(task, data)
    labels = torch.cat([batch.labels for batch in data])
    assert trainer.callback_metrics["train/top1"] == pytest.approx((labels == 1).float().mean())
    assert trainer.callback_metrics["train/trainable_parameters"] == 12 * 4 + 4 + 8 + 15


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_step(tmp_path: Path) -> None:
    data = list(batches(4))
    data[2].images[0, 0, 0, 0] = torch.nan
    loader = DataLoader(data, batch_size=None)  # type: ignore[arg-type]
    with pytest.raises(FoveaError, match=r"NaN or infinite at step 2\. Try a lower optimizer\.lr"):
        make_trainer(tmp_path).fit(make_task(), loader)


def test_dropout_depends_on_the_step_and_the_seed_alone(tmp_path: Path) -> None:
    def weights(before: int, seed: int) -> Tensor:
        task = make_task(seed=seed)
        task.head = nn.Sequential(nn.Dropout(0.5), task.head)  # type: ignore[assignment]
        torch.manual_seed(before)
        make_trainer(tmp_path).fit(task, batches(2))
        return task.head[1].weight.detach()  # type: ignore[index, union-attr, return-value]

    assert torch.equal(weights(1, seed=0), weights(2, seed=0))
    assert not torch.equal(weights(1, seed=0), weights(1, seed=1))


def test_parameters_that_must_not_decay_do_not(tmp_path: Path) -> None:
    task = make_task()
    make_trainer(tmp_path, max_epochs=1).fit(task, batches(1))
    decays = {
        name: group["weight_decay"]
        for group in task.optimizers().param_groups  # type: ignore[union-attr]
        for name in group["param_names"]
    }
    assert {name for name, decay in decays.items() if decay} == {"head.weight"}
    assert decays.keys() == dict(task.named_parameters()).keys()


def test_frozen_norms_stay_in_eval_mode_through_train_and_validation(tmp_path: Path) -> None:
    class Watch(lightning.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            seen.append(pl_module.backbone.net[2].training)
            assert pl_module.backbone.net[1].training
            assert pl_module.head.training

    seen: list[bool] = []
    phases = [
        {"epoch": 0, "stages": {"last": "frozen", "*": 1.0}},
        {"epoch": 1, "stages": {"*": 1.0}},
        {"epoch": 2, "stages": {"last": "frozen", "*": 1.0}},
    ]
    task = make_task(freeze=FreezeSchedule(phases))
    trainer = make_trainer(tmp_path, max_epochs=3, callbacks=[Watch()], val_check_interval=1)
    trainer.fit(task, batches(2), batches(1))
    assert seen == [False, False, True, True, False, False]
    task.train()
    assert not task.backbone.net[2].training  # type: ignore[index, union-attr]
    task.eval()
    assert not task.training


# Evaluation


def padded(batch: Batch) -> Batch:
    """Add entries that do not count, with labels that would be right and wrong."""
    extra = Batch(batch.images[:2], torch.tensor([0, 2]), torch.tensor([-1, -7]))
    return Batch(
        *(torch.cat([one, other]) for one, other in zip(batch[:3], extra[:3], strict=True))
    )


@pytest.mark.parametrize("classes", [3, 8])
def test_scores_and_predictions_count_real_samples_only(tmp_path: Path, classes: int) -> None:
    task = make_task(classes)
    made = list(batches(3, classes))
    loader = DataLoader([padded(batch) for batch in made], batch_size=None)  # type: ignore[arg-type]
    trainer = make_trainer(tmp_path)
    scores = trainer.test(task, loader, verbose=False)[0]
    task.eval()
    with torch.no_grad():
        logits = torch.cat([task(batch.images) for batch in made])
    labels = torch.cat([batch.labels for batch in made])
    assert scores["test/top1"] == pytest.approx((logits.argmax(1) == labels).float().mean())
    assert scores["test/loss"] == pytest.approx(float(F.cross_entropy(logits, labels)), abs=1e-6)
    assert ("test/top5" in scores) == (classes > 5)
    if classes > 5:
        hits = (logits.topk(5).indices == labels[:, None]).any(dim=1)
        assert scores["test/top5"] == pytest.approx(hits.float().mean())
    assert task.predictions is not None
    assert task.predictions.indices.tolist() == list(range(18))
    torch.testing.assert_close(task.predictions.logits, logits)
    again = trainer.test(task, loader, verbose=False)[0]
    assert again == scores  # nothing is left over from the first time


def test_predict_gives_logits_without_an_optimizer(tmp_path: Path) -> None:
    task = make_task(optimizer=None, schedule=None)
    logits = make_trainer(tmp_path).predict(task, batches(2))
    assert logits is not None
    assert [tuple(batch.shape) for batch in logits] == [(6, 3), (6, 3)]


def test_training_without_an_optimizer_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(FoveaError, match="needs an optimizer and a schedule"):
        make_trainer(tmp_path).fit(make_task(schedule=None), batches(1))
    with pytest.raises(FoveaError, match=r"The optimizer has no lr\. Give functools\.partial"):
        make_trainer(tmp_path).fit(make_task(optimizer=partial(torch.optim.SGD)), batches(1))
    with pytest.raises(FoveaError, match=r"trainer\.max_epochs is not set"):
        make_trainer(tmp_path, max_epochs=-1, max_steps=3).fit(make_task(), batches(1))


def test_the_best_checkpoint_with_ema_is_what_was_validated(tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path, monitor="val/loss", mode="min")
    task = make_task()
    trainer = make_trainer(
        tmp_path, callbacks=[keep, AveragedWeights(0.9)], enable_checkpointing=True
    )
    trainer.fit(task, batches(4), batches(3))
    assert keep.best_model_score is not None
    fresh = make_task()
    fresh.load_state_dict(torch.load(keep.best_model_path, weights_only=True)["state_dict"])
    scores = make_trainer(tmp_path).validate(fresh, batches(3), verbose=False)[0]
    assert scores["val/loss"] == float(keep.best_model_score)
    after = trainer.test(task, batches(3), ckpt_path=keep.best_model_path, verbose=False)[0]
    assert after["test/loss"] == float(keep.best_model_score)


# What it says of itself


def test_the_summary_names_loss_optimizer_schedule_and_phases() -> None:
    schedule = FreezeSchedule([{"epoch": 0, "stages": {"head": 1.0, "*": "frozen"}}])
    task = make_task(
        freeze=schedule, label_smoothing=0.1, class_weights="auto", class_counts=[1, 2, 3],
        layer_decay=0.7, compile="eager",
    )  # fmt: skip
    rows = dict(task.describe(max_epochs=5, steps_per_epoch=4))
    assert rows["loss"] == "cross-entropy, label smoothing 0.1, class weights 0.667 to 2"
    assert rows["optimizer"] == "SGD: lr 0.1, weight_decay 0.1"
    assert rows["schedule"] == "constant"
    assert rows["layer decay"].startswith("0.7 a stage")
    assert rows["compile"] == "eager"
    assert rows["train, epochs 0-4"].endswith("15 of 75 parameters train")
    assert ("train, epochs 0-4", rows["train, epochs 0-4"]) not in task.describe()


def test_a_phase_that_is_not_reached_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    phases = [{"epoch": 0, "stages": {"*": 1.0}}, {"epoch": 9, "stages": {"*": 0.1}}]
    with caplog.at_level(logging.WARNING, logger="fovea"):
        make_trainer(tmp_path).fit(make_task(freeze=FreezeSchedule(phases)), batches(1))
    assert "freeze.phases[1] is not reached: it begins at epoch 9" in caplog.text


def test_a_strategy_that_cannot_change_what_trains_is_refused_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fovea.tasks.replicas.can_rewrap", lambda strategy: False)
    phases = [{"epoch": 0, "stages": {"head": 1.0, "*": "frozen"}}]
    make_trainer(tmp_path).fit(make_task(freeze=FreezeSchedule(phases)), batches(1))
    phases.append({"epoch": 1, "stages": {"*": 1.0}})
    with pytest.raises(FoveaError, match="freeze=none or freeze=head_only, or trainer=ddp"):
        make_trainer(tmp_path).fit(make_task(freeze=FreezeSchedule(phases)), batches(1))


def test_fully_sharded_training_is_such_a_strategy() -> None:
    from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, SingleDeviceStrategy

    from fovea.tasks.replicas import can_rewrap

    assert can_rewrap(DDPStrategy())
    assert can_rewrap(SingleDeviceStrategy("cpu"))
    assert not can_rewrap(FSDPStrategy())
