"""Several views of an image against torchvision's own transforms and the mean by hand."""

import lightning
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, log_loss
from torch import nn
from torchvision.transforms import v2

from fovea.data import FolderDataModule
from fovea.data.several_views import make_views
from fovea.errors import FoveaError
from fovea.judging import predict_split
from fovea.tasks import ClassificationTask
from fovea.types import Preprocessing


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Return a folder of noise, wider than high or the other way round, of three classes."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for split, count in (("train", 2), ("test", 4)):
        for name in ("ape", "bee", "cat"):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                shape = (20, 31, 3) if i % 2 else (27, 16, 3)
                pixels = rng.integers(0, 256, shape, dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


def data_of(root, **settings):
    data = FolderDataModule(
        root=str(root), image_size=12, batch_size=6, eval_batch_size=24, crop_ratio=0.75,
        **{"num_workers": 0, **settings},
    )  # fmt: skip
    data.prepare()
    return data


def task_of():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.Flatten(), nn.Tanh())
    return ClassificationTask(net, nn.Linear(200, 3), 3, ["ape", "bee", "cat"])


def trainer():
    return lightning.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip


def crops_by_hand(views, picture):
    """Return the views of a PIL image, as a user of torchvision would write them."""
    image = v2.functional.pil_to_tensor(picture)
    if views == "ten_crop":
        square = v2.CenterCrop(16)(v2.Resize(16, antialias=True)(image))
        return v2.TenCrop(12)(square)
    if views == "flip":
        single = [v2.CenterCrop(12)(v2.Resize(16, antialias=True)(image))]
    else:
        single = [v2.CenterCrop(12)(v2.Resize(s, antialias=True)(image)) for s in (12, 14, 15)]
    return [view for crop in single for view in (crop, v2.functional.horizontal_flip(crop))]


@pytest.mark.parametrize(
    ("views", "workers"), [("ten_crop", 0), ("ten_crop", 1), ("flip", 0), ("multi_scale", 0)]
)
def test_probabilities_are_the_mean_over_torchvisions_views(photos, views, workers):
    data, task = data_of(photos, num_workers=workers), task_of()
    data.views = make_views(views, data.preprocessing, data.hflip)
    found = predict_split(task, data, trainer(), "test")
    task.eval()
    expected = []
    for path in found.paths:
        crops = torch.stack(list(crops_by_hand(views, Image.open(path))))
        with torch.no_grad():
            logits = task(data.preprocessing.normalize(crops))
        expected.append(logits.softmax(dim=1).mean(dim=0))
    expected = torch.stack(expected)
    assert len(found) == 12
    torch.testing.assert_close(found.probabilities, expected, atol=1e-5, rtol=0)
    metrics = found.about["metrics"]
    labels = found.labels.numpy()
    assert metrics["test/top1"] == pytest.approx(accuracy_score(labels, expected.argmax(1)))
    assert metrics["test/loss"] == pytest.approx(log_loss(labels, expected.numpy()), rel=1e-5)
    assert found.about["views"].startswith(views)


def test_own_views_are_all_combinations(photos):
    preprocessing = data_of(photos).preprocessing
    choice = {"sizes": [16, 20], "crops": "five", "mirror": True}
    assert make_views(choice, preprocessing, hflip=True).count == 20
    names = {make_views(c, preprocessing, hflip=True).describe() for c in (choice, "ten_crop")}
    assert len(names) == 2, "other views have another description"


def test_own_shifts_of_five_crops_are_weighted(photos):
    """Fifteen views by hand: both shifted copies together weigh as much as the crop itself."""
    data, task = data_of(photos), task_of().eval()
    data.views = make_views({"crops": "five", "translate": 2}, data.preprocessing, hflip=True)
    found = predict_split(task, data, trainer(), "test")
    assert data.views.count == 15
    expected = []
    for path in found.paths:
        image = v2.functional.pil_to_tensor(Image.open(path))
        square = v2.CenterCrop(16)(v2.Resize(16, antialias=True)(image))
        total = torch.zeros(3)
        for crop in v2.FiveCrop(12)(square):
            padded = v2.functional.pad(crop, [2], padding_mode="reflect")
            views = torch.stack([crop, padded[:, :12, :12], padded[:, 4:, 4:]])
            with torch.no_grad():
                said = task(data.preprocessing.normalize(views)).softmax(dim=1)
            total += said[0] / 10 + (said[1] + said[2]) / 20
        expected.append(total)
    torch.testing.assert_close(found.probabilities, torch.stack(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("choice", "name"),
    [
        ({"mirror": True}, "flip"),
        ({"sizes": [], "crops": "center", "mirror": True}, "flip"),
        ({"sizes": [16], "mirror": True}, "flip"),
        ({"crops": "five", "mirror": True}, "ten_crop"),
        ({"sizes": [15, 12, 14], "mirror": True}, "multi_scale"),
        ({"sizes": [16]}, "center"),
        ({"mirror": True, "translate": 1, "average": "logits"}, "mirror_translate"),
    ],
)
def test_the_same_views_are_described_alike(photos, choice, name):
    preprocessing = data_of(photos).preprocessing
    views = [make_views(made, preprocessing, hflip=True) for made in (choice, name)]
    assert views[0] == views[1]
    assert views[0].describe() == views[1].describe()
    assert views[0].describe().startswith(name)


@pytest.mark.parametrize(
    ("choice", "resize", "hflip", "message"),
    [
        ("flip", 16, False, "data.hflip=true"),
        ("ten_crop", None, True, "data.crop_ratio=0.875"),
        ("ten_crop", 12, True, "all the same"),
        ("ten_crops", 16, True, "Did you mean 'ten_crop'"),
        ({"translate": 12}, 16, True, "views.translate=12"),
        ({"sizes": [10], "crops": "center", "mirror": False}, 16, True, "from 12 on"),
    ],
)
def test_views_that_make_no_sense_are_refused(choice, resize, hflip, message):
    with pytest.raises(FoveaError, match=message):
        make_views(choice, Preprocessing(12, resize=resize), hflip)
