"""Augmentation by batch, against torchvision's of single images."""

import pytest
import torch
from scipy.stats import ks_2samp
from torchvision.transforms import v2

from fovea.data import batch_augment
from fovea.data.batch_augment import (
    alternating_flip,
    cut_out,
    erase_rectangles,
    flip_and_shift,
    jitter_colour,
)
from fovea.data.draws import sample_seeds, uniform

COUNT = 2000


def seeds(count=COUNT, epoch=0):
    return sample_seeds(0, epoch, torch.arange(count), torch.zeros(count, dtype=torch.int64))


def noise(count, channels=3, size=32):
    generator = torch.Generator().manual_seed(0)
    shape = (count, size, size, channels)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).permute(0, 3, 1, 2)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("reflect", [False, True])
@pytest.mark.parametrize(("flip", "padding"), [(0.5, 4), (0.0, 4), (1.0, 1), (0.5, 0)])
def test_slices_on_the_cpu_and_indices_elsewhere_give_the_same(channels, flip, padding, reflect):
    images, drawn = noise(50, channels, 16), seeds(50)
    ours = flip_and_shift(images, drawn, flip, padding, reflect)
    mirrored = uniform(drawn, batch_augment._FLIP) < flip
    reference = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    if padding:
        reference = batch_augment._shift_by_index(reference, drawn, padding, reflect)
    assert torch.equal(ours, reference)
    assert ours.is_contiguous(memory_format=torch.channels_last)


def test_shifts_are_those_of_torchvisions_random_crop():
    """All 81 windows come, equally often; flips in half of the images."""
    image = noise(1)[0]
    padded = v2.functional.pad(image, [4])
    windows = {}
    for y in range(9):
        for x in range(9):
            window = padded[:, y : y + 32, x : x + 32]
            windows[window.numpy().tobytes()] = (y, x)
    flipped = {
        v2.functional.pad(image.flip(-1), [4])[:, y : y + 32, x : x + 32].numpy().tobytes()
        for y in range(9)
        for x in range(9)
    }
    out = flip_and_shift(image.expand(8100, -1, -1, -1), seeds(8100), 0.5, 4)
    texts = [sample.contiguous().numpy().tobytes() for sample in out]
    plain = [windows[text] for text in texts if text in windows]
    assert all(text in windows or text in flipped for text in texts)
    assert 3850 < len(plain) < 4250
    counts = torch.bincount(torch.tensor([9 * y + x for y, x in plain]), minlength=81)
    expected = len(plain) / 81
    # Chi-squared with 80 degrees of freedom: above 124.8 once in a thousand.
    assert ((counts - expected) ** 2 / expected).sum() < 124.8


def test_alternating_flips_turn_each_image_every_other_epoch():
    epochs = [alternating_flip(seeds(), 0.3, epoch) for epoch in range(4)]
    assert 0.26 < epochs[0].float().mean() < 0.34
    assert torch.equal(epochs[1], ~epochs[0])
    assert torch.equal(epochs[2], epochs[0])
    assert torch.equal(epochs[3], epochs[1])


def test_colour_is_that_of_torchvision_with_the_same_factors():
    images, drawn = noise(20).float() / 255, seeds(20)
    ours = jitter_colour(images, drawn, 0.4)
    factors = [
        0.6 + 0.8 * uniform(drawn, draw)
        for draw in (
            batch_augment._BRIGHTNESS,
            batch_augment._CONTRAST,
            batch_augment._SATURATION,
        )
    ]
    for i, image in enumerate(images):
        expected = v2.functional.adjust_brightness(image, factors[0][i].item())
        expected = v2.functional.adjust_contrast(expected, factors[1][i].item())
        expected = v2.functional.adjust_saturation(expected, factors[2][i].item())
        assert torch.allclose(ours[i], expected, atol=2e-6)
    assert factors[0].min() >= 0.6
    assert factors[0].max() < 1.4


def test_colour_of_grey_images_keeps_one_channel():
    assert jitter_colour(noise(4, 1).float() / 255, seeds(4), 0.4).shape == (4, 1, 32, 32)


def holes(images):
    return (images == 0).all(1)


def test_erased_rectangles_are_distributed_as_torchvisions():
    size = 64
    out = erase_rectangles(torch.ones(COUNT, 1, size, size), seeds(), probability=1.0)
    torch.manual_seed(0)
    erase = v2.RandomErasing(1.0)
    reference = torch.cat([erase(torch.ones(1, 1, size, size)) for _ in range(COUNT)])
    measures = {
        "area": lambda mask: mask.sum((1, 2)),
        "height": lambda mask: mask.any(2).sum(1),
        "width": lambda mask: mask.any(1).sum(1),
        "row": lambda mask: mask.any(2).float().argmax(1),
        "column": lambda mask: mask.any(1).float().argmax(1),
    }
    for name, of in measures.items():
        assert ks_2samp(of(holes(out)), of(holes(reference))).pvalue > 0.01, name
    box = holes(out)
    assert torch.equal(box.sum((1, 2)), box.any(1).sum(1) * box.any(2).sum(1)), "rectangles"


def test_a_share_of_the_images_is_erased():
    out = erase_rectangles(torch.ones(COUNT, 1, 16, 16), seeds(), probability=0.25)
    changed = holes(out).flatten(1).any(1).float().mean()
    assert 0.21 < changed < 0.29


@pytest.mark.parametrize("side", [1, 8])
def test_cutout_is_a_square_that_may_reach_over_the_edge(side):
    mask = holes(cut_out(torch.ones(COUNT, 2, 16, 16), seeds(), side))
    heights, widths = mask.any(2).sum(1), mask.any(1).sum(1)
    assert heights.max() == widths.max() == side
    assert torch.equal(mask.sum((1, 2)), heights * widths)
    assert heights.min() == (side + 1) // 2  # its centre is always inside
    middle = mask.float().mean(0)[8, 8]
    assert abs(middle - side**2 / 256) < 0.04


def test_draws_depend_on_the_sample_not_on_its_place():
    images, drawn = noise(10), seeds(10)
    whole = flip_and_shift(images, drawn, 0.5, 4)
    alone = [flip_and_shift(images[i : i + 1], drawn[i : i + 1], 0.5, 4)[0] for i in range(10)]
    assert torch.equal(whole, torch.stack(alone))
