import pandas as pd
import pytest
import torch
from PIL import Image

from fovea.evaluation import Predictions
from fovea.evaluation.duplicates import effect_of_duplicates, plot_pairs


def predictions():
    """Ten samples, numbered 0, 3, 6, …; the first seven are right."""
    labels = torch.arange(10) % 2
    guesses = torch.where(torch.arange(10) < 7, labels, 1 - labels)
    return Predictions(
        torch.arange(10) * 3, labels, torch.nn.functional.one_hot(guesses, 2).float()
    )


def test_the_score_without_the_duplicates():
    effect = effect_of_duplicates(predictions(), [0, 3, 9, 27])  # three right, one wrong
    assert (effect.duplicates, effect.samples) == (4, 10)
    assert effect.top1 == pytest.approx(7 / 10)
    assert effect.top1_without == pytest.approx(4 / 6)
    assert effect.sentence("test") == (
        "4 of 10 test images have a near-duplicate in train; without them top-1 is 66.67 % "
        "instead of 70.00 %."
    )


def test_no_duplicates_nothing_but_duplicates_and_images_that_were_left_out():
    none = effect_of_duplicates(predictions(), [])
    assert none.sentence("val") == "None of 10 val images has a near-duplicate in train."
    assert none.top1_without == none.top1
    every = effect_of_duplicates(predictions(), range(0, 30, 3))
    assert every.top1_without is None
    assert "nothing is left" in every.sentence("test")
    # Sample 1 could not be read, so there is no prediction of it.
    assert effect_of_duplicates(predictions(), [1]).duplicates == 0


def test_pairs_are_drawn_side_by_side(tmp_path):
    count = 30
    pairs = pd.DataFrame(
        {
            "path": [f"/data/{i}.jpg" for i in range(count)],
            "label": "cat",
            "twin_label": ["cat", "dog"] * 15,
            "distance": 4,
            "similarity": 0.8,
            "mirrored": [i % 3 == 0 for i in range(count)],
        }
    )
    asked = []

    def images_of(number):
        asked.append(number)
        left = torch.zeros(3, 32, 24, dtype=torch.uint8)
        left[0] = 255
        right = torch.zeros(3, 500, 700, dtype=torch.uint8)
        right[2] = 255
        return left, right

    plot_pairs(pairs, images_of, tmp_path / "sheet.png", "30 pairs", count=10)
    assert asked == [0, 3, 6, 10, 13, 16, 19, 23, 26, 29]  # from the first to the last
    colours = Image.open(tmp_path / "sheet.png").convert("RGB").getcolors(2**20)
    areas = {colour: n for n, colour in colours}
    assert areas[255, 0, 0] == areas[0, 0, 255] > 10 * 90 * 90
