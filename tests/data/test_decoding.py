"""The fast way of decoding, against Pillow's."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from fovea.data import FolderDataModule, UnreadableImage, decode_image, nvimagecodec
from fovea.data.decoding import JpegPicture, PillowPicture, open_picture
from fovea.data.images import decode_bytes
from fovea.data.views import EvaluationView, evaluation_transform
from fovea.types import Preprocessing
from photo import photo as picture_of

# Above the size up to which images are decoded whole.
HEIGHT, WIDTH = 261, 330


def photo(height=HEIGHT, width=WIDTH, seed=0):
    return picture_of(height, width, seed)


def encoded(image, kind="JPEG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def whole(picture):
    size = picture.height, picture.width
    return picture.region(0, 0, *size, target=size)


BOXES = [
    (0, 0, HEIGHT, WIDTH), (0, 0, 17, 23), (5, 9, 40, 60), (50, 80, 211, 250), (260, 320, 1, 10),
]  # fmt: skip


@pytest.mark.parametrize("way", ["auto", "simplejpeg", "pil"])
@pytest.mark.parametrize(
    "options",
    [{"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}, {"progressive": True}],
    ids=str,
)
def test_parts_are_those_of_the_whole_image_to_the_bit(options, way):
    data = encoded(photo(), quality=90, **options)
    expected = decode_bytes(data, "a.jpg")
    picture = open_picture(data, "a.jpg", decode=way)
    assert isinstance(picture, PillowPicture if way == "pil" else JpegPicture)
    assert (picture.height, picture.width) == (HEIGHT, WIDTH)
    for top, left, h, w in BOXES:
        part = picture.region(top, left, h, w, target=(h, w))
        assert torch.equal(part, expected[:, top : top + h, left : left + w])
    assert picture.fast


@pytest.mark.skipif(not nvimagecodec.available(), reason="no nvImageCodec here")
def test_parts_are_decoded_by_nvimagecodec_where_that_is_quicker(monkeypatch):
    calls = []
    decode_part = nvimagecodec.decode_part
    monkeypatch.setattr(
        nvimagecodec, "decode_part", lambda *box: calls.append(box[1:]) or decode_part(*box)
    )
    for size, box, alone in (
        ((300, 400), (5, 9, 200, 290), True),
        ((300, 400), (5, 9, 210, 290), False),
        ((200, 300), (5, 9, 100, 170), True),
        ((200, 300), (5, 9, 110, 170), False),
    ):
        picture = open_picture(encoded(photo(*size)), "a.jpg")
        part = picture.region(*box, target=(32, 32))
        top, left, height, width = box
        assert torch.equal(part, whole(picture)[:, top : top + height, left : left + width])
        assert calls == ([(*box, 3)] if alone else [])
        calls.clear()


def test_without_nvimagecodec_the_pixels_are_the_same(monkeypatch):
    data = encoded(photo())
    expected = open_picture(data, "a.jpg").region(5, 9, 40, 60, target=(32, 32))
    monkeypatch.setattr(nvimagecodec, "available", lambda: False)
    assert torch.equal(open_picture(data, "a.jpg").region(5, 9, 40, 60, (32, 32)), expected)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("channels", [1, 3])
def test_grey_and_colour(mode, channels):
    data = encoded(photo().convert(mode))
    picture = open_picture(data, "a.jpg", channels)
    for box in BOXES:
        top, left, h, w = box
        expected = decode_bytes(data, "a.jpg", channels)[:, top : top + h, left : left + w]
        part = picture.region(*box, target=(h, w))
        assert part.shape == expected.shape
        # Two formulas for grey of colour, which round differently.
        assert (part.int() - expected.int()).abs().max() <= (mode == "RGB" and channels == 1)
    assert picture.fast


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured_alike(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photo(), exif=exif)
    expected = decode_bytes(data, "a.jpg")
    picture = open_picture(data, "a.jpg")
    assert (picture.height, picture.width) == expected.shape[-2:]
    assert torch.equal(whole(picture), expected)
    part = picture.region(7, 11, 30, 40, target=(30, 40))
    assert torch.equal(part, expected[:, 7:37, 11:51])
    assert picture.fast


@pytest.mark.parametrize(
    ("kind", "image"),
    [
        ("JPEG", photo().convert("CMYK")),
        ("PNG", photo()),
        ("WEBP", photo()),
        ("PNG", Image.fromarray(np.arange(2400, dtype=np.uint16).reshape(40, 60) * 27)),
        ("PNG", photo().convert("RGBA")),
        ("GIF", photo().quantize(16)),
    ],
    ids=["cmyk", "png", "webp", "16 bit", "alpha", "palette"],
)
def test_what_the_fast_way_does_not_take_is_read_by_pillow(kind, image):
    data = encoded(image, kind)
    picture = open_picture(data, "a")
    assert torch.equal(whole(picture), decode_bytes(data, "a"))
    assert not picture.fast
    assert open_picture(data, "a", decode="pil").fast, "chosen, not fallen back to"


def test_bytes_after_the_end_do_not_matter():
    data = encoded(photo())
    expected = decode_bytes(data, "a")
    for tail, fast in ((bytes(10), True), (bytes(500), False)):
        picture = open_picture(data + tail, "a")
        assert picture.fast == fast
        assert torch.equal(whole(picture), expected)


@pytest.mark.parametrize("way", ["auto", "simplejpeg", "pil"])
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"\xff\xd8\xff", "not an image"),
        (b"<html>404</html>", "not an image"),
        (encoded(photo())[:-1500], "truncated"),
        (encoded(photo())[:-2], "truncated"),
    ],
    ids=["empty", "start only", "html", "cut", "end only cut"],
)
def test_broken_files_say_the_same_whichever_way(data, words, way):
    with pytest.raises(UnreadableImage, match=words) as caught:
        # Only the first rows, which a cut file still has.
        open_picture(data, "photos/a.jpg", decode=way).region(0, 0, 4, 4, target=(4, 4))
    assert "photos/a.jpg" in str(caught.value)


def test_the_verdict_on_damage_inside_is_pillows():
    data = bytearray(encoded(photo(), quality=95))
    middle = len(data) // 2
    data[middle : middle + 4] = b"\xff\x55\xff\x55"  # markers that do not exist
    with pytest.raises(UnreadableImage) as expected:
        decode_bytes(bytes(data), "a")
    picture = open_picture(bytes(data), "a")
    with pytest.raises(UnreadableImage) as caught:
        whole(picture)
    assert caught.value.reason == expected.value.reason
    # A part above the damage is as good as ever.
    sound = decode_bytes(encoded(photo(), quality=95), "a")
    assert torch.equal(picture.region(2, 3, 20, 40, target=(20, 40)), sound[:, 2:22, 3:43])


def test_bombs_are_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    with pytest.raises(UnreadableImage, match="too many pixels"):
        whole(open_picture(encoded(photo()), "a.jpg"))


def psnr(one, other):
    error = ((one.double() - other.double()) ** 2).mean().item()
    return 10 * np.log10(255**2 / max(error, 1e-9))


@pytest.mark.parametrize(("reduction", "denominator"), [(3, 1), (6, 2), (11, 2), (12, 4), (20, 4)])
def test_much_larger_images_are_decoded_smaller_and_look_the_same(reduction, denominator):
    size = 32
    height, width = size * reduction, size * reduction * 5 // 4
    data = encoded(photo(height, width), quality=92)
    picture = open_picture(data, "a.jpg")
    part = picture.region(0, 0, height, width, target=(size, size))
    assert part.shape == (3, height // denominator, width // denominator)
    seen = EvaluationView(Preprocessing(size, resize=size))
    ours = seen(open_picture(data, "a.jpg"))
    reference = seen(open_picture(data, "a.jpg", decode="pil"))
    assert psnr(ours, reference) >= 50


def test_parts_off_the_grid_are_decoded_at_full_scale():
    """They would be shifted by part of a pixel."""
    data = encoded(photo(401, 500), quality=92)
    picture = open_picture(data, "a.jpg")
    assert picture.region(0, 0, 401, 500, target=(32, 32)).shape == (3, 401, 500)
    assert picture.region(1, 0, 400, 400, target=(32, 32)).shape == (3, 400, 400)
    assert picture.region(4, 8, 396, 400, target=(32, 32)).shape == (3, 99, 100)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_turned_images_are_decoded_smaller_as_well(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photo(384, 512), exif=exif, quality=92)
    seen = EvaluationView(Preprocessing(32, resize=32))
    picture = open_picture(data, "a.jpg")
    assert min(picture.region(0, 0, picture.height, picture.width, (32, 32)).shape[1:]) == 96
    assert psnr(seen(picture), seen(open_picture(data, "a.jpg", decode="pil"))) >= 50


def test_nothing_is_printed_and_the_environment_stays(tmp_path):
    path = tmp_path / "a.jpg"
    photo().save(path)
    code = (
        "import os; from fovea.data.decoding import open_file; "
        f"print(open_file({str(path)!r}).region(5, 9, 40, 60, (32, 32)).shape); "
        "print('NVIMGCODEC_EXTENSIONS_PATH' in os.environ)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "NVIMGCODEC_EXTENSIONS_PATH"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True, text=True, env=environment, timeout=120,
    )  # fmt: skip
    assert done.stdout == "torch.Size([3, 40, 60])\nFalse\n"
    assert done.stderr == ""


def test_files_of_all_kinds_agree_with_decode_image(tmp_path):
    """Through the data set that training reads, fallback count included."""
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(6):
            photo(60, 80, seed=i).save(tmp_path / name / f"{i}.jpg", quality=95)
        photo(60, 80, seed=9).save(tmp_path / name / "9.png")
    data = FolderDataModule(str(tmp_path), image_size=32, batch_size=4, num_workers=2)
    view, dataset = evaluation_transform(data.preprocessing), data.dataset("train")
    for batch in data.dataloader("train"):
        for image, index in zip(batch.images, batch.indices.tolist(), strict=True):
            if index >= 0:
                assert torch.equal(image, view(decode_image(dataset.path(index))))
    read, slow = data.decoded()
    assert read == len(dataset)
    assert slow == sum(dataset.path(i).endswith("png") for i in range(len(dataset)))
