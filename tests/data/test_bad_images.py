import logging

import lightning
import numpy as np
import pytest
import torch
from PIL import Image

from fovea.data import FolderDataModule
from fovea.errors import FoveaError

COUNT = 12


@pytest.fixture
def root(tmp_path):
    """24 training images, three of them unreadable, whose colour says their class."""
    for split, count in {"train": COUNT, "val": 5, "test": 4}.items():
        for label, name in enumerate(("dark", "light")):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.full((9, 9, 3), 40 + 150 * label + i, dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{i:02d}.png")
    (tmp_path / "train" / "dark" / f"{COUNT - 1}.png").write_bytes(b"")  # next: the other class
    (tmp_path / "train" / "light" / "03.png").write_bytes(b"no image")
    (tmp_path / "train" / "light" / "04.png").write_bytes(b"no image")
    (tmp_path / "val" / "light" / "01.png").write_bytes(b"")
    return tmp_path


BAD = [COUNT - 1, COUNT + 3, COUNT + 4]


def folder(root, **options):
    common = {"batch_size": 8, "num_workers": 0, "image_size": 8}
    return FolderDataModule(str(root), **{**common, **options})


def all_of(loader):
    return [torch.cat(parts) for parts in list(zip(*loader, strict=True))[:2]] + [
        torch.cat([batch.indices for batch in loader])
    ]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("split", ["train", "val"])
def test_error_names_the_file_and_nothing_else(root, workers, split):
    data = folder(root, num_workers=workers)
    with pytest.raises(FoveaError) as caught:
        for _ in data.train_dataloader() if split == "train" else data.dataloader(split):
            pass
    message = str(caught.value)
    assert message.startswith(f"Cannot read image {root / split}/")
    assert "Traceback" not in message
    assert "data.on_bad_image=skip" in message


@pytest.mark.parametrize("workers", [0, 2])
def test_training_takes_the_next_readable_image_under_its_own_label(root, workers):
    data = folder(root, on_bad_image="skip", num_workers=workers, batch_size=24)
    images, labels, indices = next(iter(data.train_dataloader()))[:3]
    assert sorted(i if i >= 0 else -2 - i for i in indices.tolist()) == list(range(24))
    assert sorted(-2 - i for i in indices.tolist() if i < 0) == BAD
    # No label slips: an image's brightness always agrees with its label.
    assert torch.equal(labels, (images[:, 0, 4, 4] > 128).long())
    stand_in = indices.tolist().index(-2 - BAD[0])
    assert labels[stand_in] == 1
    for bad in BAD[1:]:
        brightness = images[indices.tolist().index(-2 - bad), 0, 4, 4]
        assert brightness == 40 + 150 + 5


def test_evaluation_marks_the_entry_and_keeps_the_others(root):
    data = folder(root, on_bad_image="skip")
    images, labels, indices = all_of(data.dataloader("val"))
    expected = [i if i != 6 else -2 - 6 for i in range(10)]
    assert indices[:10].tolist() == expected
    assert labels[:10].tolist() == [0] * 5 + [1] * 5
    assert (images[6] == 0).all()
    assert images[7, 0, 0, 0] == 40 + 150 + 2


def test_all_unreadable_is_an_error(root):
    for file in root.glob("train/*/*.png"):
        file.write_bytes(b"")
    with pytest.raises(FoveaError, match="Not one of the 24 training images"):
        next(iter(folder(root, on_bad_image="skip").train_dataloader()))


class Net(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(3, 2)

    def loss(self, batch):
        return torch.nn.functional.cross_entropy(self.net(batch.images.mean((2, 3))), batch.labels)

    def training_step(self, batch, _):
        return self.loss(batch)

    def validation_step(self, batch, _):
        self.loss(batch)

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(data, **options):
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
        **options,
    )  # fmt: skip
    trainer.fit(Net(), datamodule=data)
    return trainer


@pytest.mark.parametrize(("mode", "warned"), [("skip", 0), ("report", 4)])
def test_a_run_goes_on_and_lists_each_file_once(root, caplog, mode, warned):
    data = folder(root, on_bad_image=mode)
    with caplog.at_level(logging.WARNING, logger="fovea"):
        fit(data)
    expected = [
        (str(root / "train/dark/11.png"), "the file is empty (0 bytes)"),
        (str(root / "train/light/03.png"), "not an image in any format Pillow may read here"),
        (str(root / "train/light/04.png"), "not an image in any format Pillow may read here"),
        (str(root / "val/light/01.png"), "the file is empty (0 bytes)"),
    ]
    assert data.bad_images() == expected
    lines = [r.message for r in caplog.records if r.name.startswith("fovea.data")]
    assert len(lines) == warned
    assert all(any(path in line for line in lines) for path, _ in expected[:warned])


def test_the_split_under_test_is_the_one_named(root):
    data = folder(root, on_bad_image="skip")
    data.test_split = "val"
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, use_distributed_sampler=False
    )
    trainer.test(Net(), datamodule=data, verbose=False)
    assert [path for path, _ in data.bad_images()] == [str(root / "val/light/01.png")]


# The check of everything.


def test_check_finds_what_is_wrong_and_what_is_odd(root):
    train, val = root / "train" / "dark", root / "val"
    Image.new("RGB", (1, 30)).save(train / "thin.png")
    Image.new("RGB", (200, 6)).save(train / "long.png")
    Image.new("RGB", (9, 9), "red").save(train / "a.png")
    (train / "a.png").rename(train / "wrong.jpg")
    frames = [Image.new("RGB", (9, 9), c) for c in ("blue", "lime")]
    frames[0].save(train / "moving.gif", save_all=True, append_images=frames[1:])
    Image.fromarray(np.full((9, 9), 40_000, dtype=np.uint16)).save(train / "deep.png")
    same = (train / "00.png").read_bytes()
    (val / "dark" / "copy.png").write_bytes(same)
    (val / "light" / "copy.png").write_bytes(same)
    Image.new("RGB", (9, 9), "blue").save(val / "dark" / "fine.png")
    (val / "dark" / "00.png").unlink()

    findings = {(f.path.removeprefix(f"{root}/"), f.split): f for f in folder(root).check()}
    unreadable = {path for (path, _), f in findings.items() if not f.readable}
    assert unreadable == {
        "train/dark/11.png", "train/light/03.png", "train/light/04.png", "val/light/01.png"
    }  # fmt: skip
    assert "1x30" in findings["train/dark/thin.png", "train"].reason
    assert "only its middle" in findings["train/dark/long.png", "train"].reason
    assert "is PNG, not what its suffix .jpg" in findings["train/dark/wrong.jpg", "train"].reason
    assert "2 frames" in findings["train/dark/moving.gif", "train"].reason
    assert "16 bits" in findings["train/dark/deep.png", "train"].reason
    assert "of the train split" in findings["val/dark/copy.png", "val"].reason
    assert "dark there, light here" in findings["val/light/copy.png", "val"].reason
    assert ("val/dark/fine.png", "val") not in findings


def test_check_of_sound_images_finds_nothing(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(10):
            pixels = np.random.default_rng(ord(name) + 100 * i).integers(0, 256, (8, 8, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / name / f"{i}.png")
    data = folder(tmp_path)
    assert data.check(num_workers=2) == []
    assert data.num_files() == 20
