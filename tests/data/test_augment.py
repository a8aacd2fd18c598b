import pytest
import torch
from torchvision.transforms import v2

from fovea.data import Augment
from fovea.data.decoding import TensorPicture
from fovea.data.draws import sample_seeds
from fovea.errors import FoveaError
from fovea.types import Preprocessing

LARGE = Preprocessing(96, resize=110)
SMALL = Preprocessing(32, resize=32)


def noise(*shape, seed=0):
    return torch.randint(
        0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def seeds(count):
    return sample_seeds(0, 0, torch.arange(count), torch.zeros(count, dtype=torch.int64))


def views(augment, preprocessing, image, count=60, **options):
    """What the loader makes of an image for so many samples."""
    view = augment.view(preprocessing, **options)
    return [view(TensorPicture(image), seed) for seed in seeds(count).tolist()]


def batches(augment, preprocessing, image, hflip, count=60):
    """What the device makes of an image for so many samples, back on [0, 255]."""
    images = image.expand(count, -1, -1, -1)
    out = augment.on_device(images, seeds(count), preprocessing, hflip)
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (preprocessing.mean, preprocessing.std))
    return (out * std + mean) * 255


def test_large_images_are_cropped_by_the_loader_and_not_shifted():
    image = noise(3, 120, 150)
    augment = Augment(flip=0)
    drawn = views(augment, LARGE, image)
    assert len({d.contiguous().numpy().tobytes() for d in drawn}) == 60
    out = batches(augment, LARGE, drawn[0], hflip=True)
    assert (out - drawn[0]).abs().max() < 1e-3


@pytest.mark.parametrize(("size", "places"), [(32, 81), (8, 9)])
def test_small_images_are_seen_whole_and_shifted_on_the_device(size, places):
    image, preprocessing = noise(3, size, size), Preprocessing(size, resize=size)
    augment = Augment(flip=0)
    assert all(torch.equal(d, image) for d in views(augment, preprocessing, image, 5))
    out = batches(augment, preprocessing, image, hflip=True, count=400).round()
    assert len({sample.numpy().tobytes() for sample in out}) == pytest.approx(places, abs=3)


def test_a_policy_sees_the_shifted_image():
    """As in published recipes: crop first, then the policy."""
    image = torch.full((3, 32, 32), 255, dtype=torch.uint8)
    augment = Augment(policy="randaug", magnitude=0, flip=0)
    drawn = views(augment, SMALL, image)
    assert sum((d == 0).any().item() for d in drawn) > 40, "black edges"
    out = batches(augment, SMALL, image, hflip=False)
    assert (out.round() == 255).all(), "not shifted again"


@pytest.mark.parametrize(("hflip", "flips"), [(True, range(15, 46)), (False, [0])])
def test_flips_only_where_the_data_set_allows(hflip, flips):
    image = noise(3, 32, 32)
    out = batches(Augment(crop="none"), SMALL, image, hflip).round()
    assert sum(torch.equal(sample, image.flip(-1).float()) for sample in out) in flips
    kept = (image.float(), image.flip(-1).float())
    assert all(torch.equal(sample, kept[0]) or torch.equal(sample, kept[1]) for sample in out)


def test_none_is_evaluation():
    image = noise(3, 40, 64)
    augment = Augment(crop="none", flip=0)
    reference = v2.CenterCrop(32)(v2.Resize(32, antialias=True)(image))
    (seen,) = views(augment, SMALL, image, 1)
    assert torch.equal(seen, reference)
    out = augment.on_device(seen[None], seeds(1), SMALL, hflip=True)
    assert torch.equal(out, SMALL.normalize(seen[None]))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "options",
    [
        {"policy": "randaug"},
        {"policy": "trivialaug"},
        {"rotate": 20, "translate": 0.2},
        {"policy": "randaug", "num_ops": 3, "magnitude": 15},
        {"erase": 1.0},
        {"cutout": 8},
        {"color_jitter": 0.4},
        {"policy": "randaug", "erase": 0.5, "color_jitter": 0.1},
    ],
    ids=str,
)
def test_every_option_changes_images_and_keeps_their_form(options, channels):
    mean = (0.5,) * channels
    preprocessing = Preprocessing(32, channels, mean, mean, resize=32)
    augment = Augment(crop="none", flip=0, **options)
    image = noise(channels, 32, 32)
    drawn = views(augment, preprocessing, image, 40)
    assert all(d.shape == image.shape and d.dtype == torch.uint8 for d in drawn)
    out = augment.on_device(torch.stack(drawn), seeds(40), preprocessing, hflip=True)
    assert out.shape == (40, channels, 32, 32)
    assert out.dtype == torch.float32
    plain = preprocessing.normalize(image)
    assert sum(not torch.allclose(sample, plain, atol=1e-5) for sample in out) > 15


@pytest.mark.parametrize("shape", [(1, 900), (900, 1), (1, 1), (20, 5000)])
@pytest.mark.parametrize("crop", ["resized", "pad", "none"])
def test_long_and_tiny_images_can_be_trained_on(shape, crop):
    image = torch.full((3, *shape), 90, dtype=torch.uint8)
    for drawn in views(Augment(crop=crop), LARGE, image, 5):
        assert drawn.shape == (3, 96, 96)
        assert (drawn == 90).all()


def test_erased_pixels_are_zero_after_normalisation():
    preprocessing = Preprocessing(32, 3, (0.2, 0.5, 0.8), (0.5,) * 3, resize=32)
    images = torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)
    augment = Augment(crop="none", flip=0, erase=1.0)
    out = augment.on_device(images, seeds(1), preprocessing, hflip=True)
    white = preprocessing.normalize(images)
    assert ((out == 0) | (out == white)).all()
    assert (out == 0).all(1).any()


@pytest.mark.parametrize("held", [False, True])
def test_a_sample_is_a_function_of_its_seed(held):
    augment = Augment(policy="randaug", crop="pad", rotate=10, translate=0.1)
    image = noise(3, 96, 96)
    first = views(augment, LARGE, image, 10, held=held)
    torch.rand(3)  # whatever else draws
    second = views(augment, LARGE, image, 10, held=held)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_steps_leave_torchs_generator_as_it_was():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    views(Augment(policy="randaug"), LARGE, noise(3, 96, 96), 2)
    assert torch.equal(torch.rand(1), expected)


def test_held_images_are_not_resized_again():
    image = noise(3, 96, 96)
    (seen,) = views(Augment(crop="none"), LARGE, image, 1, held=True)
    assert torch.equal(seen, image)


def mixed(images, labels, **options):
    mix = Augment(**options).batch_mix(num_classes=4)
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
    mix = Augment(mixup=0.5, cutmix=1.0).batch_mix(4)
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 16, 16).contiguous()
    kinds = set()
    for seed in range(20):
        torch.manual_seed(seed)
        out, _ = mix(images, torch.tensor([0, 1, 2, 3]))
        kinds.add("cutmix" if torch.isin(out, torch.arange(4.0)).all() else "mixup")
    assert kinds == {"mixup", "cutmix"}


def test_no_mixing_by_default():
    assert Augment().batch_mix(10) is None


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
    assert "cutout 8" in Augment(cutout=8).describe(32, hflip=True)
    assert "mixup 0.2" in Augment(mixup=0.2).describe(224, hflip=True)
