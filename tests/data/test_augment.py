import pytest
import torch
from torchvision.transforms import v2

from fovea.data import Augment
from fovea.errors import FoveaError
from fovea.types import Preprocessing

LARGE = Preprocessing(96, resize=110)
SMALL = Preprocessing(32, resize=32)


def noise(*shape, seed=0):
    return torch.randint(
        0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def draws(transform, image, count=60):
    torch.manual_seed(0)
    return [transform(image) for _ in range(count)]


def crops_only(**options):
    return Augment(flip=0, **options)


def test_large_images_are_cropped_as_torchvision_does():
    image = noise(3, 120, 150)
    ours = draws(crops_only(scale=(0.2, 0.7)).image_transform(LARGE, hflip=True), image, 5)
    reference = draws(v2.RandomResizedCrop(96, (0.2, 0.7), antialias=True), image, 5)
    assert all(torch.equal(a, b) for a, b in zip(ours, reference, strict=True))


def test_small_images_are_padded_and_shifted():
    image = noise(3, 32, 32)
    padded = v2.functional.pad(image, [4])
    windows = {
        padded[:, y : y + 32, x : x + 32].numpy().tobytes() for y in range(9) for x in range(9)
    }
    seen = {
        drawn.numpy().tobytes()
        for drawn in draws(crops_only().image_transform(SMALL, hflip=True), image, 500)
    }
    assert seen <= windows
    assert len(seen) > 60  # of 81


def test_digits_are_shifted_by_one_pixel():
    transform = crops_only().image_transform(Preprocessing(8, 1, (0.3,), (0.4,), 8), hflip=False)
    image = noise(1, 8, 8)
    padded = v2.functional.pad(image, [1])
    windows = [padded[:, y : y + 8, x : x + 8] for y in range(3) for x in range(3)]
    for drawn in draws(transform, image):
        assert any(torch.equal(drawn, window) for window in windows)


@pytest.mark.parametrize(("hflip", "flips"), [(True, range(15, 46)), (False, [0])])
def test_flips_only_where_the_data_set_allows(hflip, flips):
    image = noise(3, 32, 32)
    transform = Augment(crop="none").image_transform(SMALL, hflip)
    drawn = draws(transform, image)
    assert sum(torch.equal(d, image.flip(-1)) for d in drawn) in flips
    assert all(torch.equal(d, image) or torch.equal(d, image.flip(-1)) for d in drawn)


def test_none_is_evaluation():
    image = noise(3, 40, 64)
    transform = Augment(crop="none", flip=0).image_transform(SMALL, hflip=True)
    reference = v2.CenterCrop(32)(v2.Resize(32, antialias=True)(image))
    assert torch.equal(transform(image), reference)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "options",
    [
        {"policy": "randaug"},
        {"policy": "trivialaug"},
        {"erase": 1.0},
        {"rotate": 20, "translate": 0.2},
        {"policy": "randaug", "num_ops": 3, "magnitude": 15, "erase": 0.5},
    ],
)
def test_every_option_changes_images_and_keeps_their_form(options, channels):
    mean = (0.5,) * channels
    preprocessing = Preprocessing(32, channels, mean, mean, resize=32)
    transform = Augment(crop="none", flip=0, **options).image_transform(preprocessing, hflip=True)
    image = noise(channels, 32, 32)
    drawn = draws(transform, image, 40)
    assert all(d.shape == image.shape and d.dtype == torch.uint8 for d in drawn)
    assert sum(not torch.equal(d, image) for d in drawn) > 15


@pytest.mark.parametrize("shape", [(1, 900), (900, 1), (1, 1), (20, 5000)])
@pytest.mark.parametrize("crop", ["resized", "pad", "none"])
def test_long_and_tiny_images_can_be_trained_on(shape, crop):
    image = torch.full((3, *shape), 90, dtype=torch.uint8)
    for drawn in draws(Augment(crop=crop).image_transform(LARGE, hflip=True), image, 5):
        assert drawn.shape == (3, 96, 96)
        assert drawn.max() == 90


