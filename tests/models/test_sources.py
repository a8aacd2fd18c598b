"""Where weights come from: names, files that are no weights, downloads that fail."""

import os
import pickle
import urllib.error

import pytest
import timm
import torch
import torchvision
from torchvision.transforms import InterpolationMode

from fovea.data import evaluation_transform
from fovea.errors import FoveaError
from fovea.models import create_backbone, load_weights, sources, weights_preprocessing
from fovea.types import Preprocessing


@pytest.mark.parametrize(
    ("weights", "resize"),
    [
        ("IMAGENET1K_V1", 256),
        ("IMAGENET1K_V2", 232),
        ("DEFAULT", 232),
        (True, 232),
        ("ResNet50_Weights.IMAGENET1K_V2", 232),
    ],
)
def test_torchvision_preprocessing(weights, resize):
    found = weights_preprocessing("resnet50", "torchvision", weights)
    assert found.resize == resize
    assert found.image_shape == (3, 224, 224)
    image = torch.randint(0, 256, (3, 300, 400), dtype=torch.uint8)
    enum = torchvision.models.ResNet50_Weights["DEFAULT" if resize == 232 else weights]
    expected = enum.transforms()(image)
    ours = found.normalize(evaluation_transform(found)(image))
    one_grey_level = 1 / 255 / min(found.std)  # torchvision's preset rounds after a float resize
    torch.testing.assert_close(ours, expected, rtol=0, atol=1.01 * one_grey_level)
    assert (ours - expected).abs().mean() < 0.3 * one_grey_level


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("vit_small_patch16_224", True),
        ("vit_small_patch16_224", "augreg_in1k"),
        ("vit_small_patch16_224.augreg_in1k", "pretrained"),
        ("vit_small_patch16_224", "vit_small_patch16_224.augreg_in1k"),
        ("test_efficientnet", "r160_in1k"),
        ("resnet50", "a1_in1k"),
    ],
)
def test_timm_preprocessing(name, weights):
    found = weights_preprocessing(name, "timm", weights)
    full = {"vit": "vit_small_patch16_224.augreg_in1k", "res": "resnet50.a1_in1k"}.get(name[:3])
    full = "vit_small_patch16_224" if weights is True else full or "test_efficientnet.r160_in1k"
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(full).to_dict())
    transform = timm.data.create_transform(**config)
    resize, crop = transform.transforms[:2]
    assert found.resize == resize.size
    assert (found.image_size, found.image_size) == tuple(crop.size)
    assert InterpolationMode(found.interpolation) == resize.interpolation
    assert (found.mean, found.std) == (tuple(config["mean"]), tuple(config["std"]))


def test_preprocessing_of_a_run_and_of_a_bare_file(tmp_path):
    stored = Preprocessing(image_size=8, channels=1, mean=(0.3,), std=(0.4,))
    torch.save(
        {"state_dict": {}, "fovea": {"preprocessing": stored.to_dict()}}, tmp_path / "a.ckpt"
    )
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "b.pth")
    assert weights_preprocessing("resnet18", "torchvision", str(tmp_path / "a.ckpt")) == stored
    assert weights_preprocessing("resnet18", "torchvision", str(tmp_path / "b.pth")) is None


@pytest.mark.parametrize("weights", [None, False])
def test_no_weights(weights):
    assert weights_preprocessing("resnet18", "torchvision", weights) is None


@pytest.mark.parametrize(
    ("name", "library", "weights", "says"),
    [
        ("resnet50", "torchvision", "IMAGENET1K_V3", "IMAGENET1K_V1, IMAGENET1K_V2"),
        ("resnet50", "torchvision", "IMAGENETK_V2", "Did you mean 'IMAGENET1K_V2'"),
        ("resnet50", "timm", "a1_in1", "Did you mean 'a1_in1k'"),
        ("resnet18", "torchvision", "no/such/file.pth", "no file of weights at"),
        ("resnet18", "torchvision", "best.ckpt", "no file of weights at"),
    ],
)
def test_weights_that_are_not_there(name, library, weights, says):
    with pytest.raises(FoveaError, match=says):
        weights_preprocessing(name, library, weights)


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(FoveaError, match=r"checkpoints/best\.ckpt"):
        weights_preprocessing("resnet18", "torchvision", str(tmp_path))


