"""Checkpoint files: whole at every instant, checked before use, and a full disk harms none."""

import os
import resource
import shutil
import signal
import subprocess
import traceback
import zipfile

import pytest
import torch

from fovea import run_folder
from fovea.checkpoints import durable, generations
from fovea.checkpoints.checkpoint_io import AtomicCheckpointIO
from fovea.errors import FoveaError


def content(number):
    return {"step": number, "weights": torch.full((5000,), float(number))}


def steps(path):
    return [torch.load(p, weights_only=True)["step"] for p in generations.existing(path)]


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_so_many_generations_are_kept_newest_first(tmp_path, keep):
    path = tmp_path / "checkpoints" / "last.ckpt"
    for number in range(5):
        AtomicCheckpointIO(keep).save_checkpoint(content(number), path)
    assert steps(path) == [4, 3, 2][:keep]
    AtomicCheckpointIO(1).save_checkpoint(content(5), path)
    assert [p.name for p in path.parent.iterdir()] == ["last.ckpt"], "nothing else is left"


@pytest.mark.parametrize("hard_links", [True, False])
def test_a_kill_at_any_system_call_leaves_a_whole_newest_generation(
    tmp_path, monkeypatch, hard_links
):
    """The process is thought to be gone before each call that changes a name, one after another."""

    class Killed(BaseException):
        pass

    if not hard_links:

        def no_links(*_):
            raise PermissionError("no hard links here")

        monkeypatch.setattr(os, "link", no_links)
    names = ["replace", "link"] if hard_links else ["replace"]
    deaths = 0
    for death in range(6):
        path = tmp_path / str(death) / "last.ckpt"
        for number in range(3):
            AtomicCheckpointIO(3).save_checkpoint(content(number), path)
        with monkeypatch.context() as patch:
            calls = iter(range(100))

            def dying(real, calls=calls, death=death):
                def call(*arguments):
                    if next(calls) == death:
                        raise Killed
                    return real(*arguments)

                return call

            for name in names:
                patch.setattr(os, name, dying(getattr(os, name)))
            try:
                AtomicCheckpointIO(3).save_checkpoint(content(3), path)
            except Killed:
                deaths += 1
        assert [generations.damage(p) for p in generations.existing(path)] == [None] * len(
            generations.existing(path)
        )
        assert steps(path)[0] in {2, 3}, "the newest that was there, or the new one"
        durable.remove_leftovers(path.parent)
        AtomicCheckpointIO(3).save_checkpoint(content(4), path)
        assert steps(path)[:2] in ([4, 3], [4, 2]), "and the next save finds its way"
    assert deaths >= 3


def test_each_flipped_byte_of_the_data_and_each_cut_is_found(tmp_path):
    good = tmp_path / "last.ckpt"
    torch.save(content(1), good)
    assert generations.damage(good) is None
    whole = good.read_bytes()
    with zipfile.ZipFile(good) as archive:
        record = next(i for i in archive.infolist() if i.file_size == 4 * 5000)
    bad = tmp_path / "bad.ckpt"
    for place in (record.header_offset + 500, record.header_offset + 15000, len(whole) // 2):
        bad.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert "checksum" in generations.damage(bad), place
    for end in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        bad.write_bytes(whole[:end])
        assert (generations.damage(bad) is None) == (end == 1), end  # one byte may be anything
    torch.save(content(1), bad, _use_new_zipfile_serialization=False)
    assert generations.damage(bad) is None, "formats without checksums are left to torch"


def test_a_damaged_last_one_is_named_and_the_one_before_is_used(tmp_path, caplog):
    path = tmp_path / "checkpoints" / "last.ckpt"
    for number in range(3):
        AtomicCheckpointIO(3).save_checkpoint(content(number), path)
    shutil.copy(path, path.with_name("best.ckpt"))
    path.write_bytes(path.read_bytes()[:-100])
    with caplog.at_level("WARNING", logger="fovea"):
        assert run_folder.whole_checkpoint(tmp_path, "last").name == "last-1.ckpt"
    assert f"{path} is damaged: its end is missing" in caplog.text
    with pytest.raises(FoveaError, match=r"last\.ckpt is damaged(.|\n)*best\.ckpt"):
        run_folder.whole_checkpoint(path, "last")
    for file in generations.existing(path):
        file.write_bytes(b"PK")
    with pytest.raises(FoveaError, match=r"last\.ckpt.*last-1\.ckpt.*last-2\.ckpt(.|\n)*best"):
        run_folder.whole_checkpoint(tmp_path, "last")
    path.with_name("best.ckpt").write_bytes(b"PK")
    with pytest.raises(FoveaError, match=r"best\.ckpt is damaged(.|\n)*not looked at:.*last"):
        run_folder.whole_checkpoint(tmp_path, "best")


def test_without_a_last_one_the_one_before_it_is_found(tmp_path):
    path = tmp_path / "checkpoints" / "last-1.ckpt"
    AtomicCheckpointIO().save_checkpoint(content(1), path)
    assert run_folder.has_checkpoint(tmp_path)
    assert run_folder.whole_checkpoint(tmp_path, "last") == path


@pytest.fixture
def small_disk(tmp_path):
    """Return a folder on a disk of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a disk may not be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_the_last_checkpoint_and_is_named(small_disk, caplog):
    io, path = AtomicCheckpointIO(), small_disk / "last.ckpt"
    io.save_checkpoint(content(1), path)
    before = path.read_bytes()
    with caplog.at_level("WARNING", logger="fovea"):
        io.save_checkpoint({"weights": torch.zeros(1_000_000)}, path)
    assert f"No space left on device (disk {small_disk}: 1.0 MB free)" in caplog.text
    assert "needs 4.0 MB" in caplog.text
    assert path.read_bytes() == before
    assert [p.name for p in small_disk.iterdir()] == ["last.ckpt"], "the partial file is gone"
    assert io.failed is not None
    io.save_checkpoint(content(2), path)
    assert io.failed is None
    assert steps(path) == [2, 1]


def in_child(function):
    """Run ``function`` in a process of its own and return how that ended."""
    child = os.fork()
    if child == 0:
        try:
            function()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_limit_on_the_size_of_files_is_no_end_either(tmp_path):
    def save_too_much():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        io = AtomicCheckpointIO()
        io.save_checkpoint(content(1), tmp_path / "last.ckpt")
        assert io.failed is None
        io.save_checkpoint({"weights": torch.zeros(1_000_000)}, tmp_path / "last.ckpt")
        assert "File too large" in io.failed

    assert in_child(save_too_much) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]
    assert steps(tmp_path / "last.ckpt") == [1]


def test_a_damaged_newest_one_does_not_replace_a_whole_one(tmp_path):
    path = tmp_path / "last.ckpt"
    io = AtomicCheckpointIO()
    for step in (1, 2):
        io.save_checkpoint(content(step), path)
    path.write_bytes(path.read_bytes()[:-100])
    AtomicCheckpointIO().save_checkpoint(content(3), path)  # of the run that went on from step 1
    assert steps(path) == [3, 1]


def test_a_writer_that_is_killed_leaves_what_was_there(tmp_path):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(content(1), path)
    before = path.read_bytes()

    def die_before_the_rename():
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
        AtomicCheckpointIO().save_checkpoint(content(2), path)

    assert in_child(die_before_the_rename) == -signal.SIGKILL
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2
    durable.remove_leftovers(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]