def test_erased_pixels_are_zero_after_normalisation():
    preprocessing = Preprocessing(32, 3, (0.2, 0.5, 0.8), (0.5,) * 3, resize=32)
    transform = Augment(crop="none", flip=0, erase=1.0).image_transform(preprocessing, hflip=True)
    image = torch.full((3, 32, 32), 255, dtype=torch.uint8)
    erased = draws(transform, image, 1)[0]
    hole = (erased != 255).all(0)
    assert hole.any()
    assert preprocessing.normalize(erased)[:, hole].abs().max() < 0.005


def test_draws_come_from_torchs_generator_alone():
    """Else samples would not be a function of their seed."""
    augment = Augment(policy="randaug", erase=0.5, rotate=10, translate=0.1)
    transform, image = augment.image_transform(LARGE, hflip=True), noise(3, 120, 150)
    assert all(
        torch.equal(a, b)
        for a, b in zip(draws(transform, image, 10), draws(transform, image, 10), strict=True)
    )


def mixed(images, labels, **options):
    mix = Augment(**options).batch_transform(num_classes=4)
    assert mix is not None
    torch.manual_seed(1)
    return mix(images, labels)


def test_mixup_mixes_images_and_targets_alike():
    images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
    out, targets = mixed(images, labels, mixup=0.4)
    assert targets.shape == (4, 4)
    assert torch.allclose(targets.sum(1), torch.ones(4))
    share = targets[0, 0]  # of the image itself; the rest is of its neighbour
    assert 0 < share < 1
    assert torch.allclose(out, share * images + (1 - share) * images.roll(1, 0), atol=1e-6)
    expected = share * torch.eye(4) + (1 - share) * torch.eye(4).roll(1, 0)
    assert torch.allclose(targets, expected)


def test_cutmix_targets_are_the_areas():
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 16, 16).contiguous()
    out, targets = mixed(images, torch.tensor([0, 1, 2, 3]), cutmix=1.0)
    assert torch.allclose(targets.sum(1), torch.ones(4))
    for i in range(4):
        own = (out[i] == i).float().mean()
        assert torch.isclose(own, targets[i, i])
        assert 0 < own < 1


def test_either_is_drawn_when_both_are_on():
    mix = Augment(mixup=0.5, cutmix=1.0).batch_transform(4)
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 16, 16).contiguous()
    kinds = set()
    for seed in range(20):
        torch.manual_seed(seed)
        out, _ = mix(images, torch.tensor([0, 1, 2, 3]))
        kinds.add("cutmix" if torch.isin(out, torch.arange(4.0)).all() else "mixup")
    assert kinds == {"mixup", "cutmix"}


def test_no_mixing_by_default():
    assert Augment().batch_transform(10) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"crop": "padd"}, r"augment\.crop=padd.*Did you mean 'pad'"),
        ({"policy": "randaugment"}, r"augment\.policy=.*Did you mean 'randaug'"),
        ({"flip": 1.5}, r"augment\.flip=1\.5 must be from 0 to 1"),
        ({"erase": -0.1}, r"augment\.erase"),
        ({"magnitude": 31}, r"augment\.magnitude"),
        ({"mixup": -1}, r"augment\.mixup=-1 must be at least 0"),
        ({"scale": (0.5, 0.1)}, r"augment\.scale"),
        ({"ratio": (0, 1)}, r"augment\.ratio"),
    ],
)
def test_impossible_values_name_their_key(options, words):
    with pytest.raises(FoveaError, match=words):
        Augment(**options)


def test_describes_itself():
    assert Augment().describe(32, hflip=True) == "pad 4 and crop 32, flip 0.5"
    assert "flip" not in Augment().describe(224, hflip=False)
    assert Augment(crop="none", flip=0).describe(8, hflip=True) == "none"
    assert "mixup 0.2" in Augment(mixup=0.2).describe(224, hflip=True)
