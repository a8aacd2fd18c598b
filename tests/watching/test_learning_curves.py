"""The curves are drawn as the run goes on, and cost next to nothing."""

import pytest

from fovea.watching import LearningCurves, learning_curves


class Trainer:
    is_global_zero = True


class Clock:
    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(learning_curves, "time", clock)
    return clock


def train(callback, clock, epochs, seconds):
    """Go through ``epochs`` of ``seconds`` each."""
    callback.on_train_start(Trainer, None)
    for _ in range(epochs):
        callback.on_train_epoch_start(Trainer, None)
        clock.now += seconds


@pytest.mark.parametrize("cost", [0.3, 2.0, 30.0])
@pytest.mark.parametrize("seconds", [1.0, 60.0, 1000.0])
def test_drawing_takes_its_share_and_no_more(tmp_path, monkeypatch, clock, cost, seconds):
    drawn = []

    def draw(table, path):
        drawn.append(clock.now)
        clock.now += cost
        path.write_bytes(b"a picture")

    monkeypatch.setattr(learning_curves, "plot_learning_curves", draw)
    callback = LearningCurves(tmp_path / "metrics.csv", tmp_path / "report" / "curves.png", 0.02)
    train(callback, clock, 300, seconds)
    share = len(drawn) * cost / (clock.now - 100.0)
    # What the first one costs is not known before.
    assert share <= 0.02 or len(drawn) == 1
    affordable = min(299, 0.02 * (clock.now - 100.0) / cost)
    assert len(drawn) >= 0.9 * affordable - 1, "as often as the share allows"
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["curves.png"]


def test_the_epochs_before_are_in_the_picture_and_a_failure_is_told_once(tmp_path, clock, caplog):
    table, picture = tmp_path / "metrics.csv", tmp_path / "report" / "curves.png"
    callback = LearningCurves(table, picture, max_share=1.0)
    train(callback, clock, 4, 1000)
    assert len(caplog.records) == 1
    assert "metrics.csv" in caplog.text
    table.write_text("epoch,step,train/loss,val/loss\n0,9,1.0,1.1\n1,19,0.5,0.7\n")
    train(callback, clock, 3, 1000)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in picture.parent.iterdir()] == ["curves.png"]


def test_other_ranks_draw_nothing(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(Trainer, "is_global_zero", False)
    train(LearningCurves(tmp_path / "m.csv", tmp_path / "report" / "c.png"), clock, 3, 1e6)
    assert not (tmp_path / "report").exists()
