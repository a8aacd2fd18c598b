"""From a folder of pictures to a run on shards of it, as a user types it."""

import json
import subprocess
import sys

import pytest

from photo import photo
from process import ROOT, environment, folder_of, run


@pytest.mark.slow
def test_shards_are_made_and_trained_on_from_a_folder_and_a_url(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(20):
            photo(50, 70, seed=i + 100 * (name == "dog")).save(
                tmp_path / "photos" / name / f"{i}.jpg"
            )
    made = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "prepare_shards.py"), "data=folder",
         "data.root=photos", "out=shards", "max_size=60", "num_workers=0"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout + made.stderr
    assert "data=shards" in made.stdout + made.stderr
    small = ("data.image_size=32", "data.batch_size=8", "data.num_workers=2", "model=timm",
             "model.name=test_resnet", "trainer.max_epochs=1", "logger=none", "trainer=cpu",
             "augment.crop=resized")  # fmt: skip
    summaries = []
    for root in ("shards", (tmp_path / "shards").as_uri()):
        done = run(
            "train", "data=shards", f"data.root={root}", *small, cwd=tmp_path,
            FOVEA_CACHE=str(tmp_path / "cache"),
        )  # fmt: skip
        summary = json.loads((folder_of(done, tmp_path) / "summary.json").read_text())
        assert summary["state"] == "finished"
        assert summary["decoded"]["read"] > 30
        assert summary["decoded"]["by_pillow"] == 0
        summaries.append(summary["metrics"]["val/loss"])
    assert summaries[0] == pytest.approx(summaries[1], rel=1e-5)
