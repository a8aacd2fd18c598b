"""Launchers: each composes; jobs run side by side, see their own GPUs, fail and stop as one means.

The jobs are small shell commands, but for one sweep that trains: a launcher starts command lines.
"""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
import yaml

from fovea import run_folder
from fovea.arguments import compose_checked, prepare_arguments
from fovea.catalog import groups
from fovea.errors import FoveaError
from fovea.launchers import GpuLauncher, Job, LocalLauncher
from fovea.launchers.ray_cluster import RayLauncher
from fovea.launchers.slurm import SlurmLauncher
from fovea.sweeps import outcomes
from process import ROOT, SMALL, arguments, environment, run


def job(folder, name, code):
    """Return a job that runs Python code in its own folder."""
    (folder / name).mkdir()
    command = [sys.executable, "-c", f"import os, time; os.chdir({str(folder / name)!r}); {code}"]
    return Job(name, "", command, folder / name)


@pytest.mark.parametrize("launcher", groups()["launcher"])
def test_every_choice_composes_without_its_package(launcher):
    prepare_arguments("train", [f"launcher={launcher}", "--cfg", "job"])
    prepare_arguments("train", [f"launcher={launcher}"])
    assert compose_checked("train", [f"launcher={launcher}"]).launcher._target_


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("launcher=joblib", "launcher is one of: basic, local_gpus, parallel, ray, slurm"),
        ("launcher=parallel launcher.jobs=0", "launcher.jobs=0: expected"),
        ("launcher=local_gpus launcher.gpus=some", "launcher.gpus='some' (text): expected"),
        ("launcher=local_gpus launcher.gpus_per_job=0", "gpus_per_job=0: expected a whole"),
        ("launcher=local_gpus launcher.gpus_per_job=0.5", "gpus_per_job=0.5: expected a whole"),
        ("launcher=slurm launcher.grace=0", "launcher.grace=0: expected"),
        ("launcher=slurm launcher.wait=yes_please", "launcher.wait='yes_please' (text): expected"),
        ("launcher=slurm launcher.partition=gpu", "'launcher.options.partition'"),
    ],
)
def test_mistakes_are_named(words, expected):
    with pytest.raises(FoveaError) as caught:
        prepare_arguments("train", words.split())
    assert expected in str(caught.value)


def test_jobs_overlap_and_a_failing_one_stops_nobody(tmp_path, capsys):
    # Each waits for the other's file: one after another they would never end.
    meet = "open('here', 'w'); \nwhile not os.path.exists('../{}/here'): time.sleep(0.05)"
    jobs = [
        job(tmp_path, "a", meet.format("b")),
        job(tmp_path, "b", meet.format("a")),
        job(tmp_path, "c", "raise SystemExit('no such thing')"),
        job(tmp_path, "d", "open('summary.json', 'w').write('{\"objective\": 0.5}')"),
    ]
    LocalLauncher(jobs=2).run(jobs, need_results=False)
    assert [j.status for j in jobs] == [0, 0, 1, 0]
    assert jobs[3].objective() == 0.5
    assert jobs[2].objective() != jobs[2].objective()  # NaN
    assert (tmp_path / "c" / "output.log").read_text() == "no such thing\n"
    assert "| no such thing\n[c] failed" in capsys.readouterr().out


def test_each_job_sees_its_own_gpus(tmp_path):
    look = "open('gpus', 'w').write(os.environ['CUDA_VISIBLE_DEVICES']); time.sleep(0.5)"
    jobs = [job(tmp_path, name, look) for name in "abc"]
    GpuLauncher(gpus=[4, 5, 6, 7, 8], gpus_per_job=2).run(jobs, need_results=False)
    seen = [(j.folder / "gpus").read_text() for j in jobs]
    assert set(seen[:2]) == {"4,5", "6,7"}
    assert seen[2] in seen[:2]
    with pytest.raises(FoveaError, match="a job needs 3 GPUs, and there are 2"):
        GpuLauncher(gpus=[0, 1], gpus_per_job=3).run(jobs, need_results=False)


