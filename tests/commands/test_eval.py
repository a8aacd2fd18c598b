"""``src/eval.py``: exact, on any number of processes, and from pre-trained weights."""

import json
import logging
import shutil
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from PIL import Image

from fovea.data.several_views import CENTER, Views
from fovea.errors import FoveaError
from fovea.evaluation import Predictions
from fovea.inference import read_checkpoint
from process import folder_of, run


def metrics_of(done, cwd):
    return json.loads((folder_of(done, cwd) / "summary.json").read_text())["metrics"]


@pytest.fixture(scope="module")
def evaluated(trained, tmp_path_factory):
    """Return (folder, finished process) of an evaluation of the trained run on test."""
    cwd = tmp_path_factory.mktemp("evaluated")
    done = run("eval", f"ckpt={trained[0]}", cwd=cwd)
    return folder_of(done, cwd), done


def test_repeats_what_training_reported(trained, evaluated):
    folder, done = evaluated
    expected = json.loads((trained[0] / "summary.json").read_text())["metrics"]
    summary = json.loads((folder / "summary.json").read_text())
    found = summary["metrics"]
    assert found["test/top1"] == expected["test/top1"]
    assert found["test/loss"] == pytest.approx(expected["test/loss"], rel=1e-6)
    assert (summary["state"], summary["split"]) == ("finished", "test")
    assert f"{found['test/top1']:.6f} (95 %: " in done.stdout
    assert "report.html" in done.stdout
    for kept in (trained[0], folder):
        predictions = Predictions.load(kept / "predictions" / "test.npz")
        assert float(predictions.correct.double().mean()) == pytest.approx(found["test/top1"])
        assert predictions.paths[0].startswith("digits/")
        assert predictions.about["split"] == "test"
        assert predictions.about["run"] == trained[0].name
    report = (folder / "report.html").read_text()
    assert "emperature" in report
    assert summary["flops"] > 0
    assert summary["latency_p95_ms"] >= summary["latency_ms"] > 0


def test_the_runs_own_predictions_on_val_are_used_only_if_they_are_the_same(trained):
    from fovea.experiment import compose
    from fovea.judging.candidates import build_candidate
    from fovea.judging.judge import _kept, _wants_val

    cfg = compose([f"ckpt={trained[0]}"], "eval")
    candidate = build_candidate(cfg, str(trained[0]))
    kept = _kept(candidate)
    assert kept is not None
    assert kept.about["split"] == "val"
    assert _wants_val(candidate)
    candidate.data.views = Views("flip", mirror=True)
    assert _kept(candidate) is None
    candidate.data.views = CENTER
    candidate.origin["weights"] = "another"
    assert _kept(candidate) is None
    candidate.val_is_fair = False
    assert not _wants_val(candidate)


def test_agrees_with_plain_torch_on_the_same_images(trained, evaluated):
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
        logits = model(model.preprocessing.normalize(images))
    found = Predictions.load(evaluated[0] / "predictions" / "test.npz")
    torch.testing.assert_close(found.logits, logits, atol=1e-4, rtol=1e-4)
    assert torch.equal(found.labels, dataset.labels)
    by_hand = (logits.argmax(1) == dataset.labels).double().mean().item()
    summary = json.loads((evaluated[0] / "summary.json").read_text())
    assert summary["metrics"]["test/top1"] == pytest.approx(by_hand, abs=1e-6)


def test_a_report_is_made_anew_from_kept_predictions(evaluated, tmp_path):
    folder, _ = evaluated
    done = run("eval", f"predictions={folder}", cwd=tmp_path)
    anew = folder_of(done, tmp_path)
    reports = [json.loads((f / "metrics.json").read_text()) for f in (folder, anew)]
    for key in ("top1", "nll", "macro_auroc", "temperature", "cost", "test/loss"):
        assert key in reports[0]
        assert reports[1][key] == reports[0][key], key
    assert (anew / "per_class.csv").read_text() == (folder / "per_class.csv").read_text()
    assert not (anew / "mistakes.png").exists(), "digits were never files"


@pytest.mark.slow
def test_one_two_and_three_processes_count_each_sample_once(trained, tmp_path):
    folder, _ = trained
    results = {}
    for devices in (1, 2, 3):
        done = run(
            "eval", f"ckpt={folder}", "trainer=ddp_cpu", f"trainer.devices={devices}",
            "batch_size=48", "cost=false", "views=flip", "data.hflip=true", cwd=tmp_path,
        )  # fmt: skip
        made = folder_of(done, tmp_path)
        kept = [Predictions.load(made / "predictions" / f"{s}.npz") for s in ("test", "val")]
        per_class = (made / "per_class.csv").read_text()
        results[devices] = (metrics_of(done, tmp_path), *kept, per_class)
    metrics, *kept, per_class = results[1]
    assert len(set(kept[0].paths)) == len(kept[0]) == 359
    for devices in (2, 3):
        other, *theirs, table = results[devices]
        assert other == pytest.approx(metrics, rel=1e-6)
        assert table == per_class
        for mine, yours in zip(kept, theirs, strict=True):
            assert (mine.paths, mine.class_names) == (yours.paths, yours.class_names)
            assert torch.equal(mine.labels, yours.labels)
            torch.testing.assert_close(mine.logits, yours.logits, atol=1e-5, rtol=1e-5)


