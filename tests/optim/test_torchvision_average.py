"""The average of torchvision's references, against torch's AveragedModel used as they use it."""

from __future__ import annotations

import pytest
import torch
from lightning import Trainer
from torch.optim.swa_utils import AveragedModel

from fovea.errors import FoveaError
from fovea.optim import TorchvisionAverage

from .test_averaging import Regression, data


def reference(states, epochs, batch, steps, decay, warmup):
    """Return what ``train.py`` of the references averages; ``states`` after each step."""
    alpha = min(1.0, (1.0 - decay) * batch * steps / epochs)

    def average(kept, new, _):
        return (1.0 - alpha) * kept + alpha * new

    net = Regression()
    averaged = AveragedModel(net, avg_fn=average, use_buffers=True)
    for epoch in range(epochs):
        for i in range(4):
            net.load_state_dict(states[4 * epoch + i])
            if i % steps == 0:
                averaged.update_parameters(net)
                if epoch < warmup:
                    averaged.n_averaged.fill_(0)
    return averaged.module.state_dict()


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (3, 2), (3, "50%")])
def test_it_averages_as_the_reference_does(tmp_path, steps, warmup):
    task = Regression()
    callback = TorchvisionAverage(
        batch_size=8, decay=0.98, every_n_steps=steps, warmup_epochs=warmup
    )
    Trainer(
        max_epochs=4, accelerator="cpu", callbacks=[callback], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, default_root_dir=tmp_path,
    ).fit(task, data())  # fmt: skip
    expected = reference(task.trained, 4, 8, steps, 0.98, 2 if warmup == "50%" else warmup)
    for name, value in expected.items():
        if value.is_floating_point():
            torch.testing.assert_close(task.state_dict()[name], value, rtol=1e-6, atol=1e-7)


def test_a_run_that_is_cut_goes_on_to_the_same_average(tmp_path):
    def fit(epochs, ckpt=None):
        task = Regression()
        callback = TorchvisionAverage(8, 0.98, every_n_steps=3, warmup_epochs=1)
        trainer = Trainer(
            max_epochs=4, accelerator="cpu", callbacks=[callback], logger=False,
            enable_checkpointing=False, enable_progress_bar=False, default_root_dir=tmp_path,
            max_steps=-1 if epochs == 4 else 4 * epochs,
        )  # fmt: skip
        trainer.fit(task, data(), ckpt_path=ckpt, weights_only=True)
        trainer.save_checkpoint(tmp_path / "cut.ckpt")
        return task.state_dict()

    whole = fit(4)
    fit(2)
    again = fit(4, tmp_path / "cut.ckpt")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_the_published_recipe_keeps_this_much():
    callback = TorchvisionAverage(batch_size=8 * 128)
    callback._max_epochs = 600
    assert callback.share_kept(5) == pytest.approx(0.99891, abs=5e-6)
    callback._max_epochs = 1  # so short that nothing is kept
    callback.batch_size = 10**6
    assert callback.share_kept(5) == 0


def test_what_is_wrong_is_said():
    with pytest.raises(FoveaError, match="batch_size is 0"):
        TorchvisionAverage(batch_size=0)
    with pytest.raises(FoveaError, match="warmup_epochs is 'soon'"):
        TorchvisionAverage(batch_size=1, warmup_epochs="soon")
