"""resume=auto: which run the same command goes on with, and that no two processes train one."""

import fcntl
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from fovea import auto_resume, run_folder, run_lock
from fovea.arguments import compose_checked, prepare_arguments
from fovea.errors import FoveaError
from fovea.machine import slurm
from fovea.machine.signals import STOP

WORDS = ["optimizer.lr=0.01", "trainer.max_epochs=4"]


@pytest.fixture
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "SLURM_NTASKS", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    yield tmp_path
    for path in [p for p in run_lock._held if p.is_relative_to(tmp_path)]:
        run_lock._held.pop(path).close()


def make_run(name, words=WORDS, state="running", started=1.0, checkpoint=True):
    """Leave what a run leaves."""
    cfg = compose_checked("train", words)
    folder = Path("outputs", name).absolute()
    (folder / "checkpoints").mkdir(parents=True)
    OmegaConf.save(OmegaConf.create({"run_id": name}), folder / "config.yaml")
    print_of = auto_resume.fingerprint(cfg)
    run_folder.write_summary(folder, state=state, started=started, fingerprint=print_of)
    if checkpoint:
        (folder / "checkpoints" / "last.ckpt").write_bytes(b"")
    return folder


def prepared(*words):
    """Return (folder's name, resume word) of what a command will do, or that it is finished."""
    found = prepare_arguments("train", [*words, "resume=auto"])
    if found.finished is not None:
        return "finished", found.finished.name
    last = {word.partition("=")[0]: word.partition("=")[2].strip("'") for word in found.words}
    return Path(last.get("hydra.run.dir", last["run_id"])).name, Path(last["resume"]).name


def test_the_newest_unfinished_run_of_the_same_configuration_goes_on(in_empty_folder):
    assert prepared(*WORDS)[1] == "null"
    make_run("other", ["optimizer.lr=0.02", "trainer.max_epochs=4"])
    make_run("longer", ["optimizer.lr=0.01", "trainer.max_epochs=5"])
    assert prepared(*WORDS)[1] == "null"
    make_run("done", state="finished", started=9)
    assert prepared(*WORDS) == ("finished", "done")
    make_run("old", started=2)
    make_run("sweep/3", started=3, state="failed")
    make_run("pruned", started=4, state="pruned")
    assert prepared(*WORDS) == ("3", "3")


def test_where_a_run_runs_makes_no_difference(in_empty_folder):
    make_run("here", [*WORDS, "trainer=ddp_cpu", "logger=csv", "data.num_workers=3", "tags=[a]"])
    assert prepared(*WORDS, "trainer=cpu", "checkpoint.every_n_steps=7") == ("here", "here")


def test_what_only_watches_a_run_makes_no_difference(in_empty_folder):
    words = [*WORDS, "~callbacks.progress", "~callbacks.image_sheets", "~callbacks.learning_curves"]
    make_run("before", words)
    assert prepared(*WORDS, "callbacks.progress.refresh_s=9") == ("before", "before")
    assert prepared(*WORDS, "callbacks.image_sheets=null") == ("before", "before")
    assert prepared(*WORDS, "callbacks.spikes.threshold=9")[1] == "null"
    make_run("bare", [*WORDS, "callbacks=[]"])
    assert prepared(*WORDS, "callbacks=[]") == ("bare", "bare")
    cfg = compose_checked("train", WORDS)
    cfg.callbacks = None
    assert auto_resume.fingerprint(cfg)


def test_a_run_without_a_checkpoint_begins_anew_in_its_folder(in_empty_folder):
    make_run("begun", checkpoint=False)
    assert prepared(*WORDS) == ("begun", "null")


def test_with_a_name_only_that_run_is_meant(in_empty_folder):
    make_run("mine", started=1)
    make_run("newer", started=2)
    make_run("other", ["optimizer.lr=0.5"])
    assert prepared(*WORDS, "run_id=mine") == ("mine", "mine")
    assert prepared(*WORDS, "run_id=new") == ("new", "null")
    with pytest.raises(FoveaError, match="other holds a run of another configuration"):
        prepared(*WORDS, "run_id=other")


def test_a_run_that_a_living_process_trains_is_left_alone(in_empty_folder):
    folder = make_run("living")
    program = "import sys, fcntl; f = open('.lock', 'a'); fcntl.lockf(f, fcntl.LOCK_EX)\n"
    program += "print('process 7 on moon', file=f, flush=True); print(flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", program], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    holder.stdout.readline()
    with pytest.raises(FoveaError, match="is being trained in by process 7 on moon"):
        prepared(*WORDS)
    holder.kill()
    holder.wait()
    assert prepared(*WORDS) == ("living", "living"), "a lock ends with its process"
    check = "import fcntl; fcntl.lockf(open('.lock', 'a'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    again = subprocess.run([sys.executable, "-c", check], cwd=folder, capture_output=True)
    assert again.returncode != 0, "and is taken with the decision"


def test_a_file_system_without_locks_refuses_nobody(in_empty_folder, monkeypatch):
    def no_locks(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", no_locks)
    make_run("here")
    assert prepared(*WORDS) == ("here", "here")


def test_ranks_started_from_outside_do_what_rank_zero_decides(in_empty_folder, monkeypatch):
    make_run("old", started=1)
    make_run("newer", started=2)
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert prepared(*WORDS) == ("newer", "newer")
    run_folder.write_summary(Path("outputs/newer"), state="finished")  # what rank 0 does meanwhile
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert prepared(*WORDS) == ("newer", "newer")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setattr(auto_resume, "_WAIT_S", 0)
    with pytest.raises(FoveaError, match="rank 0 did not say"):
        prepared(*WORDS)
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert prepared(*WORDS) == ("old", "old")


@pytest.mark.parametrize(
    ("received", "status", "goes_on", "requeued"),
    [
        ("SIGUSR1", 75, True, True),
        ("SIGUSR1", 75, False, False),
        ("SIGUSR1", 2, True, False),
        ("SIGTERM", 75, True, False),
    ],
)
def test_a_slurm_job_is_requeued_after_its_time_limit_only(
    tmp_path, monkeypatch, received, status, goes_on, requeued
):
    stub = tmp_path / "scontrol"
    stub.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/called\n')
    stub.chmod(stub.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    for name in ("SLURM_PROCID", "LOCAL_RANK", "SUBMITIT_EXECUTOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(STOP, "received", getattr(signal, received))
    slurm.requeue(status, goes_on)
    called = tmp_path / "called"
    assert called.exists() == requeued
    if requeued:
        assert called.read_text() == "requeue 17\n"
        called.unlink()
        monkeypatch.setenv("SLURM_PROCID", "1")
        slurm.requeue(status, goes_on)
        assert not called.exists(), "once a job"
