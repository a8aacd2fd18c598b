"""The recipe cifar10_speedrun, step by step against the plain loop of the benchmark beside it."""

from __future__ import annotations

import sys
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from PIL import Image

from fovea.experiment import build, compose
from fovea.judging import predict_split
from process import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

import speedrun_plain as plain

BATCH, STEPS, WIDTHS = 16, 26, (8, 12, 16)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Return a folder like CIFAR-10's: 14 training and 2 test images in each of 10 classes."""
    root = tmp_path_factory.mktemp("cifar")
    rng = np.random.default_rng(0)
    for split, count in (("train", 14), ("test", 2)):
        for label in range(10):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 120, (32, 32, 3)) + 12 * label
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    return root


class Steps(lightning.Callback):
    """Keeps what each step saw and did."""

    def __init__(self) -> None:
        self.batches: list[list] = []
        self.losses: list[float] = []
        self.settings: list[dict] = []
        self.norms: list[dict] = []
        self.start: dict = {}

    def on_train_start(self, trainer, module):
        self.start = {name: tensor.clone() for name, tensor in module.state_dict().items()}

    def on_train_epoch_start(self, trainer, module):
        self.batches.append([])

    def on_train_batch_start(self, trainer, module, batch, number):
        self.batches[-1].append((batch.images.clone(), batch.labels.clone()))

    def on_before_optimizer_step(self, trainer, module, optimizer):
        # Lightning has not asked for the next rate yet.
        known = {p: names(n) for n, p in module.named_parameters()}
        self.settings.append(settings_of(optimizer, known.get))

    def on_train_batch_end(self, trainer, module, outputs, batch, number):
        self.losses.append(float(outputs["loss"]))
        self.norms.append(norms_of(module, names))


def settings_of(optimizer, name_of) -> dict[str, tuple[float, float]]:
    """Return (learning rate, weight decay) of each parameter that trains."""
    return {
        name_of(parameter): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter.requires_grad
    }


def norms_of(module, name_of=str) -> dict[str, float]:
    """Return the norm of each weight and statistic."""
    state = module.state_dict().items()
    return {name_of(n): float(t.norm()) for n, t in state if t.is_floating_point()}


def names(name: str) -> str:
    """Return what the plain network calls a parameter or statistic of fovea's."""
    for ours, theirs in (
        ("backbone.net.", ""), ("group1", "groups.0"), ("group2", "groups.1"),
        ("group3", "groups.2"), ("head.linear", "linear"),
    ):  # fmt: skip
        name = name.replace(ours, theirs)
    return name


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    """Return the experiment and its steps, with the last of four epochs cut short."""
    words = [
        "experiment=cifar10_speedrun", f"data.root={images}", f"data.batch_size={BATCH}",
        "data.num_workers=0", f"optimizer.lr={1.5 * BATCH / 1024}", "trainer=cpu",
        f"model.widths=[{','.join(map(str, WIDTHS))}]", "trainer.max_epochs=4",
        f"trainer.max_steps={STEPS}", "scheduler.warmup_steps=5", "logger=none",
        "data.val_fraction=0.1", f"paths.outputs={tmp_path_factory.mktemp('runs')}",
    ]  # fmt: skip
    cfg = compose(words)
    Path(cfg.paths.run).mkdir()
    made, steps = build(cfg), Steps()
    made.trainer.callbacks.append(steps)
    made.trainer.fit(made.task, datamodule=made.data)
    return made, steps


def plain_net(state: dict) -> plain.Net:
    """Return the plain network with fovea's weights."""
    net = plain.Net(WIDTHS).to(memory_format=torch.channels_last)
    own = {names(name): tensor for name, tensor in state.items()}
    missing, strange = net.load_state_dict(own, strict=False)
    assert not strange
    assert all(name.endswith(("norm1.weight", "norm2.weight")) for name in missing)  # stay at one
    return net


def test_rates_decay_losses_and_weights_are_those_of_the_plain_loop_at_every_step(trained):
    made, ours = trained
    settings, norms = [], []

    def watch(net, optimizer):
        settings.append(settings_of(optimizer, {p: n for n, p in net.named_parameters()}.get))
        norms.append(norms_of(net))

    assert [len(epoch) for epoch in ours.batches] == [7, 7, 7, 5]
    found = plain.train(plain_net(ours.start), ours.batches, STEPS, BATCH, watch)
    assert len(ours.losses) == made.trainer.global_step == STEPS
    torch.testing.assert_close(torch.stack(found.losses).tolist(), ours.losses, rtol=1e-6, atol=0)
    for step in range(STEPS):
        assert settings[step].keys() == ours.settings[step].keys()
        assert ("whiten.bias" in settings[step]) == (step < 21)
        for name, (rate, decay) in settings[step].items():
            # There the loss is a sum, here a mean.
            expected = (rate * BATCH, decay / BATCH)
            assert ours.settings[step][name] == pytest.approx(expected, rel=1e-9), name
        for name, norm in ours.norms[step].items():
            assert norm == pytest.approx(norms[step][name], rel=1e-6, abs=1e-8), (step, name)
    assert max(ours.losses) - min(ours.losses) > 0.05


