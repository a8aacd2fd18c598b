"""``scripts/transfer_study.py`` and the recipes it runs."""

import math
import re
from functools import partial

import pandas as pd
import pytest

from fovea.arguments import prepare_arguments
from fovea.errors import FoveaError
from made_runs import write_run
from process import run

# Worked out by hand below: top-1 by seed 0, 1, 2 at 5 images a class.
SCORES = {"lp_ft": (0.50, 0.60, 0.70), "full": (0.40, 0.52, 0.58), "gradual": (0.50, 0.60, 0.69)}


@pytest.fixture
def table(script):
    return partial(script, "transfer_study", "--table")


def leave(folder, schedule, seed, top1, images=5, train=None, test="t", **summary):
    splits = {"train": {"fingerprint": train or f"{images}/{seed}"}, "test": {"fingerprint": test}}
    config = {
        "tags": ["transfer_study", schedule],
        "data": {"seed": seed, "batch_size": 20, "limit_per_class": images},
    }
    name = folder / f"{schedule}-{images}-{seed}"
    return write_run(name, seed=seed, top1=top1, config=config, splits=splits, **summary)


def leave_all(folder):
    for schedule, scores in SCORES.items():
        for seed, top1 in enumerate(scores):
            leave(folder, schedule, seed, top1)


def test_the_table_is_that_of_a_hand_calculation(tmp_path, table):
    leave_all(tmp_path)
    status, out, _ = table(tmp_path)
    assert status == 0
    rows = pd.read_csv(tmp_path / "transfer.csv").set_index("schedule")
    # Student's t at 97.5 % with 2 degrees of freedom is 4.30265; standard error 0.1 / sqrt(3).
    assert rows.loc["lp_ft", "mean"] == pytest.approx(0.6)
    assert rows.loc["lp_ft", "margin"] == pytest.approx(4.30265 * 0.1 / math.sqrt(3), rel=1e-5)
    # Differences 0.10, 0.08, 0.12: mean 0.1, error 0.02 / sqrt(3). With 2 degrees of freedom the
    # two-sided p of t is 1 - t / sqrt(2 + t^2), which Holm doubles for the smaller of two.
    t = 0.1 / (0.02 / math.sqrt(3))
    assert rows.loc["full", "behind"] == pytest.approx(0.1)
    assert rows.loc["full", "behind_margin"] == pytest.approx(4.30265 * 0.1 / t, rel=1e-5)
    assert rows.loc["full", "p"] == pytest.approx(2 * (1 - t / math.sqrt(2 + t * t)))
    # Differences 0, 0, 0.01: t = 1.
    assert rows.loc["gradual", "p"] == pytest.approx(1 - 1 / math.sqrt(3))
    assert rows["open"].to_dict() == {"full": False, "gradual": True, "lp_ft": True}
    assert "| `lp_ft` | **60.0 ± 24.8** |" in out
    assert "| `full` | 50.0 ± 22.8 |" in out
    assert "| `gradual` | 59.7 ± 23.6 ≈ |" in out
    assert "mean of 3 seeds" in out
    assert (tmp_path / "transfer.md").read_text().strip() in out
    assert (tmp_path / "transfer.png").read_bytes()[:4] == b"\x89PNG"


def test_what_is_missing_is_said_and_pairs_are_of_shared_seeds(tmp_path, table):
    leave_all(tmp_path)
    leave(tmp_path, "full", 7, 0.99, state="failed", error="no memory")
    leave(tmp_path, "lp_ft", 0, 0.8, images=20)
    leave(tmp_path, "full", 1, 0.7, images=20)
    status, out, _ = table(tmp_path)
    assert status == 0
    assert "left out: full-5-7 is failed (no memory)" in out
    rows = pd.read_csv(tmp_path / "transfer.csv").set_index(["schedule", "images"])
    assert rows.loc[("full", 5), "n"] == 3
    assert math.isnan(rows.loc[("full", 20), "p"])
    assert "mean of 1 to 3 seeds" in out
    assert re.search(r"\| `gradual` \| 59.7 ± 23.6 ≈ \|  \|", out)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"folder": "again"}, "are of one schedule, size and seed"),
        ({"schedule": "head_only", "train": "others"}, "learned from different ones"),
        ({"schedule": "head_only", "test": "others"}, "tested on different images"),
    ],
)
def test_runs_that_can_not_be_compared_are_refused(tmp_path, table, other, said):
    leave_all(tmp_path)
    folder = tmp_path / other.pop("folder", ".")
    leave(folder, other.pop("schedule", "full"), 0, 0.5, **other)
    status, _, error = table(tmp_path)
    assert status == 2
    assert said in error


def test_no_study(tmp_path, table):
    status, _, error = table(tmp_path)
    assert status == 2
    assert "holds no finished run of a transfer study" in error
    status, _, error = table(tmp_path, "seed=1")
    assert "trains nothing" in error
    status, _, error = table(tmp_path / "nowhere")
    assert "There is no folder of runs at" in error


def test_a_study_without_its_pretraining_does_not_begin(tmp_path):
    words = ["-m", "experiment=transfer_study", f"paths.outputs={tmp_path}"]
    with pytest.raises(FoveaError, match=r"made by: .*experiment=transfer_pretrain"):
        prepare_arguments("train", words)
    with pytest.raises(FoveaError, match=r"transfer=lpft: no such choice.* 'lp_ft'"):
        prepare_arguments("train", [*words, "transfer=lpft"])


TINY = (
    "data=digits", "logger=none", "model.name=test_resnet", "~model.stem_width", "~model.channels",
    "data.num_workers=0",
)  # fmt: skip


@pytest.mark.slow
def test_six_digits_are_transferred_to_the_other_four(tmp_path, table):
    classes = "data.classes=[0,1,2,3,4,5]"
    run("train", "experiment=transfer_pretrain", *TINY, classes, "trainer.max_epochs=1",
        cwd=tmp_path)  # fmt: skip
    study = ("-m", "experiment=transfer_study", *TINY, "data.classes=[6,7,8,9]", "seed=3",
             "transfer=head_only,from_scratch", "data.limit_per_class=5", "trainer.max_epochs=2",
             "run_id=study")  # fmt: skip
    done = run("train", *study, cwd=tmp_path)
    assert "sweep study:" in done.stdout
    status, out, error = table(tmp_path / "outputs" / "study")
    assert status == 0, error
    rows = pd.read_csv(tmp_path / "outputs" / "study" / "transfer.csv")
    weights = [row for row in done.stdout.splitlines() if row.startswith("  weights")]
    assert ["transfer_pretrain" in row for row in weights] == [True, False]
    assert list(rows["schedule"]) == ["head_only", "from_scratch"]
    assert list(rows["images"]) == [5, 5]
    assert "mean of 1 seed ±" in out
