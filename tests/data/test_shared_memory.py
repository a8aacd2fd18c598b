import os
import re
import signal
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from fovea.data import shared_memory
from fovea.data.shared_memory import check_shared_memory, explain_dead_worker
from fovea.errors import FoveaError

MB = 1_000_000


@pytest.fixture
def room(monkeypatch):
    """Set how many megabytes a file system has, and how many of them are free."""

    def set_room(total, free):
        state = SimpleNamespace(f_frsize=MB // 250, f_blocks=total * 250, f_bavail=free * 250)
        monkeypatch.setattr(os, "statvfs", lambda folder: state)

    return set_room


def test_batches_that_do_not_fit_are_refused_with_numbers_and_ways(room, tmp_path):
    room(total=64, free=64)
    with pytest.raises(FoveaError) as caught:
        check_shared_memory(batch_bytes=38 * MB, num_workers=16, folder=tmp_path)
    message = str(caught.value)
    assert "1,292 MB" in message  # 34 x 38
    assert "((16 workers x 2 + 2) batches x 38 MB)" in message
    assert f"{tmp_path} has only 64 MB" in message
    assert "--shm-size=3g" in message  # twice the need
    for way in ("docker run", "--ipc=host", "data.num_workers=0", "data.batch_size"):
        assert way in message


def test_the_number_of_workers_that_would_fit_is_named(room, tmp_path):
    room(total=64, free=64)
    with pytest.raises(FoveaError, match=r"data\.num_workers=2 "):  # (2 x 2 + 2) x 10 MB
        check_shared_memory(10 * MB, num_workers=3, folder=tmp_path)
    check_shared_memory(10 * MB, num_workers=2, folder=tmp_path)


def test_the_ranks_of_a_machine_share_it(room, tmp_path):
    room(total=64, free=64)
    with pytest.raises(FoveaError, match=r"240 MB .*\(4 ranks x \(2 workers x 2 \+ 2\)"):
        check_shared_memory(10 * MB, num_workers=2, local_ranks=4, folder=tmp_path)


def test_batches_that_fit_only_an_empty_one_are_a_warning(room, tmp_path, caplog):
    room(total=64, free=45)
    check_shared_memory(10 * MB, num_workers=2, folder=tmp_path)
    (record,) = caplog.records
    assert "has 45 MB free of 64 MB" in record.message
    assert "data.num_workers=1 " in record.message


@pytest.mark.parametrize("options", [{"num_workers": 1}, {"num_workers": 0}])
def test_what_fits_or_needs_none_is_fine(room, tmp_path, caplog, options):
    room(total=64, free=45)
    check_shared_memory(10 * MB, folder=tmp_path, **options)
    assert not caplog.records


def test_there_is_nothing_to_check_without_such_a_folder_or_limit(room, tmp_path):
    check_shared_memory(10**15, num_workers=8, folder=tmp_path / "none")
    room(total=0, free=0)
    check_shared_memory(10**15, num_workers=8, folder=tmp_path)


def test_it_reads_the_size_of_a_real_file_system(tmp_path):
    with pytest.raises(FoveaError, match="only"):
        check_shared_memory(10**18, num_workers=1, folder=tmp_path)
    check_shared_memory(1, num_workers=1, folder=tmp_path)


class Deadly(Dataset):
    """Eight samples, the sixth of which does something to the process that reads it."""

    def __init__(self, act, *arguments):
        self.act, self.arguments = act, arguments

    def __len__(self):
        return 8

    def __getitem__(self, index):
        if index == 5:
            self.act(*self.arguments)
        return torch.zeros(1)


def send(number):
    os.kill(os.getpid(), number)


def fail(message):
    raise RuntimeError(message)


def explained(act, *arguments, paths=()):
    """Return what is said of a loader whose worker does ``act`` in the middle of the data."""
    batches = iter(DataLoader(Deadly(act, *arguments), batch_size=2, num_workers=1))
    try:
        for _ in batches:
            pass
    except Exception as error:
        return explain_dead_worker(error, paths, batches._workers)
    finally:
        batches._shutdown_workers()
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    ("number", "words", "ways"),
    [
        (signal.SIGBUS, "Bus error", ["/dev/shm", "--shm-size", "--ipc=host", "data.num_workers"]),
        (signal.SIGKILL, "Killed", ["memory ran out", "data.num_workers"]),
        (signal.SIGSEGV, "Segmentation fault", ["data.decode=pil", "data.check=true"]),
        (signal.SIGABRT, "Aborted", ["data.decode=pil", "data.check=true"]),
        (signal.SIGTERM, "Terminated", ["outside"]),
    ],
)
def test_a_killed_worker_is_explained(number, words, ways):
    told = explained(send, number, paths=["photos/a.jpg", "photos/b.jpg"])
    assert isinstance(told, FoveaError)
    assert words in str(told)
    assert "photos/a.jpg, photos/b.jpg." in str(told)
    for way in ways:
        assert way in str(told)
    assert not re.search(r"pid|\n", str(told))


def test_a_worker_that_just_ends_is_explained():
    told = explained(os._exit, 3)
    assert "exited unexpectedly" in str(told)
    assert "data.num_workers=0" in str(told)
    assert "files" not in str(told)


def test_five_files_are_named_at_most():
    paths = [f"{number}.jpg" for number in range(9)]
    told = str(explained(send, signal.SIGKILL, paths=paths))
    assert "0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg and 4 more." in told
    assert "5.jpg" not in told


def test_a_full_shared_memory_that_torch_notices_is_explained():
    full = "unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on device"
    told = str(explained(fail, full))
    assert "--shm-size" in told
    assert "died" not in told


@pytest.mark.parametrize("link", ["__cause__", "__context__"])
def test_a_death_that_torch_tells_in_the_middle_of_something_else_is_explained(link):
    """The loader is not at hand there, so what torch says has to do."""
    told = ValueError("in the middle of a step")
    setattr(told, link, RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "))
    assert "died: Killed. Most likely the memory ran out." in str(explain_dead_worker(told))


class Dying:
    """A worker that is gone, but not yet known to be: its pipe is closed already."""

    def __init__(self):
        self.sentinel, write = os.pipe()
        os.close(write)
        self.exitcode = None

    def join(self):
        self.exitcode = -signal.SIGBUS


def test_a_worker_that_is_still_dying_is_waited_for():
    told = explain_dead_worker(ConnectionResetError(), workers=[Dying()])
    assert "died: Bus error." in str(told)


def test_an_error_that_a_worker_reports_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(shared_memory, "wait", None)
    error = FileNotFoundError("Caught FileNotFoundError in DataLoader worker process 0.")
    assert explain_dead_worker(error, workers=[Dying()]) is None


def test_other_errors_are_not_explained():
    assert explained(fail, "CUDA error: Bus error. Killed") is None
    assert explained(open, "/no/such/file") is None
    assert explain_dead_worker(ValueError("DataLoader")) is None
