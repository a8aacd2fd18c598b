"""A disk that is full, too small or not ours any more costs a warning, never the training."""

import csv
import os

import pytest

from disks import fill
from fovea.machine.no_room import reason, spared
from fovea.tracking import MetricsCSV, metrics_csv, tensorboard_logger


def warnings(caplog) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name.startswith("fovea")]


def test_the_table_of_metrics_waits_for_room(small_disk, monkeypatch, caplog) -> None:
    monkeypatch.setattr(metrics_csv, "RETRY_S", 0.0)
    table = MetricsCSV(small_disk, 0)
    for step in range(3):
        table.log_metrics({"loss": step / 10}, step)
    ballast = fill(small_disk)
    for step in range(3, 2000):  # more than what is left of the last block
        table.log_metrics({"loss": step / 10}, step)
        table.log_metrics({"new": step}, step)
    assert len(warnings(caplog)) == 1
    assert "No space left on device" in warnings(caplog)[0]
    assert f"{small_disk}: 0.0 MB free" in warnings(caplog)[0]
    ballast.unlink()
    table.log_metrics({"loss": 200.0}, 2000)
    table.finalize("success")
    with table.path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["loss"] for row in rows] == [repr(step / 10) for step in range(2001)]
    assert [row["new"] for row in rows[3:2000]] == [str(step) for step in range(3, 2000)]
    assert len(warnings(caplog)) == 1


def test_what_the_table_lacks_in_the_end_is_said(small_disk, caplog) -> None:
    fill(small_disk)
    table = MetricsCSV(small_disk / "run", 0)
    table.log_metrics({"loss": 1.0}, 0)
    table.finalize("success")
    assert "lacks its last 1 entries" in warnings(caplog)[-1]


def test_tensorboard_stops_and_training_does_not(small_disk, caplog) -> None:
    logger = tensorboard_logger(small_disk)
    logger.log_metrics({"loss": 1.0}, 0)
    logger.save()
    fill(small_disk)
    for step in range(1, 3000):
        logger.log_metrics({"loss": 1.0}, step)
        if step % 100 == 0:
            logger.save()
    logger.finalize("success")
    assert len(warnings(caplog)) == 1
    assert "TensorBoard's events could not be written" in warnings(caplog)[0]


def test_only_what_the_disk_refuses_is_spared(tmp_path, caplog) -> None:
    with spared("The picture", tmp_path / "a" / "b.png"):
        (tmp_path / "a" / "b.png").write_bytes(b"")
    assert "The picture could not be written" in warnings(caplog)[0]
    assert "MB free" in warnings(caplog)[0]
    with pytest.raises(ValueError, match="a bug"), spared("The picture", tmp_path):
        raise ValueError("a bug")
    assert "Disk quota exceeded" in reason(OSError(122, os.strerror(122)), tmp_path)
