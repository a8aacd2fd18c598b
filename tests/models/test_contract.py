"""Every choice of the model group keeps the contract of a backbone."""

import copy
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import nn

from fovea.models import Backbone, create_backbone, create_head

CONF = Path(__file__).parents[2] / "conf"
CHOICES = sorted(p.stem for p in (CONF / "model").glob("*.yaml") if not p.stem.startswith("_"))
TIMM = "test_efficientnet"
CASES = [
    *((choice, 8, 1) for choice in CHOICES),
    *((choice, 32, 3) for choice in CHOICES),
    *((choice, 64, 1) for choice in ("alexnet", "convnext_tiny", "resnet18", "vit_s16", "timm")),
    ("resnet18", 224, 3),
    ("vit_s16", 224, 3),
    ("timm", 224, 1),
]


def build(choice: str, image_size: int, in_channels: int) -> Backbone:
    """Build a choice the way a run does: the model node without its head and weights."""
    words = [f"+model={choice}", *([f"model.name={TIMM}"] if choice == "timm" else [])]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        node = compose(overrides=words).model
    node = {k: v for k, v in node.items() if k not in ("head", "weights")}
    return instantiate(node, image_size=image_size, in_channels=in_channels)


def test_all_choices_are_here():
    assert CHOICES == [
        "alexnet",
        "convnext_tiny",
        "resnet18",
        "resnet50",
        "speedrun",
        "timm",
        "vgg16",
        "vgg16_bn",
        "vit_s16",
    ]


@pytest.mark.parametrize("choice", ["_base", *CHOICES])
def test_first_line_says_what_the_choice_is(choice):
    first = (CONF / "model" / f"{choice}.yaml").read_text().splitlines()[0]
    assert first.startswith("# ")
    assert 10 < len(first) < 90


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1]}px-{case[2]}ch")
def case(request):
    """A backbone and a batch of two images."""
    choice, image_size, in_channels = request.param
    torch.manual_seed(0)
    backbone = build(choice, image_size, in_channels)
    return backbone, torch.randn(2, in_channels, image_size, image_size)


def test_pooled_features_fit_a_head(case):
    backbone, images = case
    head = create_head(backbone.num_features, 7)
    with torch.no_grad():
        features = backbone.eval()(images)
        assert features.shape == (2, backbone.num_features)
        assert features.isfinite().all()
        assert head(features).shape == (2, 7)


def test_feature_map_is_before_pooling(case):
    backbone, images = case
    with torch.no_grad():
        features = backbone.eval().forward_features(images)
    assert features.ndim in (3, 4)
    assert features.shape[0] == 2
    assert all(side >= 1 for side in features.shape)


def test_each_tensor_is_in_exactly_one_stage(case):
    backbone, _ = case
    names = [name for name, _ in [*backbone.named_parameters(), *backbone.named_buffers()]]
    owners = {
        name: [
            stage
            for stage, prefixes in backbone.stages.items()
            if any(f"{name}.".startswith(f"{prefix}.") for prefix in prefixes)
        ]
        for name in names
    }
    assert {name: stages for name, stages in owners.items() if len(stages) != 1} == {}
    assert {stages[0] for stages in owners.values()} == set(backbone.stages)
    assert "head" not in backbone.stages


def test_stages_run_from_stem_to_last_block(case):
    backbone, images = case
    seen: list[str] = []

    def record(name):
        def hook(*_):
            stage = next(
                stage
                for stage, prefixes in backbone.stages.items()
                if any(f"{name}.".startswith(f"{prefix}.") for prefix in prefixes)
            )
            if stage not in seen:
                seen.append(stage)

        return hook

    owners = [(n, m) for n, m in backbone.named_modules() if list(m.parameters(recurse=False))]
    handles = [m.register_forward_pre_hook(record(n)) for n, m in owners if not _is_root(m)]
    with torch.no_grad():
        backbone.eval()(images)
    for handle in handles:
        handle.remove()
    assert list(backbone.stages) == seen
    assert seen[0] == "stem"
    # Of the speedrun's network the source has three groups after the stem.
    assert len(seen) == 4 if backbone.name == "speedrun" else len(seen) >= 5


def _is_root(module: nn.Module) -> bool:
    """Transformers keep their class token and positions in modules that hold everything else."""
    return len(list(module.modules())) > 60


def test_gradients_reach_every_parameter(case):
    backbone, images = case
    backbone.train().zero_grad()
    backbone(images).square().sum().backward()
    without = [n for n, p in backbone.named_parameters() if p.grad is None]
    assert without == []
    assert all(p.grad.isfinite().all() for p in backbone.parameters())
    backbone.zero_grad()


