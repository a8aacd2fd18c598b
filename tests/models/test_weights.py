"""Loading of weights: whatever they come from, the right tensors land and the report is true."""

import argparse
import pathlib
import shutil

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from fovea.errors import FoveaError
from fovea.models import create_backbone, create_head, load_weights

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _leave_no_large_files(tmp_path):
    yield
    shutil.rmtree(tmp_path)


@pytest.fixture(scope="module")
def reference():
    """A ResNet-18 of torchvision with 1000 classes and weights of its own."""
    torch.manual_seed(1)
    return torchvision.models.resnet18().eval()


def standard_resnet(num_classes=1000, **head):
    torch.manual_seed(2)
    backbone = create_backbone("resnet18", image_size=64, stem="standard").eval()
    return backbone, create_head(512, num_classes, **head).eval()


def assert_same_logits(backbone, head, reference):
    with torch.no_grad():
        torch.testing.assert_close(head(backbone(IMAGES)), reference(IMAGES))


WRAPPINGS = {
    "plain": lambda s: s,
    "ddp": lambda s: {f"module.{k}": v for k, v in s.items()},
    "compiled ddp": lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()},
    "compiled part": lambda s: {k.replace("layer1.", "layer1._orig_mod."): v for k, v in s.items()},
    "lightning": lambda s: {
        "state_dict": {f"model.{k}": v for k, v in s.items()},
        "optimizer_states": [{"state": {0: {"momentum_buffer": torch.zeros(3)}}}],
        "epoch": 3,
    },
    "torchvision reference": lambda s: {
        "model": s,
        "args": argparse.Namespace(lr=0.1, output_dir=pathlib.PosixPath("out")),
        "best": np.float64(76.1),
        "epoch": torch.tensor(3),
    },
    "timm with ema": lambda s: {
        "state_dict": {k: torch.zeros_like(v) for k, v in s.items()},
        "state_dict_ema": s,
    },
    "self-supervised teacher": lambda s: {
        "student": {f"module.backbone.{k}": torch.zeros_like(v) for k, v in s.items()},
        "teacher": {f"module.backbone.{k}": v for k, v in s.items()},
    },
    "a name nobody knows": lambda s: {"weights_of_the_net": {f"a.b.{k}": v for k, v in s.items()}},
    "half precision": lambda s: {k: v.half() if v.is_floating_point() else v for k, v in s.items()},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_other_projects_checkpoints(wrapping, reference, tmp_path):
    torch.save(WRAPPINGS[wrapping](reference.state_dict()), tmp_path / "w.pth")
    backbone, head = standard_resnet()
    report = load_weights(backbone, head, str(tmp_path / "w.pth"))
    assert (report.matched, report.total) == (100, 100)
    assert report.missing == report.mismatched == report.unexpected == []
    assert report.head == "loaded"
    with torch.no_grad():
        tolerance = {"rtol": 0.05, "atol": 0.05} if wrapping == "half precision" else {}
        torch.testing.assert_close(head(backbone(IMAGES)), reference(IMAGES), **tolerance)


def test_safetensors(reference, tmp_path):
    save_file(reference.state_dict(), tmp_path / "w.safetensors")
    backbone, head = standard_resnet()
    report = load_weights(backbone, head, str(tmp_path / "w.safetensors"))
    assert report.head == "loaded"
    assert_same_logits(backbone, head, reference)