class Harmful:
    """Runs a command when unpickled by a careless loader."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_a_checkpoint_never_runs(tmp_path):
    trap = tmp_path / "ran"
    torch.save({"state_dict": {"w": torch.zeros(1)}, "x": Harmful(trap)}, tmp_path / "w.pth")
    with pytest.raises(FoveaError, match=r"mkdir.*without running code"):
        load_weights(create_backbone("resnet18", image_size=8), None, str(tmp_path / "w.pth"))
    assert not trap.exists()


def _whole_module(path):
    torch.save(torch.nn.Linear(2, 2), path)


def _torchscript(path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(path)


def _cut_short(path):
    torch.save({"conv1.weight": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:700])


def _plain_pickle(path):
    path.write_bytes(pickle.dumps([1, 2]))


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (_whole_module, "without running code"),
        (_torchscript, r"torch\.jit\.load"),
        (_cut_short, "cut off"),
        (_plain_pickle, "not a readable"),
        (
            lambda path: path.write_text("version https://git-lfs"),
            "not a readable",
        ),
        (lambda path: path.write_bytes(b""), ", 0 bytes,"),
        (lambda path: torch.save([torch.zeros(1)], path), "holds a list"),
        (lambda path: torch.save({"epoch": 3}, path), "only 0 of 100 tensors match"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # torch's own advice on what it is given here
def test_files_that_are_no_weights(write, says, tmp_path):
    write(tmp_path / "w.pth")
    with pytest.raises(FoveaError, match=says):
        load_weights(create_backbone("resnet18", image_size=8), None, str(tmp_path / "w.pth"))


def test_a_broken_safetensors_file(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"not tensors")
    with pytest.raises(FoveaError, match="not a readable checkpoint"):
        load_weights(
            create_backbone("resnet18", image_size=8), None, str(tmp_path / "w.safetensors")
        )


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Every connection fails, and every cache is empty."""

    def refuse(*_, **__):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr("torch.hub.urlopen", refuse)
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr(sources, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path


def test_a_failed_download_says_where_to_put_the_file(no_network):
    backbone = create_backbone("resnet18", image_size=64, stem="standard")
    with pytest.raises(FoveaError) as error:
        load_weights(backbone, None, "IMAGENET1K_V1")
    enum = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    file = no_network / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    assert enum.url in str(error.value)
    assert str(file) in str(error.value)
    assert "model.weights=/path" in str(error.value)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("<html>not found</html>")
    with pytest.raises(FoveaError, match="Could not fetch"):
        load_weights(backbone, None, "IMAGENET1K_V1")
    torch.save(torchvision.models.resnet18().state_dict(), file)
    report = load_weights(backbone, None, "IMAGENET1K_V1")
    assert report.source == "ResNet18_Weights.IMAGENET1K_V1 of torchvision"
    assert report.matched == report.total


def test_a_failed_timm_download_does_not_wait(no_network):
    backbone = create_backbone("test_vit", library="timm", image_size=160)
    with pytest.raises(FoveaError) as error:
        load_weights(backbone, None, True)
    url = "https://huggingface.co/timm/test_vit.r160_in1k/resolve/main/model.safetensors"
    assert url in str(error.value)
    assert "model.weights=/path" in str(error.value)


def test_published_timm_weights(monkeypatch):
    """With timm's own fetching in place of the network."""
    published = timm.create_model("test_vit").state_dict()
    asked = []

    def fetch(model_id, **_):
        asked.append(model_id)
        return published

    monkeypatch.setattr(sources, "try_to_load_from_cache", lambda *_: "in the cache")
    monkeypatch.setattr(sources, "load_state_dict_from_hf", fetch)
    backbone = create_backbone("test_vit", library="timm", image_size=160)
    report = load_weights(backbone, None, "pretrained")
    assert asked == ["timm/test_vit.r160_in1k"]
    assert report.source == "test_vit.r160_in1k of timm"
    assert report.adapted == {}
    assert report.matched == report.total
