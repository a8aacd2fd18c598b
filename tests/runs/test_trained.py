"""A real run with TensorBoard on: both logs say the same, and so does its row."""

import json

import pandas as pd
import pytest

from fovea import runs
from process import SMALL, folder_of, run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("trained")
    words = ("model=timm", "model.name=test_resnet", "logger=tensorboard")
    done = run("train", *SMALL, *words, "trainer.log_every_n_steps=2", cwd=cwd)
    return folder_of(done, cwd)


@pytest.mark.slow
def test_tensorboard_reads_the_same_curves(trained):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulators.EventAccumulator(
        str(trained / "tensorboard"), {"scalars": 0, "images": 0}
    )
    events.Reload()
    table = runs.history(trained)
    metrics = [name for name in table if name not in ("epoch", "step")]
    assert {"train/loss", "val/loss", "val/top1", "train/lr", "perf/data_wait"} <= set(metrics)
    for name in metrics:
        logged = table.dropna(subset=[name])
        found = pd.DataFrame(events.Scalars(name)).drop_duplicates("step", keep="last")
        assert found["step"].tolist() == logged["step"].tolist(), name
        # TensorBoard keeps 32 bits.
        assert found["value"].tolist() == pytest.approx(logged[name].tolist(), rel=1e-6), name
    assert any(tag.startswith("figures/") for tag in events.Tags()["images"])


@pytest.mark.slow
def test_the_row_of_a_real_run(trained):
    table = runs.load(trained.parents[0])
    assert table["id"].tolist() == [trained.name]
    row = table.iloc[0]
    summary = json.loads((trained / "summary.json").read_text())
    assert row["error"] is None or pd.isna(row["error"])
    assert (row["state"], row["kind"]) == ("finished", "train")
    assert (row["monitor"], row["mode"]) == ("val/loss", "min")
    assert row["objective"] == summary["objective"]
    assert row["objective"] == pytest.approx(runs.history(trained)["val/loss"].min())
    assert row["val/loss"] == pytest.approx(row["objective"])
    assert (row["epochs"], row["steps"]) == (2, 10)
    assert row["duration"] == summary["seconds"]
    assert abs((pd.Timestamp.now("UTC") - row["time"]).total_seconds()) < 600
    assert row["throughput"] > 0
    assert "model=timm" in row["overrides"]
    assert runs.diff(trained, row)["part"].isin(["code"]).all(), "only a checkout that is dirty"