def test_old_torch_format(reference, tmp_path):
    torch.save(reference.state_dict(), tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    backbone, head = standard_resnet()
    load_weights(backbone, head, str(tmp_path / "w.pth"))
    assert_same_logits(backbone, head, reference)


@pytest.fixture
def run(tmp_path):
    """The folder of a run of fovea, with what its backbone and head compute."""
    torch.manual_seed(5)
    backbone = create_backbone("resnet18", in_channels=1, image_size=8).eval()
    head = create_head(512, 10, hidden=16).eval()
    state = {f"backbone.{k}": v for k, v in backbone.state_dict().items()}
    state |= {f"head.{k}": v for k, v in head.state_dict().items()}
    (tmp_path / "checkpoints").mkdir()
    content = {"state_dict": state | {"metrics.total": torch.tensor(3)}, "fovea": {}}
    torch.save(content, tmp_path / "checkpoints" / "best.ckpt")
    return tmp_path, backbone, head


@pytest.mark.parametrize("part", ["", "checkpoints/best.ckpt"])
def test_runs_of_fovea(run, part):
    folder, backbone, head = run
    again = create_backbone("resnet18", in_channels=1, image_size=8).eval()
    new_head = create_head(512, 10, hidden=16).eval()
    report = load_weights(again, new_head, str(folder / part))
    assert report.head == "loaded"
    assert report.unexpected == ["metrics.total"]
    images = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(new_head(again(images)), head(backbone(images)))


@pytest.mark.parametrize(
    ("head", "says"),
    [
        ({"num_classes": 37}, "re-made (10 -> 37 classes)"),
        ({"num_classes": 10}, "re-made (10 classes in both, but layers of another shape)"),
    ],
)
def test_heads_that_do_not_fit_a_run(run, head, says):
    backbone = create_backbone("resnet18", in_channels=1, image_size=8)
    new_head = create_head(512, **head)
    before = new_head.linear.weight.clone()
    assert load_weights(backbone, new_head, str(run[0])).head == says
    assert torch.equal(new_head.linear.weight, before)


NAMES = list("abcdefghij")


@pytest.fixture
def named_run(run):
    """The same run, with the names of its classes in the record."""
    file = run[0] / "checkpoints" / "best.ckpt"
    content = torch.load(file, weights_only=True)
    torch.save({**content, "fovea": {"class_names": NAMES}}, file)
    return run


def fill(folder, class_names, hidden=16):
    backbone = create_backbone("resnet18", in_channels=1, image_size=8).eval()
    head = create_head(512, len(class_names or NAMES), hidden=hidden).eval()
    before = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    report = load_weights(backbone, head, str(folder), class_names=class_names)
    return report.head, backbone, head, before


class TestClassesByName:
    """The head of a run is for its classes, not for any other ten."""

    @pytest.mark.parametrize("names", [NAMES, tuple(NAMES), None])
    def test_the_same(self, named_run, names):
        says, _, head, _ = fill(named_run[0], names)
        assert says == "loaded"
        assert torch.equal(head.linear.weight, named_run[2].linear.weight)

    def test_in_another_order(self, named_run):
        folder, backbone, head = named_run
        order = [3, 0, 9, 1, 2, 8, 7, 4, 6, 5]
        says, again, new_head, _ = fill(folder, [NAMES[k] for k in order])
        assert says == "loaded (classes reordered by name)"
        images = torch.randn(2, 1, 8, 8)
        with torch.no_grad():
            logits, expected = new_head(again(images)), head(backbone(images))
        torch.testing.assert_close(logits, expected[:, order])

    @pytest.mark.parametrize("names", [[*NAMES[:9], "z"], [*NAMES[:9], "a"], list("0123456789")])
    def test_others_as_many(self, named_run, names):
        says, _, head, before = fill(named_run[0], names)
        assert says == "re-made (other classes)"
        assert all(torch.equal(before[name], t) for name, t in head.state_dict().items())

    def test_fewer(self, named_run):
        assert fill(named_run[0], NAMES[:4])[0] == "re-made (10 -> 4 classes)"

    def test_layers_of_another_shape(self, named_run):
        assert "layers of another shape" in fill(named_run[0], NAMES[::-1], hidden=None)[0]

    def test_a_run_that_names_none(self, run):
        assert fill(run[0], NAMES[::-1])[0] == "loaded"

    def test_a_published_classifier_goes_by_their_number(self, reference, tmp_path):
        torch.save(reference.state_dict(), tmp_path / "w.pth")
        names = [f"class {i}" for i in range(1000)]
        report = load_weights(*standard_resnet(), str(tmp_path / "w.pth"), class_names=names)
        assert report.head == "loaded"


def test_no_head_to_fill(run):
    backbone = create_backbone("resnet18", in_channels=1, image_size=8)
    report = load_weights(backbone, None, str(run[0]))
    assert report.head == ""
    assert "head" not in dict(report.rows())


def test_head_of_another_size_is_made_anew_and_said_so(reference, tmp_path):
    torch.save(reference.state_dict(), tmp_path / "w.pth")
    backbone, head = standard_resnet(num_classes=10)
    report = load_weights(backbone, head, str(tmp_path / "w.pth"))
    assert report.head == "re-made (1000 -> 10 classes)"
    assert "head re-made (1000 -> 10 classes)" in str(report)


def test_report_lists_what_did_not_fit(reference, tmp_path):
    state = dict(reference.state_dict())
    del state["layer4.1.conv2.weight"]
    state["layer3.0.conv1.weight"] = torch.zeros(3, 3)
    state["decoder.weight"] = torch.zeros(2)
    torch.save(state, tmp_path / "w.pth")
    backbone, head = standard_resnet()
    before = backbone.net.layer4[1].conv2.weight.clone()
    report = load_weights(backbone, head, str(tmp_path / "w.pth"))
    assert report.missing == ["layer4.1.conv2.weight"]
    assert report.mismatched == ["layer3.0.conv1.weight (3x3 in the weights, 256x128x3x3 here)"]
    assert report.unexpected == ["decoder.weight"]
    assert (report.matched, report.total) == (98, 100)
    assert torch.equal(backbone.net.layer4[1].conv2.weight, before)
    text = str(report)
    assert "98 of 100" in text
    assert "decoder.weight" in text
    assert dict(report.rows())["missing"] == "layer4.1.conv2.weight"


def test_weights_of_another_network_are_refused_and_change_nothing(reference, tmp_path):
    torch.save(reference.state_dict(), tmp_path / "w.pth")
    backbone = create_backbone("resnet50", image_size=64)
    before = {name: t.clone() for name, t in backbone.state_dict().items()}
    with pytest.raises(FoveaError, match=r"only 77 of 265 tensors match, and 50% must") as error:
        load_weights(backbone, None, str(tmp_path / "w.pth"))
    assert "layer1.0.conv3.weight" in str(error.value)
    assert all(torch.equal(before[name], t) for name, t in backbone.state_dict().items())
    load_weights(backbone, None, str(tmp_path / "w.pth"), strict_share=0.2)


def test_weights_with_nan_are_refused(reference, tmp_path):
    state = {k: v.clone() for k, v in reference.state_dict().items()}
    state["layer1.0.conv1.weight"][0, 0, 0, 0] = float("nan")
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(FoveaError, match=r"NaN.*layer1\.0\.conv1\.weight"):
        load_weights(*standard_resnet(), str(tmp_path / "w.pth"))


def test_no_weights_is_a_mistake():
    with pytest.raises(FoveaError, match="names no weights"):
        load_weights(*standard_resnet(), None)


class TestOtherImages:
    """Weights for 224 RGB pixels in networks for other images."""

    def test_grey_images_give_what_their_rgb_copies_gave(self, reference, tmp_path):
        torch.save(reference.state_dict(), tmp_path / "w.pth")
        backbone = create_backbone("resnet18", in_channels=1, image_size=64, stem="standard")
        head = create_head(512, 1000)
        report = load_weights(backbone.eval(), head.eval(), str(tmp_path / "w.pth"))
        assert report.adapted == {"conv1.weight": "3 -> 1 channels"}
        grey = IMAGES[:, :1]
        with torch.no_grad():
            torch.testing.assert_close(head(backbone(grey)), reference(grey.expand(-1, 3, -1, -1)))

    def test_small_stem_keeps_everything_behind_it(self, reference, tmp_path):
        torch.save(reference.state_dict(), tmp_path / "w.pth")
        backbone = create_backbone("resnet18", image_size=32)
        report = load_weights(backbone, None, str(tmp_path / "w.pth"))
        assert (report.matched, report.total) == (100, 100)
        assert report.adapted == {"conv1.weight": "kernel 7x7 -> 3x3"}
        assert "adapted conv1.weight (kernel 7x7 -> 3x3)" in str(report)
        assert torch.equal(backbone.net.layer4[1].conv2.weight, reference.layer4[1].conv2.weight)

    @pytest.mark.parametrize("name", ["alexnet", pytest.param("vgg11", marks=pytest.mark.slow)])
    def test_dense_layers_on_a_smaller_map_compute_the_same(self, name, tmp_path):
        """With the standard stem at 64 pixels, AlexNet's and VGG's pooling only copies values."""
        torch.manual_seed(3)
        reference = torchvision.models.get_model(name, num_classes=4).eval()
        torch.save(reference.state_dict(), tmp_path / "w.pth")
        backbone = create_backbone(name, image_size=64, stem="small").eval()
        head = create_head(4096, 4).eval()
        report = load_weights(backbone, head, str(tmp_path / "w.pth"))
        dense = "classifier.1.weight" if name == "alexnet" else "classifier.0.weight"
        assert dense in report.adapted
        assert report.matched == report.total
        if name == "vgg11":  # its small stem at 64 pixels is the standard one
            assert_same_logits(backbone, head, reference)

    @pytest.mark.parametrize(("size", "tokens"), [(32, 65), (96, 37), (224, 197)])
    def test_timm_vit(self, size, tokens, tmp_path):
        torch.manual_seed(4)
        reference = timm.create_model("test_vit", img_size=160, num_classes=5)
        torch.nn.init.normal_(reference.pos_embed)
        torch.save(reference.state_dict(), tmp_path / "w.pth")
        backbone = create_backbone("test_vit", library="timm", in_channels=1, image_size=size)
        head = create_head(64, 5)
        report = load_weights(backbone, head, str(tmp_path / "w.pth"))
        assert report.matched == report.total
        assert report.head == "loaded"
        assert report.adapted["pos_embed"] == f"1x101x64 -> 1x{tokens}x64"
        assert "3 -> 1 channels" in report.adapted["patch_embed.proj.weight"]
        expected = timm.create_model(
            "test_vit",
            img_size=size,
            patch_size=4 if size == 32 else 16,
            in_chans=1,
            num_classes=5,
            pretrained=True,
            pretrained_cfg_overlay={"state_dict": reference.state_dict(), "num_classes": 5},
        )
        for name, tensor in expected.state_dict().items():
            if not name.startswith("head."):
                torch.testing.assert_close(backbone.net.state_dict()[name], tensor, msg=name)

    def test_torchvision_vit(self, tmp_path):
        torch.manual_seed(4)
        reference = torchvision.models.vit_b_32(num_classes=3)
        torch.save(reference.state_dict(), tmp_path / "w.pth")
        backbone = create_backbone("vit_b_32", image_size=96, stem="standard")
        report = load_weights(backbone, create_head(768, 3), str(tmp_path / "w.pth"))
        assert report.adapted == {"encoder.pos_embedding": "positions 7x7 -> 3x3"}
        assert report.head == "loaded"
        ours, theirs = backbone.net.encoder.pos_embedding, reference.encoder.pos_embedding
        assert torch.equal(ours[:, 0], theirs[:, 0])
        torch.testing.assert_close(ours[:, 1:].mean(1), theirs[:, 1:].mean(1), atol=0.01, rtol=0)

    def test_weights_of_small_images_in_a_large_network(self, run):
        backbone = create_backbone("resnet18", in_channels=3, image_size=224)
        report = load_weights(backbone, None, str(run[0]))
        assert report.adapted == {"conv1.weight": "1 -> 3 channels, kernel 3x3 -> 7x7"}
        assert report.matched == report.total

    def test_older_format_of_a_timm_network(self, tmp_path):
        """The names of the ConvNeXt reference code, behind a prefix: only timm's filter knows."""
        reference = timm.create_model("test_convnext", num_classes=5)
        state = {}
        for name, tensor in reference.state_dict().items():
            old = name.replace("stem.", "downsample_layers.0.").replace("head.norm.", "norm.")
            old = old.replace("head.fc.", "head.").replace(".blocks.", ".")
            for new, short in (
                ("conv_dw", "dwconv"),
                ("mlp.fc1", "pwconv1"),
                ("mlp.fc2", "pwconv2"),
            ):
                old = old.replace(new, short)
            if ".downsample." in old:
                _, stage, _, rest = old.split(".", 3)
                old = f"downsample_layers.{stage}.{rest}"
            state[f"module.{old}"] = tensor
        torch.save({"model": state}, tmp_path / "w.pth")
        backbone = create_backbone("test_convnext", library="timm", image_size=96)
        head = create_head(64, 5)
        report = load_weights(backbone, head, str(tmp_path / "w.pth"))
        assert report.matched == report.total
        assert report.head == "loaded"
        with torch.no_grad():
            images = torch.randn(1, 3, 96, 96)
            expected = reference.eval()(images)
            torch.testing.assert_close(head(backbone.eval()(images)), expected)
