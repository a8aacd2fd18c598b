"""The README's examples, taken from its text and run."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from process import ROOT, environment

README = (ROOT / "README.md").read_text()


def block(language, marker):
    """Return the one code block of ``language`` that holds ``marker``."""
    found = [b for b in re.findall(rf"```{language}\n(.*?)```", README, flags=re.S) if marker in b]
    assert len(found) == 1, f"{len(found)} blocks with {marker}"
    return found[0]


@pytest.fixture
def checkout(tmp_path):
    """Return a copy of src/ and conf/ that the example may add its files to."""
    for part in ("src", "conf"):
        ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / part, tmp_path / part, ignore=ignore)
    return tmp_path


def train(checkout, *words):
    done = subprocess.run(
        [sys.executable, "src/train.py", *words, "trainer.max_epochs=1", "logger=none"],
        cwd=checkout, env=environment(PYTHONPATH=str(checkout / "src")), text=True,
        capture_output=True, stdin=subprocess.DEVNULL, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_own_data_set_and_own_backbone(checkout):
    (checkout / "src/fovea/data/npz.py").write_text(block("python", "class NpzDataModule"))
    (checkout / "conf/data/npz.yaml").write_text(block("yaml", "NpzDataModule"))
    (checkout / "src/fovea/models/three_convs.py").write_text(block("python", "class ThreeConvs"))
    (checkout / "conf/model/three_convs.yaml").write_text(block("yaml", "ThreeConvs"))
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    images = (
        rng.integers(0, 60, (120, 32, 32, 3), dtype=np.uint8) + 60 * labels[:, None, None, None]
    )
    np.savez(checkout / "mine.npz", images=images.astype(np.uint8), labels=labels)
    out = train(
        checkout, "data=npz", "data.root=mine.npz", "data.batch_size=16", "model=three_convs",
        "model.width=8", "freeze=gradual",
    )  # fmt: skip
    assert "three_convs" in out
    assert "3 classes" in out


def test_own_freeze_schedule(checkout):
    (checkout / "conf/freeze/mine.yaml").write_text(block("yaml", "conf/freeze/mine.yaml"))
    out = train(checkout, "freeze=mine", "data.limit_per_class=10", "data.batch_size=32")
    assert "head x1" in out


def test_own_recipe_composes(checkout):
    from fovea.arguments import compose_checked

    text = block("yaml", "ConvNeXt-T on my photos")
    folder = checkout / "mine" / "experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(text)
    cfg = compose_checked("train", ["experiment=mine"], str(checkout / "mine"))
    assert cfg.model.name == "convnext_tiny"
    assert cfg.callbacks.ema.decay > 0
    assert yaml.safe_load(text)["trainer"]["max_epochs"] == cfg.trainer.max_epochs


def test_every_choice_is_in_the_table_and_the_table_names_no_other():
    from fovea.catalog import groups

    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", README, flags=re.M))
    for group, choices in groups().items():
        assert sorted(rows[group].replace(" ", "").split(",")) == choices, group


def test_nothing_is_left_to_fill_in():
    assert "@@" not in README


def test_files_that_are_named_exist():
    for name in re.findall(r"\]\(([\w./-]+)\)", README):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"python (\S+\.py)", README):
        assert Path(ROOT / name).exists(), name
