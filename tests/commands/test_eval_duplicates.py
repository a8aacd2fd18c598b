import time
from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import ImageOps
from torch import distributed
from torch.multiprocessing import spawn

from fovea.data.duplicates import Duplicates
from fovea.errors import FoveaError
from fovea.evaluation import Predictions
from fovea.experiment import build_data
from fovea.inference import read_checkpoint
from fovea.judging.candidates import Candidate
from fovea.judging.duplicates import Images, find_duplicates, training_images
from fovea.machine import ranks
from photo import photo
from process import folder_of, run


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of photos, three of its twelve test photos copies of train photos."""
    root = tmp_path_factory.mktemp("photos")
    for number in range(40):
        save(photo(60, 80, number), root / "train" / "ab"[number % 2] / f"{number}.png")
    for number in range(100, 109):
        save(photo(60, 80, number), root / "test" / "ab"[number % 2] / f"{number}.png")
    save(photo(60, 80, 1).resize((64, 64)), root / "test" / "b" / "resized.jpg")
    save(ImageOps.mirror(photo(60, 80, 4)), root / "test" / "a" / "mirrored.jpg")
    save(photo(60, 80, 6).convert("L"), root / "test" / "a" / "grey.jpg")
    return root


def save(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@pytest.fixture(scope="module")
def trained_on_photos(photos, tmp_path_factory):
    cwd = tmp_path_factory.mktemp("run")
    data = ("data=folder", f"data.root={photos}", "data.image_size=32", "data.batch_size=16")
    words = ("data.num_workers=0", "model=timm", "model.name=test_resnet", "logger=none")
    return folder_of(run("train", *data, *words, "trainer.max_epochs=1", cwd=cwd), cwd)


@pytest.mark.slow
def test_test_images_that_are_in_train_are_told_listed_and_shown(trained_on_photos, tmp_path):
    words = (f"ckpt={trained_on_photos}", "split=test", "duplicates=true", "cost=false")
    done = run("eval", *words, "calibrate=false", cwd=tmp_path)
    folder = folder_of(done, tmp_path)
    table = pd.read_csv(folder / "duplicates.csv")
    assert {path.rpartition("/")[2] for path in table.path} <= {
        "resized.jpg",
        "mirrored.jpg",
        "grey.jpg",
    }
    assert len(table) >= 2  # at most one of the twins was cut for val
    assert set(table.twin_split) == {"train"}
    assert (folder / "duplicates.png").is_file()
    predictions = Predictions.load(folder / "predictions" / "test.npz")
    assert predictions.about["duplicates"] == len(table)
    twice = np.isin(predictions.paths, table.path)
    assert twice.sum() == len(table)
    correct = predictions.correct.numpy()
    without = correct[~twice].mean()
    metrics = predictions.about["metrics"]
    assert metrics["test/top1_without_duplicates"] == pytest.approx(without)
    sentence = (
        f"{len(table)} of 12 test images have a near-duplicate in train; without them "
        f"top-1 is {100 * without:.2f} % instead of {100 * correct.mean():.2f} %."
    )
    assert f"WARNING: {sentence}" in done.stdout + done.stderr
    assert sentence in (folder / "report.html").read_text()
    assert f"{without:.6f}" in done.stdout


@pytest.mark.slow
def test_what_can_not_be_compared_is_refused(trained_on_photos):
    checkpoint = read_checkpoint(trained_on_photos)
    data, config = build_data(checkpoint.config), checkpoint.config.copy()
    candidate = Candidate(config, data, task=None, rows=[], reference=str(trained_on_photos))
    config.split = "train"
    with pytest.raises(FoveaError, match="split=test"):
        training_images(candidate)
    config.split = "test"
    assert training_images(candidate).data is data
    candidate.reference = None
    del data.splits["train"]
    with pytest.raises(FoveaError, match="has none"):
        training_images(candidate)
    # Judged on other data: the run's own train images are looked up.
    candidate.reference = str(trained_on_photos)
    data.splits_recorded["train"]["fingerprint"] = "another"
    assert len(training_images(candidate).split) == len(checkpoint_train(checkpoint))


def test_the_same_two_splits_are_searched_once():
    splits = {"train": "t", "test": "e"}
    data = [SimpleNamespace(split_fingerprints=splits.copy) for _ in range(2)]
    first, second = ((Images(each, "test"), Images(each, "train")) for each in data)
    known = {("e", "t"): Duplicates([], 0, 0)}
    for pair in (first, second):  # which have no images to be searched
        assert find_duplicates(*pair, known) is known["e", "t"]


def wait_longer_than_a_collective(rank, place):
    limit = timedelta(seconds=4)
    store = distributed.FileStore(str(place), 2)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=limit)
    if rank == 0:
        time.sleep(6)
    ranks.wait_for_main("judged a")
    distributed.barrier()


@pytest.mark.slow
def test_a_rank_waits_for_rank_zero_as_long_as_it_takes(tmp_path):
    spawn(wait_longer_than_a_collective, (tmp_path / "store",), nprocs=2)


def checkpoint_train(checkpoint):
    return build_data(checkpoint.config).splits["train"]
