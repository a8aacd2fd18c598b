"""A signal that every process of a run gets stops the run, not the workers that feed it."""

import subprocess
import sys

import pytest

from fovea.data import DigitsDataModule

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="tells senders apart")


@pytest.fixture
def loader():
    data = DigitsDataModule(
        batch_size=16, hflip=False, num_workers=2, in_memory=False, limit_per_class=40
    )
    data.prepare()
    loader = data.train_dataloader()
    yield loader
    loader._stop_workers()


def workers(loader):
    return loader._iterator._workers


@pytest.mark.parametrize("name", ["INT", "TERM", "USR1", "USR2"])
def test_workers_go_on_feeding(loader, name):
    batches = iter(loader)
    seen = [next(batches)]
    pids = [str(worker.pid) for worker in workers(loader)]
    subprocess.run(["kill", "-s", name, *pids], check=True)
    seen += batches
    assert len(seen) == len(loader) > 10
    assert all(worker.is_alive() for worker in workers(loader))


def test_they_end_when_their_own_process_says_so(loader):
    next(iter(loader))
    for worker in workers(loader):
        worker.terminate()
        worker.join(60)
        assert worker.exitcode == 0