@pytest.mark.parametrize(
    ("number", "terminal"),
    [(signal.SIGTERM, False), (signal.SIGINT, True), (signal.SIGINT, False)],
)
def test_a_signal_lets_the_running_jobs_save_and_starts_no_more(tmp_path, number, terminal):
    # As a run does: asked once it takes its time to save, a second Ctrl-C stops it at once.
    save = (
        "from fovea.machine.signals import STOP; STOP.listen(); STOP.deferred = True; "
        "open('here', 'w')\nwhile not STOP.received: time.sleep(0.01)\n"
        "time.sleep(1); open('saved', 'w'); os._exit(75)"
    )
    jobs = [job(tmp_path, name, save) for name in "abc"]

    def send():
        while not all((j.folder / "here").exists() for j in jobs[:2]):
            time.sleep(0.05)
        if terminal:  # it sends it to the jobs as well
            for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
                if str(tmp_path) in Path(f"/proc/{child}/cmdline").read_text():
                    os.kill(int(child), number)
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    sender.start()
    with pytest.raises(KeyboardInterrupt):
        LocalLauncher(jobs=2).run(jobs, need_results=False)
    sender.join()
    assert [(j.folder / "saved").exists() for j in jobs] == [True, True, False]
    assert [j.status for j in jobs] == [75, 75, None]


def slurm(**changes):
    """Return a launcher as conf/launcher/slurm.yaml has it, with some settings changed."""
    node = yaml.safe_load((ROOT / "conf" / "launcher" / "slurm.yaml").read_text())
    del node["_target_"]
    node |= {"nodes": 1, "devices": 1, "accelerator": "gpu"}
    return SlurmLauncher(**{**node, **changes})


def test_batch_file_asks_for_what_the_trainer_uses(tmp_path):
    jobs = [job(tmp_path, name, f"print({name!r})") for name in "ab"]
    text = slurm(
        nodes=2, devices=4, at_once=1, grace=90, setup=["module load cuda"],
        options={"time": "1-00:00:00", "partition": None, "cpus_per_task": 8, "comment": "a b"},
    ).batch_file(jobs, tmp_path)  # fmt: skip
    asked = {line.removeprefix("#SBATCH --") for line in text.splitlines() if "#SBATCH" in line}
    assert asked == {
        "job-name=fovea", "nodes=2", "ntasks-per-node=4", "gpus-per-node=4", "signal=USR1@90",
        "requeue", "open-mode=append", "time=1-00:00:00", "cpus-per-task=8", 'comment="a b"',
        f"output={tmp_path}/slurm-%A_%a.log", "array=0-1%1",
    }  # fmt: skip
    assert "module load cuda\n" in text
    assert text.count(" resume=auto ;;") == 2
    assert "gpus-per-node" not in slurm(accelerator="cpu").batch_file(jobs, tmp_path)


def test_an_option_cannot_add_a_line_to_the_batch_file(tmp_path):
    one = [job(tmp_path, "a", "print()")]
    with pytest.raises(FoveaError, match=r"launcher\.options\.comment"):
        slurm(options={"comment": "x\ntouch marker"}).batch_file(one, tmp_path)


def stub(folder, name, text):
    """Put a program of the given shell text into ``folder``."""
    path = folder / name
    path.write_text("#!/bin/bash\n" + textwrap.dedent(text))
    path.chmod(0o755)


def test_array_is_submitted_and_waited_for(tmp_path, monkeypatch, capsys):
    """A cluster of shell scripts: sbatch runs the elements one after another, as the file says."""
    programs = tmp_path / "bin"
    programs.mkdir()
    log = tmp_path / "asked.log"
    stub(programs, "sbatch", """
        for i in 0 1; do SLURM_ARRAY_TASK_ID=$i bash "$2" > /dev/null; done
        env | grep ^SLURM_JOB_ID; echo "12;far"
    """)  # fmt: skip
    stub(programs, "srun", f'echo "$1" >> {log}; shift; "$@"')
    stub(programs, "squeue", f"echo queue >> {log}; [ $(grep -c queue {log}) -gt 1 ] || echo 12_1")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr("fovea.launchers.slurm._POLL_S", 0.01)
    monkeypatch.setenv("SLURM_JOB_ID", "11")  # submitted from within a job
    write = "open('summary.json', 'w').write('{}')"
    jobs = [
        job(tmp_path, "a'b c", write.format('{\\"state\\": \\"finished\\", \\"objective\\": 2}')),
        job(tmp_path, "d", write.format('{\\"state\\": \\"failed\\"}')),
    ]
    slurm(wait="auto").run(jobs, need_results=True)
    assert [j.status for j in jobs] == [0, 1]
    assert jobs[0].objective() == 2
    assert log.read_text().count("--wait=60") == 2
    assert "scancel 12" in capsys.readouterr().out


