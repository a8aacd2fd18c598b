"""What is seen of an image, against torchvision's transforms."""

import pytest
import torch
from scipy.stats import ks_2samp
from torchvision.transforms import v2

from fovea.data.decoding import TensorPicture
from fovea.data.draws import Draws
from fovea.data.views import EvaluationView, RandomResizedCrop
from fovea.types import Preprocessing

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


@pytest.mark.parametrize("shape", [(375, 500), (500, 333), (100, 900)])
def test_crops_are_distributed_as_torchvisions(shape):
    height, width = shape
    ours, source = RandomResizedCrop(224, SCALE, RATIO), Draws(0)
    reference, image = v2.RandomResizedCrop(224, SCALE, RATIO), torch.empty(3, *shape)
    torch.manual_seed(0)
    drawn, expected = [], []
    for _ in range(4000):
        drawn.append(ours.draw(height, width, source))
        params = reference.make_params([image])
        expected.append([params[key] for key in ("top", "left", "height", "width")])
    for top, left, h, w in drawn:
        assert 0 <= top <= top + h <= height
        assert 0 <= left <= left + w <= width
    ours_, theirs = torch.tensor(drawn).double().T, torch.tensor(expected).double().T
    statistics = {
        "area": lambda t: t[2] * t[3],
        "aspect": lambda t: t[3] / t[2],
        "row": lambda t: t[0] + t[2] / 2,
        "column": lambda t: t[1] + t[3] / 2,
    }
    for name, of in statistics.items():
        assert ks_2samp(of(ours_), of(theirs)).pvalue > 0.01, name


def test_a_crop_is_the_part_it_draws_resized():
    image = torch.randint(0, 256, (3, 90, 120), dtype=torch.uint8)
    view = RandomResizedCrop(64, (0.2, 0.7), RATIO)
    for seed in range(5):
        top, left, h, w = view.box(90, 120, seed)
        part = image[:, top : top + h, left : left + w]
        expected = v2.functional.resize(part, [64, 64], antialias=True)
        assert torch.equal(view(TensorPicture(image), seed), expected)


def test_crops_of_very_large_images_lie_on_multiples_of_four():
    view, source = RandomResizedCrop(32, SCALE, RATIO), Draws(0)
    large = [view.draw(3000, 4000, source) for _ in range(200)]
    assert all(edge % 4 == 0 for box in large for edge in box if min(box[2:]) >= 192)
    assert sum(min(box[2:]) >= 192 for box in large) > 150
    small = [view.draw(300, 400, source) for _ in range(200)]
    assert any(edge % 4 for box in small for edge in box)


@pytest.mark.parametrize("size", [(20, 15), (15, 20), (16, 16)])
def test_the_whole_image_is_seen_without_resize(size):
    image = torch.randint(0, 256, (1, *size), dtype=torch.uint8)
    seen = EvaluationView(Preprocessing(12, channels=1, resize=None))(TensorPicture(image))
    assert torch.equal(seen, v2.functional.resize(image, [12, 12], antialias=True))
