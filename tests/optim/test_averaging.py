"""Averaged weights: the numbers themselves, and where they are used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from timm.utils import ModelEmaV2
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fovea.errors import FoveaError
from fovea.optim import AveragedWeights
from fovea.optim.averaging import ema_decay


class Regression(lightning.LightningModule):
    """A BatchNorm and a linear layer; keeps what it was validated and tested with."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1))
        self.trained: list[dict[str, Tensor]] = []
        self.judged: list[dict[str, Tensor]] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return (self.net(batch) - batch.sum(dim=1, keepdim=True)).square().mean()

    def on_train_batch_end(self, *_: Any) -> None:
        self.trained.append(self._copy())

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.judged.append(self._copy())

    def test_step(self, batch: Tensor, batch_idx: int) -> None:
        self.judged.append(self._copy())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    def _copy(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.state_dict().items()}


def data() -> DataLoader:
    return DataLoader(torch.randn(32, 3, generator=torch.Generator().manual_seed(1)), batch_size=8)


def trainer(tmp_path: Path, *callbacks: lightning.Callback, **settings: Any) -> lightning.Trainer:
    return lightning.Trainer(
        **{"max_epochs": 3} | settings, accelerator="cpu", callbacks=list(callbacks), logger=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip


def average_by_hand(states: list[dict[str, Tensor]], decay: float, every: int) -> dict[str, Tensor]:
    taken = states[every - 1 :: every]
    average = {name: value.double() for name, value in taken[0].items()}
    for updates, state in enumerate(taken[1:], start=1):
        steps = updates * every
        keep = min(decay**every, (1 + steps) / (10 + steps))
        for name, value in state.items():
            if value.is_floating_point():
                average[name] = keep * average[name] + (1 - keep) * value.double()
            else:
                average[name] = value.double()
    return average


def assert_close(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name in got:
        torch.testing.assert_close(got[name].double(), expected[name].double(), msg=name)


@pytest.mark.parametrize(("decay", "every"), [(0.9999, 1), (0.3, 1), (0.9, 3)])
def test_validation_uses_the_average_by_hand(tmp_path: Path, decay: float, every: int) -> None:
    task = Regression()
    keep = ModelCheckpoint(tmp_path, save_last=True)
    trainer(tmp_path, AveragedWeights(decay, every), keep).fit(task, data(), data())
    expected = average_by_hand(task.trained, decay, every)
    assert_close(task.judged[-1], expected)
    assert_close(task.state_dict(), expected)
    saved = torch.load(keep.best_model_path, weights_only=True)
    assert_close(saved["state_dict"], expected)
    assert_close(saved["current_model_state"], task.trained[-1])


def test_the_share_that_is_kept_grows_with_the_run() -> None:
    assert ema_decay(0, 0.999) == pytest.approx(0.1)
    assert ema_decay(90, 0.999) == pytest.approx(0.91)
    assert ema_decay(10**6, 0.999) == 0.999
    assert ema_decay(10**6, 0.999, every_n_steps=10) == pytest.approx(0.999**10)


def test_without_a_quick_start_it_keeps_its_share_from_the_first_update_on() -> None:
    """timm's ModelEmaV2, update by update."""
    network = torch.nn.Linear(3, 2)
    average, reference = AveragedWeights(0.9, quick_start=False), ModelEmaV2(network, decay=0.9)
    own = [p.detach().clone() for p in network.parameters()]
    for update in range(5):
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter)
        average._average(own, list(network.parameters()), update)
        reference.update(network)
        for mine, timms in zip(own, reference.module.parameters(), strict=True):
            torch.testing.assert_close(mine, timms, rtol=1e-6, atol=1e-7)
    assert average.share_kept(0) == 0.9


def test_training_is_not_touched_by_the_average(tmp_path: Path) -> None:
    plain, averaged = Regression(), Regression()
    trainer(tmp_path, enable_checkpointing=False).fit(plain, data(), data())
    trainer(tmp_path, AveragedWeights(), enable_checkpointing=False).fit(averaged, data(), data())
    for one, other in zip(plain.trained, averaged.trained, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_testing_after_fitting_judges_the_averaged_weights_of_the_checkpoint(
    tmp_path: Path,
) -> None:
    task = Regression()
    keep = ModelCheckpoint(tmp_path)
    run = trainer(tmp_path, AveragedWeights(0.5), keep)
    run.fit(task, data(), data())
    expected = torch.load(keep.best_model_path, weights_only=True)["state_dict"]
    task.judged.clear()
    run.test(task, data(), ckpt_path=keep.best_model_path, verbose=False)
    run.validate(task, data(), ckpt_path=keep.best_model_path, verbose=False)
    for judged in task.judged:
        assert all(torch.equal(judged[name], expected[name]) for name in expected)


def test_a_checkpoint_saved_while_validating_holds_each_weights_in_its_place(
    tmp_path: Path,
) -> None:
    class SaveInValidation(lightning.Callback):
        def on_validation_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
            trainer.save_checkpoint(tmp_path / "inside.ckpt")

    task = Regression()
    run = trainer(
        tmp_path, AveragedWeights(0.5), SaveInValidation(), max_epochs=1, num_sanity_val_steps=0,
        enable_checkpointing=False,
    )  # fmt: skip
    run.fit(task, data(), data())
    saved = torch.load(tmp_path / "inside.ckpt", weights_only=True)
    assert_close(saved["current_model_state"], task.trained[-1])
    assert_close(saved["state_dict"], average_by_hand(task.trained, 0.5, 1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decay": 1.0}, r"callbacks\.ema\.decay is 1\.0"),
        ({"decay": "0.9"}, r"decay is '0\.9'"),
        ({"every_n_steps": 0}, r"callbacks\.ema\.every_n_steps is 0"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(FoveaError, match=message):
        AveragedWeights(**settings)


class SaveAtTheEnd(lightning.Callback):
    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("average_first", [True, False])
def test_a_checkpoint_of_the_end_goes_on_from_the_weights_that_were_trained(
    tmp_path: Path, average_first: bool
) -> None:
    whole, cut = Regression(), Regression()
    trainer(tmp_path, AveragedWeights(decay=0.5), max_epochs=4).fit(whole, data(), data())
    end = tmp_path / "end.ckpt"
    callbacks = [AveragedWeights(decay=0.5), SaveAtTheEnd(end)]
    short = trainer(tmp_path, *(callbacks if average_first else callbacks[::-1]))
    short.fit(cut, data(), data())
    averaged = torch.load(end, weights_only=True)["state_dict"]
    for name, value in cut.state_dict().items():
        assert torch.equal(averaged[name], value), "the module has the average after fitting"
    longer = Regression()
    trainer(tmp_path, AveragedWeights(decay=0.5), max_epochs=4).fit(
        longer, data(), data(), ckpt_path=end
    )
    for mine, theirs in zip(longer.trained[-1].values(), whole.trained[-1].values(), strict=True):
        assert torch.equal(mine, theirs)