def changed(source, target, change):
    """Copy the run folder ``source`` without predictions, its best checkpoint changed."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("predictions", "report"))
    for file in (target / "checkpoints").glob("last*.ckpt"):
        file.unlink()
    path = target / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    change(content["state_dict"], content["fovea"])
    torch.save(content, path)
    return target


def reverse_classes(state, record):
    for name in ("head.linear.weight", "head.linear.bias"):
        state[name] = state[name].flip(0)
    record["class_names"] = record["class_names"][::-1]


def lose_numbers(state, record):
    state["head.linear.bias"].fill_(torch.nan)


def rename_classes(state, record):
    record["class_names"] = [f"number {name}" for name in record["class_names"]]


@pytest.mark.slow
def test_several_models_their_ensemble_and_one_that_fails(trained, evaluated, tmp_path):
    for name, change in (("reversed", reverse_classes), ("nan", lose_numbers),
                         ("other", rename_classes)):  # fmt: skip
        changed(trained[0], tmp_path / "runs" / name, change)
    done = run(
        "eval", f"ckpt=[{trained[0]},runs/reversed,runs/other]", "ensemble=true", "cost=false",
        cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    assert "1 of 3 models" in done.stderr
    assert (done.stdout + done.stderr).count("other failed: ") == 1
    assert "number 0" in done.stdout
    assert "Traceback" not in done.stderr
    folder = folder_of(done, tmp_path)
    summary = json.loads((folder / "summary.json").read_text())
    first = trained[0].name
    assert [(m["name"], m["state"]) for m in summary["models"]] == [
        (first, "finished"), ("reversed", "finished"), ("other", "failed"), ("ensemble", "finished")
    ]  # fmt: skip
    expected = json.loads((evaluated[0] / "summary.json").read_text())["metrics"]
    for model in (summary["models"][i] for i in (0, 1, 3)):
        assert model["metrics"] == pytest.approx(expected, rel=1e-5), model["name"]
    table = pd.read_csv(folder / "table.csv")
    assert table["model"].tolist() == [first, "reversed", "other", "ensemble"]
    assert "other failed" in (folder / "report.html").read_text()
    kept = [Predictions.load(folder / m / "predictions" / "test.npz") for m in (first, "ensemble")]
    torch.testing.assert_close(kept[0].probabilities, kept[1].probabilities, atol=1e-5, rtol=0)
    assert "emperature" in (folder / "ensemble" / "report.md").read_text()
    # A sweep's folder stands for its runs; NaN logits are reported, in words.
    shutil.rmtree(tmp_path / "runs" / "other")
    done = run("eval", "ckpt=runs", "cost=false", "calibrate=false", cwd=tmp_path)
    folder = folder_of(done, tmp_path)
    broken, good = json.loads((folder / "summary.json").read_text())["models"]
    assert (broken["name"], good["name"]) == ("runs-nan", "runs-reversed")
    assert broken["metrics"]["test/top1"] == 0
    assert good["metrics"] == pytest.approx(expected, rel=1e-5)
    assert "NaN" in (folder / "runs-nan" / "report.html").read_text()


def kept_in(path, split, count):
    """Write predictions of ``count`` samples to ``path``."""
    logits = torch.tensor([[2.0, 1.0]]).repeat(count, 1)
    labels = torch.zeros(count, dtype=torch.int64)
    Predictions(torch.arange(count), labels, logits, about={"split": split}).save(path)


def test_a_single_sample_has_a_report_that_says_so(tmp_path):
    kept_in(tmp_path / "one.npz", "test", count=1)
    done = run("eval", "predictions=one.npz", cwd=tmp_path)
    folder = folder_of(done, tmp_path)
    assert metrics_of(done, tmp_path)["test/top1"] == 1
    assert "single sample" in (folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["split=tset"], ["'test'"]),
        (["ckpt=nowhere"], ["nowhere", "no such checkpoint"]),
        (["ckpt=x", "data.root=y", "split=val"], ["x", "no such checkpoint"]),
        ([], ["ckpt=", "model.weights", "predictions="]),
        (["ckpt=[one.npz,nowhere]", "ensemble=true"], ["no such checkpoint"]),
        (["ckpt=x", "views=ten_crp"], ["views='ten_crp'", "Did you mean 'ten_crop'"]),
        (["predictions=nowhere"], ["nowhere", "no such"]),
        (["predictions=x", "ckpt=y"], ["leave ckpt="]),
        (["predictions=one.npz,other.npz"], ["predictions=[one.npz,other.npz]"]),
        (["predictions=[]"], ["a list of 1 or more"]),
        (["ckpt=x", "views.sizes=[8,12]"], ["'views={sizes: "]),
        (["predictions=[one.npz,other.npz]"], ["different splits", "one: test", "other: val"]),
    ],
)
def test_mistakes_are_named(tmp_path, words, expected):
    for name, split in (("one", "test"), ("other", "val")):
        kept_in(tmp_path / f"{name}.npz", split, count=1)
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
    from fovea.judging.candidates import warn_of_seen_images

    now = SimpleNamespace(
        splits_recorded={"test": {"split_seed": 0}}, split_fingerprints=lambda: {"test": "new"}
    )
    warned = []
    log = logging.getLogger("fovea")
    handler = logging.Handler()
    handler.emit = lambda record: warned.append(record.getMessage())
    log.addHandler(handler)
    try:
        warn_of_seen_images(now, SimpleNamespace(splits={"test": "new"}), "test")
        warn_of_seen_images(now, SimpleNamespace(splits={"test": "old"}), "test")
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