def test_the_weights_at_the_end_are_validated_and_kept(trained):
    made, _ = trained
    assert made.trainer.current_epoch == 4
    best = made.trainer.checkpoint_callback.best_model_path
    saved = torch.load(best, weights_only=True)
    assert saved["global_step"] == STEPS
    assert all(torch.equal(t, saved["state_dict"][n]) for n, t in made.task.state_dict().items())


def test_the_first_convolution_is_the_plain_one_of_the_same_images(trained):
    made, steps = trained
    net = plain.Net(WIDTHS)
    seen = torch.cat(list(made.data.sample("train", 5000)))
    assert len(seen) == made.data.split_sizes["train"] == 126
    raw = made.data.dataset("train")
    pixels = torch.stack([raw[i].images for i in range(126)])
    torch.testing.assert_close(seen, plain.normalize(pixels), rtol=0, atol=1e-5)
    net.set_whitening(seen)
    ours = steps.start["backbone.net.whiten.weight"]
    torch.testing.assert_close(ours, net.whiten.weight.data, rtol=1e-4, atol=1e-5)
    assert torch.equal(made.task.backbone.net.whiten.weight, ours)
    outputs = torch.nn.functional.conv2d(seen, ours).transpose(0, 1).flatten(1)[:12].double()
    moments = outputs @ outputs.T / outputs.shape[1]
    assert (moments - torch.diag(moments.diag())).abs().max() < 1e-3
    assert moments.diag().max() < 1


def test_six_views_are_judged_as_in_the_plain_loop(trained):
    made, _ = trained
    made.data.views = made.views
    found = predict_split(made.task, made.data, made.trainer, "test")
    raw = made.data.dataset("test")
    pixels = torch.stack([raw[i].images for i in range(20)])
    logits = plain.predict(plain_net(made.task.state_dict()), plain.normalize(pixels), views=True)
    torch.testing.assert_close(found.probabilities, logits.softmax(1), rtol=0, atol=1e-5)
    hits = (logits.argmax(1) == raw.labels).float().mean()
    assert found.about["metrics"]["test/top1"] == pytest.approx(float(hits))
    assert found.about["views"].startswith("mirror_translate: center crop, shifted by 1 as well")
    single = plain.predict(plain_net(made.task.state_dict()), plain.normalize(pixels), views=False)
    assert not torch.allclose(single.softmax(1), logits.softmax(1), atol=1e-3)


def directions(batches, originals: torch.Tensor) -> dict[int, bool]:
    """Return for each image of an epoch whether it is mirrored; it must be one of its windows."""
    found = {}
    for images, indices in batches:
        for image, index in zip(images, indices.tolist(), strict=True):
            apart = []
            for way in (originals[index], originals[index].flip(2)):
                padded = torch.nn.functional.pad(way, (2,) * 4, mode="reflect")
                windows = padded.unfold(1, 32, 1).unfold(2, 32, 1).permute(1, 2, 0, 3, 4)
                apart.append(float((windows.flatten(0, 1) - image).abs().amax((1, 2, 3)).min()))
            assert min(apart) < 1e-5
            found[index] = apart[1] < apart[0]
    return found


def test_epochs_show_images_both_ways_as_in_the_plain_loader(trained):
    made, _ = trained
    raw = made.data.dataset("train")
    originals = plain.normalize(torch.stack([raw[i].images for i in range(126)]))
    loader = plain.Loader(originals, torch.arange(126), BATCH, torch.Generator().manual_seed(0))
    made.data.trainer = None

    def ours(epoch):
        made.data.epoch = epoch
        for batch in made.data.train_dataloader():
            yield made.data.on_after_batch_transfer(batch, 0).images, batch.indices

    for epoch_of in (ours, lambda epoch: iter(loader)):
        first, second, third = (directions(epoch_of(epoch), originals) for epoch in range(3))
        assert len(first) == len(second) == 7 * BATCH
        assert 35 < sum(first.values()) < 77
        shared = first.keys() & second.keys() & third.keys()
        assert len(shared) > 60
        assert all(first[i] != second[i] and first[i] == third[i] for i in shared)