def test_a_job_in_the_queue_is_waited_for_and_one_that_was_stopped_may_go_on(
    tmp_path, monkeypatch, capsys
):
    programs, log = tmp_path / "bin", tmp_path / "asked.log"
    programs.mkdir()
    stub(programs, "sbatch", f"grep -o 'set --.*' $2 >> {tmp_path}/sent; echo 13")
    stub(programs, "squeue", f"echo queue >> {log}; [ $(wc -l < {log}) -gt 4 ] || echo 12_1; "
                             f"[ $(wc -l < {log}) -gt 4 ] || echo 13")  # fmt: skip
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr("fovea.launchers.slurm._POLL_S", 0.01)
    jobs = [job(tmp_path, name, f"'{name}'") for name in ("queued", "lost", "never")]
    (tmp_path / "queued" / "slurm_job.txt").write_text("12_1\n")
    run_folder.write_summary(tmp_path / "queued", state="interrupted")
    run_folder.write_summary(tmp_path / "lost", state="running")
    slurm().run(jobs[:2], need_results=True)
    assert [j.status for j in jobs[:2]] == [75, 137]
    assert "'lost'" in (tmp_path / "sent").read_text().replace('"', "")
    assert "'queued'" not in (tmp_path / "sent").read_text()
    assert "is SLURM job 12_1 already" in capsys.readouterr().out
    outcomes.note_end(jobs[1].folder, jobs[1].status)
    assert outcomes.read([jobs[1].folder], []).state == "killed"  # and is run again
    assert outcomes.read([jobs[0].folder], []).state == "cut"
    slurm().run(jobs[2:], need_results=True)
    assert jobs[2].status == 1
    assert (jobs[2].folder / "slurm.sh").stat().st_mode & 0o077 == 0


def test_refused_jobs_and_absent_programs_are_explained(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    jobs = [job(tmp_path, "a", "")]
    with pytest.raises(FoveaError, match=r"no sbatch on this machine.*launcher\.submit=false"):
        slurm().run(jobs, need_results=False)
    slurm(submit=False).run(jobs, need_results=False)
    assert (tmp_path / "a" / "slurm.sh").read_text().startswith("#!/bin/bash\n#SBATCH --job-name")
    (tmp_path / "sbatch").write_text("#!/bin/sh\necho invalid partition >&2; exit 1")
    (tmp_path / "sbatch").chmod(0o755)
    with pytest.raises(FoveaError, match=r"sbatch refused .*: invalid partition"):
        slurm().run(jobs, need_results=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(FoveaError, match=r"pip install '\.\[ray\]'"):
        RayLauncher(None, 1, 0, 0).run(jobs, need_results=False)


@pytest.mark.slow
def test_sweep_in_parallel_and_a_single_run_that_is_launched(tmp_path):
    words = [*SMALL, "model=timm", "model.name=test_vit", "logger=none", "trainer.max_epochs=1"]
    sweep = subprocess.Popen(
        arguments("train", "-m", *words, "launcher=parallel", "optimizer.lr=0.1,0.01",
                  "run_id=sweep"),
        cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    single = run("train", *words, "launcher=local_gpus", "launcher.gpus=[]", cwd=tmp_path,
                 check=False)  # fmt: skip
    assert "launcher.gpus=[]: expected" in single.stderr
    run("train", *words, "launcher=slurm", "launcher.submit=false", "run_id=one", cwd=tmp_path)
    batch = (tmp_path / "outputs" / "one" / "slurm.sh").read_text()
    printed, _ = sweep.communicate(timeout=400)
    assert sweep.returncode == 0, printed
    for name in "01":
        folder = tmp_path / "outputs" / "sweep" / name
        summary = json.loads((folder / "summary.json").read_text())
        assert f"[{name}] done, objective {summary['objective']}" in printed
        assert "launcher" not in (folder / "overrides.yaml").read_text()
    # What was submitted is a run like any other.
    stub(tmp_path, "srun", 'shift; exec "$@"')
    path = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run(["bash", "-c", batch], env=environment(PATH=path), check=True)
    summary = json.loads((tmp_path / "outputs" / "one" / "summary.json").read_text())
    assert summary["state"] == "finished"


def test_ranks_of_a_slurm_job_share_a_name_and_need_srun(tmp_path, monkeypatch):
    for name, value in {"NTASKS": "2", "PROCID": "1", "JOB_ID": "7"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    with pytest.raises(FoveaError, match="2 tasks, but was started as one process: put srun"):
        prepare_arguments("train", [])
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    assert prepare_arguments("train", []).words[-1] == "run_id=slurm-7-0"
    with pytest.raises(FoveaError, match="without torchrun or srun"):
        prepare_arguments("train", ["-m", "seed=0,1"])
