import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from fovea.data import UnreadableImage, decode_image, evaluation_transform
from fovea.errors import FoveaError
from fovea.types import Preprocessing

HEIGHT, WIDTH = 24, 40


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def rgb():
    """Smooth enough that JPEG keeps it."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([6 * x, 10 * y, 3 * x + 5 * y], axis=2).astype(np.uint8)


def chw(array):
    return torch.from_numpy(np.array(array)).permute(2, 0, 1)


def save(path, image, **options):
    Image.fromarray(image).save(path, **options) if isinstance(image, np.ndarray) else image.save(
        path, **options
    )
    return path


def test_rgb_png_is_decoded_exactly(tmp_path):
    pixels = noise(HEIGHT, WIDTH, 3)
    image = decode_image(save(tmp_path / "a.png", pixels))
    assert image.dtype == torch.uint8
    assert torch.equal(image, chw(pixels))


def test_grey_is_repeated_for_rgb_and_kept_for_one_channel(tmp_path):
    pixels = noise(HEIGHT, WIDTH)
    path = save(tmp_path / "a.png", pixels)
    assert torch.equal(decode_image(path, 1), torch.from_numpy(pixels)[None])
    assert torch.equal(decode_image(path, 3), torch.from_numpy(pixels).expand(3, -1, -1))


def test_rgb_becomes_grey_by_luma(tmp_path):
    pixels = noise(HEIGHT, WIDTH, 3)
    image = decode_image(save(tmp_path / "a.png", pixels), 1)
    luma = pixels @ np.array([0.299, 0.587, 0.114])
    assert image.shape == (1, HEIGHT, WIDTH)
    assert (image[0].numpy() - luma).__abs__().max() <= 1


def test_palette(tmp_path):
    image = Image.fromarray(rgb()).quantize(16)
    path = save(tmp_path / "a.png", image)
    assert torch.equal(decode_image(path), chw(image.convert("RGB")))


def test_transparency_is_laid_on_white(tmp_path):
    pixels = noise(HEIGHT, WIDTH, 4)
    pixels[..., 3] = 255
    pixels[:4, :, 3] = 0
    pixels[4:8, :, 3] = 128
    image = decode_image(save(tmp_path / "a.png", pixels)).numpy().transpose(1, 2, 0)
    assert (image[:4] == 255).all()
    half = 255 + (pixels[4:8, :, :3].astype(float) - 255) * 128 / 255
    assert np.abs(image[4:8] - half).max() <= 1
    assert (image[8:] == pixels[8:, :, :3]).all()


def test_transparent_palette_colour_is_laid_on_white(tmp_path):
    image = Image.new("P", (WIDTH, HEIGHT), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.paste(1, (0, 0, WIDTH // 2, HEIGHT))
    decoded = decode_image(save(tmp_path / "a.png", image, transparency=0))
    assert decoded[:, 0, 0].tolist() == [200, 100, 50]
    assert decoded[:, 0, -1].tolist() == [255, 255, 255]


def test_cmyk_jpeg(tmp_path):
    path = save(tmp_path / "a.jpg", Image.fromarray(rgb()).convert("CMYK"), quality=95)
    difference = decode_image(path).int() - chw(rgb()).int()
    assert difference.abs().float().mean() < 4


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_keeps_its_high_byte(tmp_path, suffix):
    values = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 68
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(values))
    assert values.max() > 65000
    assert torch.equal(decode_image(path, 1)[0], torch.from_numpy((values // 256).astype(np.uint8)))


def test_float_pixels_are_named(tmp_path):
    path = save(tmp_path / "a.tif", Image.fromarray(np.ones((4, 4), dtype=np.float32)))
    with pytest.raises(UnreadableImage, match="float"):
        decode_image(path)


def test_exif_orientation_is_applied(tmp_path):
    upright = Image.fromarray(rgb())
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned by 90 degrees to the left; shown turned to the right
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    path = save(tmp_path / "a.png", turned, exif=exif)
    assert torch.equal(decode_image(path), chw(rgb()))


def test_progressive_jpeg(tmp_path):
    plain = decode_image(save(tmp_path / "a.jpg", rgb(), quality=95))
    progressive = decode_image(save(tmp_path / "b.jpg", rgb(), quality=95, progressive=True))
    assert b"\xff\xc2" in (tmp_path / "b.jpg").read_bytes()
    assert (plain.int() - progressive.int()).abs().max() <= 1


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_the_first_frame_of_an_animation_counts(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    path = tmp_path / f"a.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
    image = decode_image(path)
    assert image.shape == (3, 8, 8)
    assert image[:, 4, 4].tolist() == [255, 0, 0]


def test_the_content_decides_the_format(tmp_path):
    pixels = noise(HEIGHT, WIDTH, 3)
    path = save(tmp_path / "a.png", pixels).rename(tmp_path / "a.jpg")
    assert torch.equal(decode_image(path), chw(pixels))


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_truncated_files_are_named(tmp_path, suffix):
    path = save(tmp_path / f"a.{suffix}", noise(64, 64, 3))
    path.write_bytes(path.read_bytes()[:-1500])
    with pytest.raises(UnreadableImage, match=r"truncated|broken|incomplete") as caught:
        decode_image(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "empty"), (b"<html>404</html>", "not an image")]
)
def test_what_is_no_image_is_named(tmp_path, content, words):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(FoveaError, match=words) as caught:
        decode_image(path)
    assert str(path) in str(caught.value)
    assert "data.on_bad_image=skip" in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UnreadableImage, match="No such file"):
        decode_image(tmp_path / "gone.jpg")


def test_decompression_bombs_are_named_and_large_images_read(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", Image.new("L", (100, 90)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)  # 9000 pixels: below twice the limit
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        assert decode_image(path).shape == (3, 90, 100)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    with pytest.raises(UnreadableImage, match="too many pixels"):
        decode_image(path)


# The transform of evaluation, against plain torchvision.


@pytest.mark.parametrize("shape", [(300, 400), (500, 333), (256, 256), (60, 80), (227, 225)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_evaluation_pixels_are_torchvisions(tmp_path, shape, interpolation):
    image = chw(noise(*shape, 3)).contiguous()
    ours = evaluation_transform(Preprocessing(224, resize=256, interpolation=interpolation))(image)
    mode = v2.InterpolationMode(interpolation)
    reference = v2.Compose(
        [v2.Resize(256, interpolation=mode, antialias=True), v2.CenterCrop(224)]
    )(image)
    assert ours.dtype == torch.uint8
    assert torch.equal(ours, reference)


def test_evaluation_pixels_are_those_of_pillow(tmp_path):
    """The classic torchvision pipeline on PIL images, which published accuracies come from."""
    pixels = noise(300, 400, 3)
    path = save(tmp_path / "a.png", pixels)
    ours = evaluation_transform(Preprocessing(224, resize=256))(decode_image(path))
    reference = v2.Compose([v2.Resize(256), v2.CenterCrop(224), v2.PILToTensor()])(
        Image.fromarray(pixels)
    )
    assert (ours.int() - reference.int()).abs().max() <= 1


def test_without_resize_the_whole_image_is_seen():
    image = torch.zeros(1, 20, 60, dtype=torch.uint8)
    image[:, :, :20], image[:, :, -20:] = 100, 200
    seen = evaluation_transform(Preprocessing(12, channels=1, resize=None))(image)
    assert seen.shape == (1, 12, 12)
    assert seen[0, 6, 0] == 100
    assert seen[0, 6, -1] == 200


@pytest.mark.parametrize("shape", [(1, 500), (500, 1), (1, 1), (30, 20_000), (1, 20_000)])
def test_very_long_images_do_not_fill_the_memory(shape):
    image = torch.full((3, *shape), 77, dtype=torch.uint8)
    seen = evaluation_transform(Preprocessing(224, resize=256))(image)
    assert seen.shape == (3, 224, 224)
    assert (seen == 77).all()


def test_trimming_long_images_does_not_move_what_is_seen():
    image = chw(noise(40, 40 * 18, 3)).contiguous()  # just above the limit
    ours = evaluation_transform(Preprocessing(32, resize=40))(image)
    reference = v2.CenterCrop(32)(v2.Resize(40, antialias=True)(image))
    assert torch.equal(ours, reference)


def test_paths_may_be_text_or_path(tmp_path):
    path = save(tmp_path / "bild ä.png", noise(4, 4, 3))
    assert torch.equal(decode_image(str(path)), decode_image(Path(path)))
