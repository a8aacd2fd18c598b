import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.profilers import SimpleProfiler
from torch.utils.data import DataLoader

from fovea.tracking import MetricsCSV, Throughput, throughput
from fovea.types import Batch
from process import environment

SRC = Path(__file__).parents[2] / "src"
FETCH, MOVE, STEP, PAUSE = 3.0, 1.0, 4.0, 1000.0
BATCH = 4


class Clock:
    """Time that passes only where a test says so, in seconds."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    def spend(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(throughput, "time", clock)
    return clock


class Samples:
    """``steps`` batches of 4; the i-th that is fetched takes ``costs(i)`` seconds."""

    def __init__(self, clock, steps, costs):
        self.clock, self.steps, self.costs = clock, steps, costs
        self.fetched = 0

    def __len__(self):
        return BATCH * self.steps

    def __getitems__(self, keys):
        self.clock.spend(self.costs(self.fetched))
        self.fetched += 1
        images = torch.randn(len(keys), 3, generator=torch.Generator().manual_seed(keys[0]))
        return Batch(images, torch.zeros(len(keys)), torch.tensor(keys))


class Data(LightningDataModule):
    def __init__(self, clock, steps=8, costs=lambda i: FETCH):
        super().__init__()
        self.clock = clock
        self.samples = Samples(clock, steps, costs)

    def train_dataloader(self):
        return DataLoader(self.samples, batch_size=BATCH, collate_fn=lambda batch: batch)

    val_dataloader = train_dataloader

    def on_after_batch_transfer(self, batch, dataloader_idx):
        self.clock.spend(MOVE)
        return batch


class Module(LightningModule):
    def __init__(self, clock):
        super().__init__()
        self.clock = clock
        self.layer = torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.Dropout())

    def training_step(self, batch, batch_idx):
        self.clock.spend(STEP)
        loss = self.layer(batch.images).square().mean()
        self.log("train/loss", loss, on_step=True, on_epoch=False)
        return loss

    def validation_step(self, batch, batch_idx):
        self.clock.spend(PAUSE)
        self.log("val/loss", 1.0)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Slow(Callback):
    """Whatever is not training takes long."""

    def __init__(self, clock):
        self.clock = clock

    def on_train_start(self, trainer, pl_module):
        self.clock.spend(PAUSE)

    on_train_epoch_start = on_train_epoch_end = on_validation_end = on_train_start

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        self.clock.spend(PAUSE)


def fit(folder, clock, data=None, callback=None, resume=None, **options):
    """Return the trainer and its metrics.csv, by step."""
    torch.manual_seed(0)
    module = Module(clock)
    torch.manual_seed(1)
    options = {"max_epochs": 2, "log_every_n_steps": 4} | options
    trainer = Trainer(
        accelerator="cpu",
        logger=MetricsCSV(folder, resume_step=None if resume else 0),
        callbacks=[
            *([Throughput()] if callback is None else callback),
            Slow(clock),
            ModelCheckpoint(folder, filename="{step}", every_n_train_steps=3, save_top_k=-1),
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    data = data or Data(clock)
    trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=resume and True)
    return trainer, pd.read_csv(folder / "metrics.csv").set_index("step")


def numbers(table, name):
    return table[f"perf/{name}"].dropna().to_dict()


def test_speed_and_waiting_are_those_of_training_alone_in_the_rows_of_the_loss(tmp_path, clock):
    _, table = fit(tmp_path, clock)
    steps = [3, 7, 11, 15]
    speed = BATCH / (FETCH + MOVE + STEP)
    assert numbers(table, "images_per_second") == pytest.approx(dict.fromkeys(steps, speed))
    waiting = FETCH / (FETCH + MOVE + STEP)
    assert numbers(table, "data_wait") == pytest.approx(dict.fromkeys(steps, waiting))
    assert table["train/loss"].dropna().index.tolist() == steps
    assert table.index.is_unique
    assert list(table).index("train/loss") < list(table).index("perf/data_wait")


@pytest.mark.parametrize("accumulate", [1, 2])
def test_each_interval_has_its_own_numbers(tmp_path, clock, accumulate):
    costs = [9.0, 0.0, 0.0, 0.0, 5.0, 15.0, 5.0, 15.0]
    options = {"accumulate_grad_batches": accumulate, "log_every_n_steps": 4 // accumulate}
    data = Data(clock, costs=lambda i: costs[i])
    _, table = fit(tmp_path, clock, data, max_epochs=1, limit_val_batches=0, **options)
    assert list(numbers(table, "data_wait").values()) == pytest.approx([0.0, 40 / 60])
    assert list(numbers(table, "images_per_second").values()) == pytest.approx(
        [3 * BATCH / (3 * (MOVE + STEP)), 4 * BATCH / 60]
    )


def test_the_first_batch_is_left_out_and_with_it_the_start_of_the_workers(tmp_path, clock):
    data = Data(clock, costs=lambda i: FETCH if i else 500.0)
    callback = [Throughput()]
    for _ in range(2):
        data.samples.fetched = 0
        _, table = fit(tmp_path, clock, data, callback, log_every_n_steps=1, max_epochs=1)
        assert numbers(table, "data_wait") == pytest.approx(dict.fromkeys(range(1, 8), 3 / 8))


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"accumulate_grad_batches": 2, "log_every_n_steps": 2}, [1, 3, 5, 7]),
        ({"limit_train_batches": 3, "log_every_n_steps": 3}, [2, 5]),
        ({"overfit_batches": 2, "log_every_n_steps": 2}, [1, 3]),
        ({"val_check_interval": 2}, [3, 7, 11, 15]),
        ({"check_val_every_n_epoch": 2, "log_every_n_steps": 10}, [9]),
    ],
)
def test_any_way_of_going_through_the_data(tmp_path, clock, options, steps):
    _, table = fit(tmp_path, clock, **options)
    assert numbers(table, "images_per_second") == pytest.approx(dict.fromkeys(steps, 0.5))
    assert numbers(table, "data_wait") == pytest.approx(dict.fromkeys(steps, 3 / 8))


def test_a_resumed_run_goes_on_with_its_numbers(tmp_path, clock):
    fit(tmp_path, clock, max_epochs=1)
    _, table = fit(tmp_path, clock, resume=tmp_path / "step=6.ckpt")
    assert numbers(table, "data_wait") == pytest.approx(dict.fromkeys([3, 7, 11, 15], 3 / 8))


def test_training_ends_with_the_same_weights_and_random_numbers(tmp_path, clock):
    ends = []
    for name, callbacks in {"with": [Throughput()], "without": []}.items():
        trainer, _ = fit(tmp_path / name, clock, callback=callbacks)
        ends.append([*trainer.model.parameters(), torch.rand(3)])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_the_memory_is_what_the_kernel_counts(tmp_path, clock):
    _, table = fit(tmp_path, clock)
    (line,) = [x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x]
    peak = int(line.split()[1]) * 1024 / 1e9
    assert table["perf/host_memory_gb"].dropna().iloc[-1] == pytest.approx(peak, rel=0.1)


def test_on_a_gpu_it_is_the_memory_of_its_tensors(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 2_500_000_000)
    assert throughput._memory(torch.device("cuda", 1)) == {"perf/device_memory_gb": 2.5}


class Advising(Data):
    def data_wait_advice(self):
        return "data.num_workers=7"


def lines(caplog):
    return [r.message for r in caplog.records if "waited for data" in r.message]


def test_a_long_wait_is_told_once_with_the_advice_of_the_data(tmp_path, clock, caplog):
    fit(tmp_path, clock, Advising(clock, costs=lambda i: 5.0), log_every_n_steps=1)
    # Four intervals of 10 s are more than 30 s; the interval before them does not count.
    assert lines(caplog) == [
        "Training waited for data 50% of the last 30 s. What helps: data.num_workers=7"
    ]


def test_data_without_advice_gets_a_general_one(tmp_path, clock, caplog):
    fit(tmp_path, clock, Data(clock, costs=lambda i: 5.0), log_every_n_steps=1)
    assert lines(caplog)[0].endswith(throughput.GENERAL_ADVICE)


@pytest.mark.parametrize(
    "costs",
    [
        lambda i: 100.0 if i < 4 else 0.0,  # the first interval: queues fill up
        lambda i: 2.0,  # 2 of 7 s are less than 30 %
        lambda i: 5.0 if i < 7 else 0.0,  # too short: 20 s of waiting half the time, then none
    ],
)
def test_short_or_small_waits_are_not_told(tmp_path, clock, caplog, costs):
    options = {"log_every_n_steps": 4, "limit_val_batches": 0}
    fit(tmp_path, clock, Data(clock, steps=40, costs=costs), max_epochs=1, **options)
    assert not lines(caplog)


def test_a_wait_that_begins_late_is_told_as_well(tmp_path, clock, caplog):
    data = Data(clock, steps=200, costs=lambda i: 15.0 if i >= 100 else 0.0)
    fit(tmp_path, clock, data, max_epochs=1, limit_val_batches=0)
    assert len(lines(caplog)) == 1
    assert "waited for data 75% of the last 240 s" in lines(caplog)[0]


class FakeEvent:
    """A mark in the work of a GPU that is ``queue`` seconds behind the program."""

    clock = Clock()
    queue = 0.0

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        self.passed = max(self.clock.now, FakeEvent.queue)

    def query(self):
        return self.passed <= self.clock.now

    def elapsed_time(self, end):
        assert end.query(), "torch raises for a mark that the GPU has not passed"
        return (end.passed - self.passed) * 1000


def test_on_a_gpu_only_the_time_it_stands_idle_counts(clock, monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    FakeEvent.clock = clock
    timeline = throughput._Timeline(SimpleProfiler(), torch.device("cuda"))

    def batch(fetch, work):
        timeline.start(timeline.FETCH)
        clock.spend(fetch)
        timeline.stop(timeline.FETCH)
        FakeEvent.queue = max(clock.now, FakeEvent.queue) + work  # no waiting for it

    batch(0, 0)
    timeline.restart()
    batch(fetch=2, work=10)  # idle for 2 s
    assert timeline.take() == (2, 2)
    batch(fetch=4, work=10)  # the GPU still works on the last one: nothing is lost
    batch(fetch=4, work=1)
    assert timeline.take() == (8, 0)
    batch(fetch=30, work=0)  # at 10 s of work left in the queue, idle for the rest
    clock.spend(1)
    assert timeline.take() == (31, pytest.approx(30 - (21 + 2 - 10)))


def test_the_own_profiler_goes_on_and_is_given_back(tmp_path, clock):
    profiler = SimpleProfiler()
    trainer, _ = fit(tmp_path, clock, profiler=profiler)
    assert trainer.profiler is profiler
    assert len(profiler.recorded_durations[throughput._Timeline.FETCH]) == 16
    assert "run_training_batch" in profiler.recorded_durations


class Breaks(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        raise RuntimeError("broken")


def test_the_own_profiler_is_given_back_after_an_error(tmp_path, clock):
    profiler = SimpleProfiler()
    seen = SimpleNamespace(trainer=None)

    class Sees(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            assert trainer.profiler is not profiler
            seen.trainer = trainer

    with pytest.raises(RuntimeError, match="broken"):
        fit(tmp_path, clock, callback=[Throughput(), Sees(), Breaks()], profiler=profiler)
    assert seen.trainer.profiler is profiler


RANKS = f"""
import sys
sys.path[:0] = {[str(SRC), str(Path(__file__).parent)]!r}
from pathlib import Path
from test_throughput import Clock, Data, Throughput, fit, throughput

clock = throughput.time = Clock()
if __name__ == "__main__":
    import os
    slow = int(os.environ.get("LOCAL_RANK", 0)) == 1
    data = Data(clock, costs=lambda i: 11.0 if slow else 0.0)
    fit(Path(sys.argv[1]), clock, data, devices=2, strategy="ddp")
"""


@pytest.mark.slow
def test_ranks_give_their_images_together_and_the_longest_wait(tmp_path):
    (tmp_path / "script.py").write_text(RANKS)
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py", tmp_path / "run"],
        env=environment(PYTHONPATH=str(Path(__file__).parents[1])),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "run" / "metrics.csv").set_index("step")
    assert len(numbers(table, "data_wait")) == 2
    for step, share in numbers(table, "data_wait").items():
        assert share == pytest.approx(11 / (11 + MOVE + STEP)), step
    # Rank 0 never waits: 4 images a rank in 5 s. The slower clock of rank 1 is no real time.
    speed = numbers(table, "images_per_second")
    assert speed == pytest.approx(dict.fromkeys([3, 7], 2 * BATCH / (MOVE + STEP)))
