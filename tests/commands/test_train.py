"""``src/train.py`` from an empty working directory, without account, network or terminal."""

import json
import re
from importlib.metadata import version

import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from fovea.errors import FoveaError
from fovea.experiment import build, compose
from process import SMALL, folder_of, run


def test_run_folder_holds_everything(trained):
    folder, _ = trained
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["data"]["batch_size"] == 32
    assert "${" not in (folder / "config.yaml").read_text()
    assert "trainer.max_epochs=2" in yaml.safe_load((folder / "overrides.yaml").read_text())
    environment = json.loads((folder / "environment.json").read_text())
    assert version("torch") in json.dumps(environment)
    metrics = pd.read_csv(folder / "metrics.csv")
    assert metrics["val/top1"].notna().sum() == 2
    assert metrics["train/loss"].notna().any()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["state"] == "finished"
    assert summary["objective"] == pytest.approx(metrics["val/loss"].min())
    for name in ("best.ckpt", "last.ckpt"):
        assert (folder / "checkpoints" / name).is_file()
    for name in ("learning_curves.png", "confusion_matrix.png", "mistakes.png"):
        assert (folder / "report" / name).stat().st_size > 5000
    assert list((folder / "wandb").glob("offline-run-*")), "W&B without an account is offline"
    assert "epoch" in (folder / "train.log").read_text()


def test_the_summary_at_the_start_and_the_words_at_the_end(trained):
    folder, done = trained
    out = done.stdout
    for label in ("train", "val", "test", "resnet18", "random", "32 = 1 x CPU x 32", "epochs of"):
        assert label in out
    assert f"outputs/{folder.name}/checkpoints/best.ckpt" in out
    assert re.search(rf"eval\.py ckpt=outputs/{folder.name}", out)
    assert "Traceback" not in out + done.stderr


def test_checkpoint_holds_plain_data_only_and_loads_in_one_line(trained):
    import fovea

    folder, _ = trained
    content = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert content["fovea"]["class_names"] == [str(d) for d in range(10)]
    model = fovea.load(folder)
    assert not model.training
    assert model.class_names == [str(d) for d in range(10)]
    logits = model(torch.zeros(2, *model.preprocessing.image_shape))
    assert logits.shape == (2, 10)


def test_the_test_split_is_left_alone_unless_asked(tmp_path):
    done = run("train", *SMALL, "trainer.max_epochs=1", "logger=none", cwd=tmp_path)
    summary = json.loads((folder_of(done, tmp_path) / "summary.json").read_text())
    assert any(key.startswith("val/") for key in summary["metrics"])
    assert not any(key.startswith("test/") for key in summary["metrics"])


def test_the_same_seed_gives_the_same_weights_with_any_number_of_workers(trained, tmp_path):
    folder, _ = trained
    done = run("train", *SMALL, "data.num_workers=2", "logger=none", cwd=tmp_path)
    again = torch.load(folder_of(done, tmp_path) / "checkpoints" / "last.ckpt", weights_only=True)
    first = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    for name, tensor in first["state_dict"].items():
        assert torch.equal(tensor, again["state_dict"][name]), name


def test_another_seed_gives_other_weights_and_zero_is_a_seed(trained, tmp_path):
    folder, _ = trained
    done = run("train", *SMALL, "seed=1", "trainer.max_epochs=1", "logger=none", cwd=tmp_path)
    other = torch.load(folder_of(done, tmp_path) / "checkpoints" / "last.ckpt", weights_only=True)
    first = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    key = "head.linear.weight" if "head.linear.weight" in other["state_dict"] else None
    key = key or next(k for k in other["state_dict"] if k.startswith("head."))
    assert not torch.equal(first["state_dict"][key], other["state_dict"][key])


@pytest.mark.slow
def test_the_main_job_reaches_98_percent_on_held_out_digits(tmp_path):
    done = run("train", "test=true", cwd=tmp_path, timeout=900)
    summary = json.loads((folder_of(done, tmp_path) / "summary.json").read_text())
    assert summary["metrics"]["test/top1"] >= 0.98


@pytest.mark.parametrize("preset", ["fast", "overfit", "profile"])
def test_debug_presets_run_to_their_end(tmp_path, preset):
    done = run("train", f"debug={preset}", "data.batch_size=16", cwd=tmp_path)
    folder = folder_of(done, tmp_path)
    summary = json.loads((folder / "summary.json").read_text())
    if preset == "overfit":
        assert summary["objective"] == 1.0
        assert summary["epochs"] < 200
    if preset == "profile":
        text = done.stdout + "".join(p.read_text() for p in folder.glob("*.txt"))
        assert "run_training_batch" in text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["data=folder", "data.root=nowhere"], ["nowhere", "data.root"]),
        (["data=folder"], ["data.root"]),
        (["data=folder", "data.root=pets", "test=true"], ["test"]),
        (["data=imagenet", "data.root=nowhere"], ["prepare_imagenet.py"]),
        (["data=cifar10", "data.root=nowhere/cifar"], ["cifar"]),
        (["trainer.devices=8"], ["trainer.devices=8", "no GPU", "trainer=ddp_cpu"]),
        (["trainer=ddp"], ["no GPU", "trainer=ddp_cpu"]),
        (["data.batch_size=33", "trainer.accumulate_grad_batches=2"], ["33", "32", "34"]),
        (["data.batch_size=100000"], ["batch_size", "100000"]),
        (["model.weights=no_such_file.pth"], ["no_such_file.pth"]),
        (["model=timm", "model.name=resnet51"], ["resnet51", "resnet50"]),
        (["monitor.metric=val/acc"], ["val/acc", "val/top1"]),
        (["+model.depth=3"], ["depth"]),
        (["+data.sizes=3"], ["sizes"]),
    ],
)
def test_mistakes_are_named_before_training(tmp_path, monkeypatch, words, expected):
    monkeypatch.chdir(tmp_path)
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / "pets" / split / name).mkdir(parents=True)
            for i in range(40):
                Image.new("L", (8, 8), i).save(tmp_path / "pets" / split / name / f"{i}.png")
    with pytest.raises(FoveaError) as caught:
        build(compose(words))
    for part in expected:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["data=folder", "data.root=nowhere"], ["nowhere", "data.root"]),
        (["paths.outputs=/proc/fovea"], ["/proc/fovea", "paths.outputs"]),
    ],
)
def test_the_command_says_so_without_a_traceback_and_leaves_nothing(tmp_path, words, expected):
    done = run("train", *words, cwd=tmp_path, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    for part in expected:
        assert part in done.stderr
    outputs = tmp_path / "outputs"
    assert not outputs.exists() or not list(outputs.iterdir()), "nothing is left behind"


def test_a_run_never_overwrites_another(trained, tmp_path):
    folder, _ = trained
    before = (folder / "metrics.csv").read_bytes()
    done = run("train", *SMALL, f"run_id={folder.name}", cwd=folder.parents[1], check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "resume=" in done.stderr
    assert (folder / "metrics.csv").read_bytes() == before
