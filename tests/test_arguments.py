"""Mistakes on the command line: the nearest name, no traceback, nothing written, nothing slow."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fovea.arguments import prepare_arguments, quote
from fovea.catalog import config_dir, groups, help_text
from fovea.errors import FoveaError

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["model=resnet81"], ["model=resnet81", "Did you mean 'resnet18'?", "vit_s16"]),
        (["modle=resnet18"], ["modle: no such key", "Did you mean 'model'?"]),
        (["optimizer.lrr=0.1"], ["optimizer.lrr: no such key", "'optimizer.lr'"]),
        (["lr=0.1"], ["lr: no such key", "optimizer.lr"]),
        (["max_epochs=3"], ["max_epochs: no such key", "'trainer.max_epochs'"]),
        (["trainer.max_epoch=3"], ["'trainer.max_epochs'"]),
        (["trainer.max_epochs=ten"], ["trainer.max_epochs='ten' (text)", "a whole number"]),
        (["trainer.max_epochs='10'"], ["trainer.max_epochs='10' (text)", "a whole number"]),
        (["trainer.max_epochs=0"], ["trainer.max_epochs=0", "more than 0"]),
        (["data.batch_size=-4"], ["data.batch_size=-4", "more than 0"]),
        (["data.on_bad_image=skipp"], ["Did you mean 'skip'?"]),
        (["trainer.precision=bf16"], ["trainer.precision", "'bf16-mixed'"]),
        (["task.loss=crossentropy"], ["task.loss", "Did you mean 'cross_entropy'?"]),
        (["optimizer.lr=fast", "seed=-1"], ["optimizer.lr='fast' (text)", "seed=-1"]),
        (["optimizer.lr=0.1,0.2"], ["lists several values", "-m"]),
        (["digits"], ["'digits' is not of the form key=value"]),
        (["data=folder", "data.root=${nowhere}"], ["nowhere"]),
        (["data.root=photos"], ["data.root: no such key", "data=folder"]),
        (["resume=outputs/no_such_run"], ["no such checkpoint or run folder"]),
        (["experiment=transfr"], ["experiment=transfr"]),
    ],
)
def test_mistakes_name_what_was_meant(words, expected):
    with pytest.raises(FoveaError) as caught:
        prepare_arguments("train", words)
    for part in expected:
        assert part in str(caught.value)


def test_mistake_in_one_job_of_a_sweep_is_found_before_the_first(tmp_path):
    with pytest.raises(FoveaError, match="resnet81"):
        prepare_arguments("train", ["-m", "model=resnet18,resnet81"])
    with pytest.raises(FoveaError, match=r"optimizer\.lr=-1"):
        prepare_arguments("train", ["-m", "seed=1,2,3", "optimizer.lr=0.1,-1"])


def test_typo_costs_no_time_and_leaves_nothing(tmp_path):
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(ROOT / "src" / "train.py"), "model=resnet81"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert time.monotonic() - began < 3
    assert done.returncode == 2
    assert "Did you mean 'resnet18'?" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert not any(tmp_path.iterdir())


def test_checking_arguments_does_not_import_torch(tmp_path):
    code = (
        "import sys; from fovea.arguments import prepare_arguments;"
        "prepare_arguments('train', ['model=resnet50']); print('torch' in sys.modules)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.stdout.strip() == "False", done.stderr


def test_help_is_one_screen_and_names_every_choice(tmp_path):
    text = help_text("train")
    assert len(text.splitlines()) <= 75
    for group, choices in groups().items():
        assert f"{group}=" in text
        for choice in choices:
            assert choice in text
            first = (config_dir() / group / f"{choice}.yaml").read_text().splitlines()
            assert first[0].startswith("# "), f"{group}/{choice}.yaml has no line for --help"


@pytest.mark.parametrize(
    "path", ["a b/c.ckpt", "it's/x.ckpt", "comma,paren(1).ckpt", "ünï/ç.ckpt", r"back\slash'.ckpt",
             "eq=x.ckpt", "br[0].ckpt", '"q".ckpt']
)  # fmt: skip
def test_quoted_paths_survive_hydra(path):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    (parsed,) = OverridesParser.create().parse_overrides([f"ckpt={quote(path)}"])
    assert parsed.value() == path


def test_bare_file_names_are_input_of_predict():
    words, _ = prepare_arguments("predict", ["ckpt=x y/z.ckpt", "a 1.jpg", "b,c.jpg"])
    assert "input=['a 1.jpg','b,c.jpg']" in words
    assert "ckpt='x y/z.ckpt'" in words


def test_run_ids_differ_within_a_second(tmp_path):
    made = {prepare_arguments("train", []).words[-1] for _ in range(20)}
    assert len(made) == 20
    assert all(word.startswith("run_id=") for word in made)


def test_sweep_under_torchrun_is_refused(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(FoveaError, match="without torchrun"):
        prepare_arguments("train", ["-m", "seed=1,2"])
