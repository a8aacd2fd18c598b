"""``src/eval.py``: exact, on any number of processes, and from pre-trained weights."""

import json
import logging
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from PIL import Image

from fovea.errors import FoveaError
from fovea.inference import read_checkpoint
from process import folder_of, run


def metrics_of(done, cwd):
    return json.loads((folder_of(done, cwd) / "summary.json").read_text())["metrics"]


def test_repeats_what_training_reported(trained, tmp_path):
    folder, _ = trained
    done = run("eval", f"ckpt={folder}", cwd=tmp_path)
    expected = json.loads((folder / "summary.json").read_text())["metrics"]
    found = metrics_of(done, tmp_path)
    assert found["test/top1"] == expected["test/top1"]
    assert found["test/loss"] == pytest.approx(expected["test/loss"], rel=1e-6)
    assert f"{found['test/top1']:.6f}" in done.stdout


def test_agrees_with_plain_torch_on_the_same_images(trained, tmp_path):
    import fovea
    from fovea.data import DigitsDataModule

    folder, _ = trained
    model = fovea.load(folder)
    config = __import__("yaml").safe_load((folder / "config.yaml").read_text())["data"]
    for key in ("_target_", "check"):
        config.pop(key)
    data = DigitsDataModule(**config)
    data.prepare()
    dataset = data.dataset("test")
    images = torch.stack([dataset[i].images for i in range(len(dataset))])
    with torch.no_grad():
        predicted = model(model.preprocessing.normalize(images)).argmax(1)
    by_hand = (predicted == dataset.labels).double().mean().item()
    found = metrics_of(run("eval", f"ckpt={folder}", cwd=tmp_path), tmp_path)
    assert found["test/top1"] == pytest.approx(by_hand, abs=1e-6)


@pytest.mark.slow
def test_one_two_and_three_processes_count_each_sample_once(trained, tmp_path):
    folder, _ = trained
    results = {}
    for devices in (1, 2, 3):
        done = run(
            "eval", f"ckpt={folder}", "trainer=ddp_cpu", f"trainer.devices={devices}",
            "batch_size=48", cwd=tmp_path,
        )  # fmt: skip
        rows = pd.read_csv(folder_of(done, tmp_path) / "predictions.csv")
        per_class = (folder_of(done, tmp_path) / "per_class.csv").read_text()
        results[devices] = (
            metrics_of(done, tmp_path),
            len(rows),
            rows["path"].nunique(),
            per_class,
        )
    assert results[1][1] == results[1][2]
    for devices in (2, 3):
        for key, value in results[1][0].items():
            assert results[devices][0][key] == pytest.approx(value, rel=1e-6), key
        assert results[devices][1:] == results[1][1:]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["split=tset"], ["'test'"]),
        (["ckpt=nowhere"], ["nowhere", "no such checkpoint"]),
        (["ckpt=x", "data.root=y", "split=val"], ["x", "no such checkpoint"]),
        ([], ["ckpt=", "model.weights"]),
    ],
)
def test_mistakes_are_named(tmp_path, words, expected):
    done = run("eval", *words, cwd=tmp_path, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    for part in expected:
        assert part in done.stderr


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    import pickle

    class Evil:
        def __reduce__(self):
            return (__import__("os").mkdir, (str(tmp_path / "owned"),))

    (tmp_path / "evil.ckpt").write_bytes(pickle.dumps({"state_dict": Evil()}))
    torch.save({"state_dict": Evil()}, tmp_path / "evil2.ckpt")
    with pytest.raises(FoveaError, match=r"evil\.ckpt"):
        read_checkpoint(tmp_path / "evil.ckpt")
    done = run("eval", "ckpt=evil2.ckpt", cwd=tmp_path, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "evil2.ckpt" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "owned").exists()


def test_a_cut_off_checkpoint_is_named(trained, tmp_path):
    folder, _ = trained
    whole = (folder / "checkpoints" / "best.ckpt").read_bytes()
    (tmp_path / "half.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FoveaError, match="is damaged: its end is missing"):
        read_checkpoint(tmp_path / "half.ckpt")


def test_the_loss_is_that_of_the_task_and_the_data_may_have_moved(tmp_path):
    pets = tmp_path / "pets"
    for name, level in (("cat", 60), ("dog", 180)):
        (pets / name).mkdir(parents=True)
        for i in range(40):
            Image.new("L", (8, 8), level + i).save(pets / name / f"{i}.png")
    done = run(
        "train", "data=folder", "data.root=pets", "data.image_size=8", "data.batch_size=16",
        "task.loss=bce", "augment=mixup_cutmix", "trainer.max_epochs=1", "logger=none",
        "model=timm", "model.name=test_resnet", cwd=tmp_path,
    )  # fmt: skip
    folder = folder_of(done, tmp_path)
    trained_loss = json.loads((folder / "summary.json").read_text())["metrics"]["val/loss"]
    pets.rename(tmp_path / "moved")
    (tmp_path / "moved" / "cat" / "0.png").rename(tmp_path / "moved" / "cat" / "first.png")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = run(
        "eval", f"ckpt={folder}", f"data.root={tmp_path / 'moved'}", "split=val", cwd=elsewhere
    )
    found = metrics_of(done, elsewhere)["val/loss"]
    assert found == pytest.approx(trained_loss, rel=0.05), "bce, not cross-entropy"


def test_images_that_changed_sides_since_the_run_are_warned_of(tmp_path):
    from fovea.commands.eval import _warn_of_seen_images

    now = SimpleNamespace(
        splits_recorded={"test": {"split_seed": 0}}, split_fingerprints=lambda: {"test": "new"}
    )
    warned = []
    log = logging.getLogger("fovea")
    handler = logging.Handler()
    handler.emit = lambda record: warned.append(record.getMessage())
    log.addHandler(handler)
    try:
        _warn_of_seen_images(now, SimpleNamespace(splits={"test": "new"}), "test")
        _warn_of_seen_images(now, SimpleNamespace(splits={"test": "old"}), "test")
    finally:
        log.removeHandler(handler)
    assert len(warned) == 1
    assert "do not trust the score" in warned[0]


def test_another_data_set_with_other_classes_is_refused(trained, tmp_path):
    folder, _ = trained
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / "pets" / split / name).mkdir(parents=True)
            for i in range(4):
                Image.new("L", (8, 8), i).save(tmp_path / "pets" / split / name / f"{i}.png")
    done = run(
        "eval", f"ckpt={folder}", "data=folder", "data.root=pets", "split=val", cwd=tmp_path,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    assert "cat" in done.stderr
