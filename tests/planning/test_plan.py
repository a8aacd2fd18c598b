"""Plans against published runs, and counts against real steps."""

from dataclasses import replace
from functools import cache, partial
from typing import get_args

import pytest
import torch
from torch import nn

from fovea.errors import FoveaError
from fovea.experiment import compose
from fovea.planning import make_plan
from fovea.planning.hardware import GPUS, REFERENCES, foretold_speed
from fovea.planning.measuring import measure_step, optimizer_bytes, saving
from fovea.planning.planned import kind_of_network
from fovea.schema import Gpu
from fovea.tasks import ClassificationTask
from process import run

IMAGENET = ("data=imagenet", "data.root=nowhere", "data.batch_size=256", "hardware.gpu=a100_80gb")
NAMES = {
    "vit_base": ("model=timm", "model.name=vit_base_patch16_224"),
    "vgg11": ("model=vgg16", "model.name=vgg11"),
    "convnext_base": ("model=convnext_tiny", "model.name=convnext_base"),
}


@cache
def plan_of(name, *words):
    return make_plan(compose([*IMAGENET, *NAMES.get(name, (f"model={name}",)), *words]))


def hours(plan, kind, gpu, world, epochs, full=False):
    """Return what the plan of `kind` network says of other GPUs and another number of epochs."""
    speed = foretold_speed(GPUS[gpu], REFERENCES[kind], full)
    return replace(plan, speed=speed, count=world).seconds / 3600 * epochs / plan.epochs


# Minutes that github.com/libffcv/ffcv-imagenet publishes, of training that grows from 160 to 192
# pixels with blurred strides. ResNet-50 on 8 A100, ResNet-18 on one; their memory is not told, here
# 40 GB are assumed.
FFCV = {
    ("resnet50", 8): {16: 14.9, 24: 21.7, 32: 28.7, 40: 35.6, 56: 49.4, 88: 77.2},
    ("resnet18", 1): {16: 35.0, 24: 51.6, 32: 68.9, 40: 85.5, 56: 119.4, 88: 187.3},
}
GROW = {16: (11, 13), 24: (17, 20), 32: (23, 27), 40: (29, 34), 56: (41, 48), 88: (65, 76)}


MEASURED = {}


@pytest.fixture
def measured_once(monkeypatch):
    """Count the steps of each side once: plans of other lengths have the same."""

    def measure(task, shape, size, trainable, **settings):
        key = (task.backbone.name, shape, size, trainable, *settings.values())
        if key not in MEASURED:
            MEASURED[key] = measure_step(task, shape, size, trainable, **settings)
        return MEASURED[key]

    monkeypatch.setattr("fovea.planning.plan.measure_step", measure)


def ffcv(name, world, epochs):
    words = [f"experiment={name}_ffcv", "data.root=nowhere", f"hardware.count={world}"]
    words += [f"trainer.max_epochs={epochs}", f"augment.grow={list(GROW[epochs])}"]
    return make_plan(compose(words))


@pytest.mark.parametrize(
    "epochs",
    [
        epochs if epochs in (16, 88) else pytest.param(epochs, marks=pytest.mark.slow)
        for epochs in GROW
    ],
)
@pytest.mark.parametrize(("name", "world"), FFCV)
def test_the_hours_of_ffcv_within_a_factor_of_two(name, world, epochs, measured_once):
    assert 0.5 < ffcv(name, world, epochs).seconds / 60 / FFCV[name, world][epochs] < 2


