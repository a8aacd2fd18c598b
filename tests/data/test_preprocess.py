import pytest

from fovea.data.preprocess import PreprocessingChoice
from fovea.errors import FoveaError
from fovea.types import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

OWN = Preprocessing(32, 3, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), resize=32)
GREY = Preprocessing(8, 1, (0.3,), (0.4,), resize=8)
WEIGHTS = Preprocessing(224, 3, (0.5,) * 3, (0.25,) * 3, resize=232, interpolation="bicubic")


def test_the_data_sets_own_holds_by_default():
    assert PreprocessingChoice().resolve(OWN, None) == OWN


def test_weights_come_before_the_data_sets_own():
    assert PreprocessingChoice().resolve(OWN, WEIGHTS) == WEIGHTS


def test_the_user_comes_before_the_weights():
    choice = PreprocessingChoice(
        image_size=96, mean=IMAGENET_MEAN, std=IMAGENET_STD, interpolation="bilinear", crop_ratio=1
    )
    assert choice.resolve(OWN, WEIGHTS) == Preprocessing(96, resize=96)


def test_another_size_keeps_the_crop_ratio():
    assert PreprocessingChoice(image_size=112).resolve(OWN, WEIGHTS).resize == 116
    small = Preprocessing(160, resize=182)
    assert PreprocessingChoice(image_size=224).resolve(small, None).resize == 255


def test_crop_ratio_sets_the_resize():
    assert PreprocessingChoice(crop_ratio=0.875).resolve(OWN, WEIGHTS).resize == 256


def test_weights_without_a_crop_see_the_whole_image():
    assert PreprocessingChoice().resolve(OWN, Preprocessing(224, resize=None)).resize is None


def test_grey_for_rgb_weights_and_rgb_for_grey_data():
    grey = PreprocessingChoice(channels=1).resolve(OWN, None)
    assert grey.mean == pytest.approx((0.2,))
    assert grey.std == pytest.approx((0.5,))
    assert PreprocessingChoice(channels=3).resolve(GREY, None).mean == (0.3, 0.3, 0.3)
    assert PreprocessingChoice().resolve(GREY, WEIGHTS).channels == 3


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"image_size": 0}, "image_size"),
        ({"channels": 4}, "channels"),
        ({"crop_ratio": 1.2}, "crop_ratio"),
        ({"crop_ratio": 0}, "crop_ratio"),
        ({"interpolation": "nearest"}, "interpolation"),
        ({"std": (0.0,)}, "std"),
    ],
)
def test_impossible_settings_name_their_key(options, key):
    with pytest.raises(FoveaError, match=rf"data\.{key}="):
        PreprocessingChoice(**options)


def test_a_mean_of_another_length_is_refused():
    with pytest.raises(FoveaError, match=r"data\.mean"):
        PreprocessingChoice(channels=1, mean=IMAGENET_MEAN).resolve(OWN, None)
