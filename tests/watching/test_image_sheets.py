"""The sheets show what the network gets, and nothing of the training changes by them."""

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from PIL import Image

from fovea.experiment import build, compose
from fovea.types import Batch, Preprocessing
from fovea.watching import ImageSheets
from fovea.watching.sheet import TILE, denormalized, draw_sheet, titles

WORDS = (
    "model=timm", "model.name=test_resnet", "data.limit_per_class=16", "data.batch_size=32",
    "trainer.max_epochs=2", "logger=none", "augment=mixup_cutmix", "model.head.dropout=0.3",
    "trainer.log_every_n_steps=1",
)  # fmt: skip
OFF = ("~callbacks.image_sheets", "~callbacks.learning_curves")


class Seen(Callback):
    """Keeps the images of the first batch as the network gets them."""

    images = None

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.images = batch.images.clone() if self.images is None else self.images


def fit(tmp_path, monkeypatch, *words):
    (tmp_path / "here").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / "here")
    experiment = build(compose([*WORDS, *words]))
    seen = Seen()
    experiment.trainer.callbacks.append(seen)
    experiment.trainer.fit(experiment.task, datamodule=experiment.data)
    return experiment, seen


def test_training_is_the_same_bit_for_bit_and_the_sheet_shows_its_first_batch(
    tmp_path, monkeypatch
):
    torch.manual_seed(1)
    with_, seen = fit(tmp_path, monkeypatch, "run_id=with", "callbacks.learning_curves.max_share=1")
    torch.manual_seed(2)
    without, _ = fit(tmp_path, monkeypatch, "run_id=without", *OFF)
    for name, tensor in with_.task.state_dict().items():
        assert torch.equal(tensor, without.task.state_dict()[name]), name
    report = tmp_path / "here" / "outputs" / "with" / "report"
    assert {path.name for path in report.iterdir()} >= {"train_images.png", "eval_images.png"}
    assert not (report.parents[1] / "without" / "report").exists()
    pixels = np.asarray(Image.open(report / "train_images.png").convert("L"))
    expected = denormalized(seen.images[:24], with_.data.preprocessing)
    assert count_tiles(pixels, expected) == 24
    pixels = np.asarray(Image.open(report / "eval_images.png").convert("L"))
    val = with_.data.dataset("val")
    numbers = torch.linspace(0, len(val) - 1, 24).round().long().tolist()
    assert count_tiles(pixels, torch.stack([val[n].images for n in numbers])) == 24


def count_tiles(sheet, images):
    """Return how many grey images (N, 1, 8, 8) a sheet shows in order, enlarged."""
    side = TILE // images.shape[-1]
    enlarged = images[:, 0].repeat_interleave(side, 1).repeat_interleave(side, 2).numpy()
    gap_x, gap_y = 12, 34
    places = [(i // 8 * (TILE + gap_y) + 54, i % 8 * (TILE + gap_x) + 12) for i in range(24)]
    return sum(
        np.array_equal(sheet[top : top + TILE, left : left + TILE], image)
        for image, (top, left) in zip(enlarged, places, strict=True)
    )


def test_labels_in_words():
    names = ["cat", "dog", "a class with a very long name that goes on and on"]
    images, indices = torch.zeros(3, 1, 8, 8), torch.arange(3)
    batch = Batch(images, torch.tensor([0, 1, 2]), indices)
    plain = titles(batch, names)
    assert plain[:2] == ["cat", "dog"]
    assert len(plain[2]) < len(names[2])
    assert plain[2].endswith("…")
    targets = torch.tensor([[0.7, 0.3, 0.0], [0.0, 1.0, 0.0], [0.25, 0.001, 0.749]])
    mixed = titles(batch._replace(targets=targets), names)
    assert mixed[0] == "cat 0.7 / dog 0.3"
    assert mixed[1] == "dog"
    assert mixed[2].endswith("0.75 /\ncat 0.25")


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_come_back_from_normalised_images(channels):
    preprocessing = Preprocessing(16, channels, (0.4, 0.5, 0.1)[:channels], (0.2,) * channels)
    images = torch.randint(0, 256, (5, channels, 16, 16), dtype=torch.uint8)
    normalised = preprocessing.normalize(images)
    assert torch.equal(denormalized(normalised, preprocessing), images)
    assert torch.equal(denormalized(normalised.half(), preprocessing).float().round(), images) or (
        (denormalized(normalised.half(), preprocessing).int() - images.int()).abs().max() <= 1
    )
    beyond = denormalized(torch.full((1, channels, 16, 16), 50.0), preprocessing)
    assert int(beyond.min()) == 255


@pytest.mark.parametrize(("count", "side"), [(1, 8), (3, 40), (9, 300)])
def test_sheets_of_few_small_and_large_images(tmp_path, count, side):
    images = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)
    draw_sheet(images, ["名前 $x$ <b>"] * count, "a heading", tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width >= min(count, 8) * TILE


def test_a_sheet_that_is_there_stays_and_one_that_fails_costs_a_warning(
    tmp_path, monkeypatch, caplog
):
    (tmp_path / "train_images.png").write_bytes(b"of the run before it was cut")
    monkeypatch.setattr("fovea.watching.image_sheets._of_split", None)
    sheets = ImageSheets(tmp_path)

    class Loader:
        loggers, is_global_zero, datamodule = (), True, None

    for _ in range(2):
        sheets.on_train_batch_start(Loader(), None, None, 0)
    assert (tmp_path / "train_images.png").read_bytes().startswith(b"of the run")
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 1
    assert warnings[0].startswith("eval_images.png was not drawn")
    assert [path.name for path in tmp_path.iterdir()] == ["train_images.png"]


def test_other_ranks_draw_nothing(tmp_path):
    class Trainer:
        is_global_zero = False

    sheets = ImageSheets(tmp_path / "report")
    sheets.on_train_start(Trainer(), None)
    sheets.on_train_batch_start(Trainer(), None, None, 0)
    assert not (tmp_path / "report").exists()
