"""What ``decode=gpu`` does, on the CPU: the same steps with another decoder."""

import pytest
import torch
from PIL import Image

from fovea.data import Augment, FolderDataModule, SampleKey, UnreadableImage, nvimagecodec
from fovea.data.undecoded import EncodedPart, UndecodedImages
from fovea.errors import FoveaError
from photo import photo

pytestmark = pytest.mark.skipif(not nvimagecodec.available(), reason="no nvImageCodec here")


@pytest.fixture
def root(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(6):
            photo(60 + i, 80, seed=i).save(tmp_path / name / f"{i}.jpg", quality=95)
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(70, 90).save(tmp_path / "a" / "turned.jpg", exif=exif)
    photo(70, 90).convert("L").save(tmp_path / "b" / "grey.jpg")
    photo(70, 90).save(tmp_path / "b" / "other.png")
    return tmp_path


def folder(root, **options):
    common = {"image_size": 32, "batch_size": 4, "num_workers": 0, "augment": Augment(
        crop="resized")}  # fmt: skip
    return FolderDataModule(str(root), **{**common, **options})


@pytest.mark.parametrize("training", [True, False])
def test_batches_are_those_of_the_other_ways(root, training):
    whole = {}
    for way in ("gpu", "auto"):
        data = folder(root, decode=way)
        dataset = data._dataset("train", training)
        batch = dataset.batch([SampleKey(index) for index in range(len(dataset))])
        if way == "gpu":
            assert isinstance(batch.images, UndecodedImages)
            kinds = [isinstance(image, EncodedPart) for image in batch.images.images]
            assert any(kinds)
            assert not all(kinds)
            assert torch.equal(dataset[0].images, batch.images.decode(torch.device("cpu"))[0])
        whole[way] = data.on_after_batch_transfer(batch, 0)
    for ours, theirs in zip(whole["gpu"], whole["auto"], strict=True):
        assert (ours is theirs is None) or torch.equal(ours, theirs)


def test_what_the_decoder_refuses_goes_to_pillow_and_its_verdict_counts(root):
    data = bytearray((root / "a" / "0.jpg").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4] = b"\xff\x55\xff\x55"
    (root / "a" / "0.jpg").write_bytes(data)
    module = folder(root, decode="gpu", augment=Augment(crop="none"))
    dataset = module._dataset("train", training=False)
    index = next(i for i in range(len(dataset)) if dataset.path(i).endswith("a/0.jpg"))
    with pytest.raises(UnreadableImage, match=r"a/0\.jpg"):
        dataset.batch([SampleKey(index)]).images.decode(torch.device("cpu"))


def test_it_needs_a_gpu(root):
    with pytest.raises(FoveaError, match=r"data\.decode=auto"):
        folder(root, decode="gpu").train_dataloader()