def test_evaluation_is_deterministic_and_leaves_nothing_behind(case):
    backbone, images = case
    backbone.eval()
    before = copy.deepcopy(dict(backbone.named_buffers()))
    with torch.no_grad():
        first, second = backbone(images), backbone(images)
        alone = backbone(images[:1])
    assert torch.equal(first, second)
    torch.testing.assert_close(alone, first[:1], rtol=1e-3, atol=1e-4)
    assert all(torch.equal(before[name], buffer) for name, buffer in backbone.named_buffers())


def test_no_weight_decay_names_parameters(case):
    backbone, _ = case
    assert backbone.no_weight_decay() <= {name for name, _ in backbone.named_parameters()}


PUBLISHED = {
    "alexnet": torchvision.models.AlexNet_Weights,
    "vgg16": torchvision.models.VGG16_Weights,
    "vgg16_bn": torchvision.models.VGG16_BN_Weights,
    "resnet18": torchvision.models.ResNet18_Weights,
    "resnet50": torchvision.models.ResNet50_Weights,
    "convnext_tiny": torchvision.models.ConvNeXt_Tiny_Weights,
}


@pytest.mark.parametrize("choice", [c for c in CHOICES if c != "timm"])
def test_published_parameter_counts(choice):
    """At 224 pixels with 1000 classes; ViT-S/16: 22.05 M (Touvron et al. 2021, DeiT-S).

    The speedrun's has 1,971,640 without biases in a head of ten classes (test_published_costs).
    """
    others = {"vit_s16": 22_050_664, "speedrun": 1_971_640 - 10 * 256 + 1000 * 257}
    with torch.device("meta"):
        backbone = build(choice, 224, 3)
        head = create_head(backbone.num_features, 1000)
    count = sum(p.numel() for p in [*backbone.parameters(), *head.parameters()])
    published = PUBLISHED.get(choice)
    assert count == (published.DEFAULT.meta["num_params"] if published else others[choice])


@pytest.mark.parametrize(
    ("choice", "stages"),
    [
        ("resnet18", ["stem", "layer1", "layer2", "layer3", "layer4"]),
        ("alexnet", ["stem", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"]),
        ("vgg16_bn", ["stem", "block2", "block3", "block4", "block5", "fc6", "fc7"]),
        ("convnext_tiny", ["stem", "stage1", "stage2", "stage3", "stage4", "norm"]),
        ("vit_s16", ["stem", *(f"blocks.{i}" for i in range(12)), "norm"]),
    ],
)
def test_stage_names(choice, stages):
    with torch.device("meta"):
        assert list(build(choice, 224, 3).stages) == stages


@pytest.mark.parametrize(
    "name", ["alexnet", "resnet18", "resnext50_32x4d", "convnext_tiny", "vit_b_32"]
)
def test_torchvision_networks_compute_what_torchvision_computes(name):
    torch.manual_seed(0)
    reference = torchvision.models.get_model(name, num_classes=5, **_sized(name)).eval()
    backbone = create_backbone(name, image_size=64, stem="standard").eval()
    missing, unexpected = backbone.net.load_state_dict(reference.state_dict(), strict=False)
    assert missing == []
    assert unexpected == [f"{backbone.classifier}.weight", f"{backbone.classifier}.bias"]
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = reference(images)
        logits = reference.get_submodule(backbone.classifier)(backbone(images))
        assert torch.equal(logits, expected)
        features = backbone.forward_features(images)
    if features.ndim == 4 and name.startswith("res"):
        torch.testing.assert_close(features.mean((2, 3)), backbone(images).detach())
    if features.ndim == 3:
        torch.testing.assert_close(features[:, 0], backbone(images).detach())


def _sized(name: str) -> dict[str, int]:
    return {"image_size": 64} if name.startswith("vit") else {}


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_vit", "test_efficientnet"])
def test_timm_networks_compute_what_timm_computes(name):
    sized = {"img_size": 96} if name == "test_vit" else {}
    reference = timm.create_model(name, num_classes=5, **sized).eval()
    backbone = create_backbone(name, library="timm", image_size=96, stem="standard").eval()
    missing, _ = backbone.net.load_state_dict(reference.state_dict(), strict=False)
    assert missing == []
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        logits = reference.get_submodule(backbone.classifier)(backbone(images))
        assert torch.equal(logits, reference(images))
        assert torch.equal(backbone.forward_features(images), reference.forward_features(images))