def test_operations_are_those_of_the_side_of_each_epoch(measured_once):
    """By hand, of ResNet-18: convolutions as the area, 1.814 GMAC at 224 pixels (torchvision)."""
    head, stem = 512 * 1000, 3 * 64 * 49
    blur = 9 * 2 * (64 * 56**2 + 128 * 28**2 + 256 * 14**2)  # two strided convolutions a stage
    body = 1_814_073_344 - head + blur

    def forward(side):
        return 2 * (body * side**2 // 224**2 + head)

    def training(side):  # no gradient of the images, none of the blur's kernel
        area = side**2 / 224**2
        return 3 * forward(side) - 2 * area * (stem * 112**2 + blur)

    plan = ffcv("resnet18", 1, 16)
    epoch = 1_281_167 // 1024 * 1024
    # 160 pixels up to epoch 11; epoch 12 would have 176, and 192 is the even multiple of 32.
    trained = epoch * (12 * training(160) + 4 * training(192))
    assert plan.flops == pytest.approx(trained + 16 * 50_000 * forward(256), rel=1e-9)
    assert plan.flops_per_image == pytest.approx(trained / epoch / 16, rel=1e-9)
    assert plan.least_flops_per_image == pytest.approx(training(160), rel=1e-9)


def test_a_size_of_training_alone_is_that_of_its_operations():
    small, same = (
        plan_of("resnet18", "augment.crop=resized", f"augment.size={side}") for side in (160, 224)
    )
    assert small.flops_per_image / same.flops_per_image == pytest.approx(160**2 / 224**2, rel=1e-3)


# NVIDIA DeepLearningExamples, resnet50v1.5: hours of 90 epochs. Not the row that foretells.
@pytest.mark.parametrize(
    ("gpu", "world", "full", "published"),
    [
        ("a100_80gb", 1, False, 14),
        ("a100_80gb", 1, True, 36),
        ("v100_16gb", 1, False, 29),
        ("v100_16gb", 8, False, 5),
        ("v100_16gb", 1, True, 92),
        ("v100_16gb", 8, True, 12),
    ],
)
def test_the_hours_of_nvidias_table_within_a_factor_of_two(gpu, world, full, published):
    foretold = hours(plan_of("resnet50"), "convolutional", gpu, world, 90, full)
    assert 0.5 < foretold / published < 2


# github.com/open-mmlab/mmpretrain #1741: 18 hours for 300 epochs on 32 A100 of 80 GB, no float16.
# github.com/facebookresearch/ConvNeXt #82, a user: 8 minutes an epoch on 8 A100 (of 40 GB, it is
# assumed), float16.
@pytest.mark.parametrize(
    ("gpu", "world", "epochs", "full", "published"),
    [("a100_80gb", 32, 300, True, 18), ("a100_40gb", 8, 1, False, 8 / 60)],
)
def test_the_hours_of_two_reported_trainings_of_vit_b(gpu, world, epochs, full, published):
    foretold = hours(plan_of("vit_base"), "transformer", gpu, world, epochs, full)
    assert 0.5 < foretold / published < 2


# timm, results/benchmark-train-amp-nhwc-pt112-cu113-rtx3090.csv, images a second.
@pytest.mark.parametrize(
    ("name", "kind", "published"),
    [
        ("resnet50", "convolutional", 1218.01),
        ("vgg11", "plain", 954.03),
        ("convnext_base", "depthwise", 338.68),
    ],
)
def test_the_images_a_second_of_timms_benchmark_within_a_factor_of_two(name, kind, published):
    plan = plan_of(name)
    speed = foretold_speed(GPUS["rtx3090"], REFERENCES[kind], False)
    assert 0.5 < replace(plan, speed=speed).images_per_second / published < 2


def test_the_bytes_of_resnet50_to_the_digit():
    count, tensors = 25_557_032, 161  # torchvision's; those with their own step in AdamW
    plan = plan_of("resnet50", "hardware.count=8", "optimizer=adamw")
    assert plan.memory["parameters"] == plan.memory["gradients"] == 4 * count
    assert plan.memory["optimizer"] == 2 * 4 * count + 4 * tensors
    # 26,560 channels have a mean and a variance, 53 norms a counter.
    assert plan.memory["buffers"] == 2 * 4 * 26_560 + 8 * 53
    assert plan.network == 2 * 7 * 4 * count // 8
    assert plan.checkpoint == 3 * 4 * count + 4 * tensors + plan.memory["buffers"]
    assert plan.steps == 20 * (1_281_167 // 256)


def test_the_bytes_of_sharded_and_of_averaged_weights():
    count, words = 11_172_810, ("optimizer=sgd", "model=resnet18")  # of digits' small stem
    sharded = make_plan(compose([*words, "hardware.count=8", "trainer=fsdp"]))
    assert sharded.memory["optimizer"] == sharded.memory["parameters"] == 4 * count // 8
    assert sharded.network == 3 * 7 * 4 * count // 8
    alone = make_plan(compose([*words, "callbacks=[default,ema]"]))
    assert alone.network == 0
    assert alone.memory["averaged"] == 4 * count + alone.memory["buffers"]
    assert alone.checkpoint == 3 * 4 * count + 2 * alone.memory["buffers"]


@pytest.mark.parametrize("name", ["SGD", "AdamW", "Adagrad", "Lamb"])
def test_the_optimisers_bytes_are_those_after_a_real_step(name):
    from timm.optim import Lamb

    make = partial(Lamb if name == "Lamb" else getattr(torch.optim, name), lr=0.1)
    parameters = [nn.Parameter(torch.ones(3, 5)), nn.Parameter(torch.ones(7))]
    optimizer = make(parameters)
    sum(p.sum() for p in parameters).backward()
    optimizer.step()
    held = [v for s in optimizer.state.values() for v in s.values() if isinstance(v, torch.Tensor)]
    assert optimizer_bytes(make, parameters) == sum(v.numel() * v.element_size() for v in held)


def resnet(name):
    from torchvision import models

    class Backbone(nn.Module):
        stages = {"stem": ["net"]}  # noqa: RUF012

        def __init__(self):
            super().__init__()
            self.net = models.get_model(name)
            self.net.fc = nn.Identity()

        def forward(self, images):
            return self.net(images)

    features = {"resnet18": 512, "resnet50": 2048}[name]
    names = [str(label) for label in range(1000)]
    return ClassificationTask(Backbone(), nn.Linear(features, 1000), 1000, names)


def real_activations(task, count):
    images, labels = torch.randn(count, 3, 224, 224), torch.zeros(count, dtype=torch.int64)
    with saving(task) as saved:
        nn.functional.cross_entropy(task.train()(images), labels).backward()
    return sum(saved.values())


def measured(task, count, trainable=None, **settings):
    every = frozenset(name for name, _ in task.named_parameters())
    return measure_step(task, (3, 224, 224), count, trainable or every, **settings)


def test_activations_are_those_that_a_real_pass_keeps():
    task = resnet("resnet50")
    assert measured(task, 2).activations == pytest.approx(real_activations(task, 2), rel=0.01)


@pytest.mark.slow
def test_activations_of_resnet50_at_batch_32_are_those_that_a_real_pass_keeps():
    task = resnet("resnet50")
    assert measured(task, 32).activations == pytest.approx(real_activations(task, 32), rel=0.15)


def test_half_precision_halves_them_and_frozen_stages_keep_none():
    task = resnet("resnet18")
    before = {name: value.clone() for name, value in task.state_dict().items()}
    full, half = measured(task, 32), measured(task, 32, half=True)
    assert 0.5 < half.activations / full.activations < 0.65
    head = measured(task, 32, frozenset({"head.weight", "head.bias"}))
    assert head.activations < full.activations / 500
    assert full.flops == half.flops
    # The first convolution needs no gradient of its input.
    forward, first = 2 * 1_814_073_344, 2 * 64 * 112 * 112 * 3 * 49
    assert full.flops == 3 * forward - first
    assert head.flops == forward + 2 * 512 * 1000
    assert all(torch.equal(before[name], value) for name, value in task.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in task.parameters())


def test_depthwise_convolutions_are_not_taken_for_dense_ones():
    task = ClassificationTask(
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.Flatten(), 128, ["a"] * 128
    )
    task.backbone.stages = {"stem": [""]}
    cost = measure_step(task, (8, 4, 4), 2, frozenset({"backbone.weight"}))
    assert cost.flops == 2 * (2 * 8 * 16 * 9)  # forward, and the gradient of the weights


def test_phases_of_a_freeze_schedule_cost_what_each_of_them_does():
    every, probe, both = (
        make_plan(compose([f"freeze={name}", "model=resnet18", "trainer.max_epochs=10"]))
        for name in ("none", "head_only", "lp_ft")
    )
    assert probe.flops < both.flops < every.flops
    assert probe.memory["gradients"] < every.memory["gradients"] / 100
    assert both.memory["activations"] == every.memory["activations"]
    assert probe.memory["optimizer"] < every.memory["optimizer"] / 100


def test_auto_accumulates_until_it_fits_and_a_number_is_left_alone():
    words = ("data.batch_size=2048", "hardware.gpu=t4", "trainer.precision=32-true")
    found = plan_of("resnet18", *words, "trainer.accumulate_grad_batches=auto")
    assert found.fits
    assert found.accumulate > 1
    half_as_many = f"trainer.accumulate_grad_batches={found.accumulate // 2}"
    assert not plan_of("resnet18", *words, half_as_many).fits


def test_networks_are_told_apart():
    from torchvision import models

    kinds = {"resnet50": "convolutional", "vgg16": "plain", "alexnet": "plain"}
    kinds |= {"convnext_tiny": "depthwise", "vit_b_16": "transformer", "swin_t": "transformer"}
    with torch.device("meta"):
        found = {name: kind_of_network(models.get_model(name)) for name in ("resnet50", "alexnet")}
    found |= {n: kind_of_network(models.get_model(n)) for n in ("convnext_tiny", "swin_t")}
    assert found == {name: kinds[name] for name in found}


def test_resnet50_makes_as_many_operations_a_byte_on_three_generations_of_gpus():
    published = {"v100_16gb": 1200, "a100_80gb": 2470, "rtx3090": 1218.01}
    per_byte = [images * 24.30e9 / GPUS[gpu].bandwidth for gpu, images in published.items()]
    assert max(per_byte) / min(per_byte) < 1.15
    shares = [images * 24.30e9 / GPUS[gpu].half for gpu, images in published.items()]
    assert max(shares) / min(shares) > 2


def test_cifar_need_not_be_there_and_is_cut_as_it_would_be(tmp_path):
    plan = make_plan(compose(["data=cifar100", f"data.root={tmp_path / 'none'}"]))
    assert (plan.sizes.train, plan.sizes.val) == (45_000, 5_000)
    assert len(plan.sizes.class_names) == 100
    assert not list(tmp_path.iterdir()), "nothing is fetched"
    with pytest.raises(FoveaError, match=r"data\.root"):
        make_plan(compose(["data=folder", f"data.root={tmp_path / 'none'}"]))
    with pytest.raises(FoveaError, match="batch_size"):
        make_plan(compose(["data.batch_size=10", "hardware.count=4"]))
    with pytest.raises(FoveaError, match=r"hardware\.gpu=.*Did you mean 'a100_40gb'"):
        compose(["hardware.gpu=a100_40"])


def test_the_names_in_the_schema_are_those_of_the_table():
    assert set(get_args(Gpu)) == set(GPUS)


def test_the_command_prints_and_leaves_nothing(tmp_path):
    done = run("train", "plan=true", "hardware.count=2", "hardware.mfu=0.5", cwd=tmp_path)
    for part in ("1,150 train", "64 = 2 x 32", "50.0 % of its peak", "hardware.mfu", "network"):
        assert part in done.stdout
    assert not list((tmp_path / "outputs").glob("*"))
