"""Machines that lack a home, a name for the user, temporary folders, shared memory or an output."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"
SMALL = (
    "data.limit_per_class=4", "data.batch_size=16", "data.num_workers=2", "model=timm",
    "model.name=resnet10t", "trainer.max_epochs=1", "trainer.limit_train_batches=1",
    "trainer.limit_val_batches=1",
)  # fmt: skip

AS = ["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups"]
# In a name space of its own, with temporary folders and shared memory that nobody may write to.
BARE = """
mkdir -p "$1/up" && mount --bind "$1/out" "$1/up" && chmod 777 "$1/up"
for place in /tmp /var/tmp /dev/shm; do
    mount -t tmpfs -o ro none $place
done
cd / && shift && exec "$@" | head -1
"""


@pytest.mark.slow
def test_a_bare_container_trains(tmp_path_factory) -> None:
    """Without HOME, name, temporary folder, shared memory or reader, in a locale of ASCII."""
    base = Path("/mnt") / f"fovea-{os.getpid()}"
    try:
        (base / "out").mkdir(parents=True)
        found = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
        if found.returncode or os.getuid():
            pytest.skip("only root may take these away")
        train = [sys.executable, SRC / "train.py", *SMALL, f"paths.outputs={base}/up"]
        environment = {
            "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "TMPDIR": "/nowhere",
            "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "XDG_CACHE_HOME": "odd",
        }  # fmt: skip
        run = subprocess.run(
            ["unshare", "-m", "bash", "-c", BARE, "bash", base, *AS, *train],
            env=environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        (folder,) = (base / "out").glob("2*")
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["state"] == "finished", run.stderr
        assert "Traceback" not in run.stderr
        assert "BrokenPipe" not in run.stderr
        log = (folder / "train.log").read_text()
        assert "/dev/shm can't be used" in log
        warnings = [line for line in log.splitlines() if " WARNING " in line]
        ours = [line for line in warnings if "site-packages" not in line]  # not a library's
        assert all("/dev/shm" in line for line in ours), ours
    finally:
        subprocess.run(["rm", "-rf", base], check=True)


PRINTS = """
import sys
from fovea.machine import places
places.prepare_process()
print("caf\\u00e9", flush=True)
open(sys.argv[1], "w").write(f"{sys.stdout.fileno()} {sys.stdout.isatty()}")
"""


@pytest.mark.parametrize("closed", ["", ">&-", "<&- >&- 2>&-"])
def test_standard_streams_are_always_there(tmp_path, closed) -> None:
    script = ["/bin/sh", "-c", f'exec "$0" -c "$1" "$2" {closed}', sys.executable, PRINTS]
    run = subprocess.run(
        [*script, tmp_path / "out"],
        env={"PYTHONPATH": str(SRC), "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "out").read_text() == "1 False"
    assert run.stdout == ("" if closed else "caf\\xe9\n")


def test_a_working_directory_that_is_gone_is_named(tmp_path) -> None:
    (tmp_path / "gone").mkdir()
    command = f'cd gone && rmdir ../gone && exec "{sys.executable}" "{SRC / "train.py"}"'
    run = subprocess.run(
        ["/bin/sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 2
    assert "does not exist any more" in run.stderr
    assert "Traceback" not in run.stderr


PLACES = """
import json, os, sys, tempfile
from pathlib import Path
from fovea.machine import places
places.prepare_folders(Path(sys.argv[1]))
print(json.dumps({**os.environ, "tempdir": tempfile.gettempdir()}))
"""


def prepared(outputs: Path, **environment: str) -> dict[str, str]:
    run = subprocess.run(
        [sys.executable, "-c", PLACES, outputs],
        env={"PYTHONPATH": str(SRC), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(run.stdout)


def test_what_is_usable_stays(tmp_path) -> None:
    given = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "USER": "me", "LOGNAME": "me"}
    after = prepared(tmp_path, **given)
    added = set(after) - set(given) - {"PYTHONPATH", "tempdir", "LC_CTYPE"}
    assert not added
    assert after | given == after


def test_a_home_that_cannot_be_written_to_is_still_read(tmp_path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    after = prepared(
        tmp_path, HOME="/proc/self", TMPDIR=str(temporary), XDG_CACHE_HOME="/proc/self/none"
    )
    own = temporary / f"fovea-{os.getuid()}"
    assert after["XDG_CACHE_HOME"] == str(own / "cache")
    assert after["MPLCONFIGDIR"] == str(own / "matplotlib")
    assert own.stat().st_mode & 0o777 == 0o700
    assert after["HOME"] == "/proc/self"
    assert after["TMPDIR"] == after["tempdir"] == str(temporary)


def test_a_folder_that_somebody_else_made_is_not_used(tmp_path) -> None:
    (tmp_path / f"fovea-{os.getuid()}").symlink_to(tmp_path)
    after = prepared(tmp_path, HOME="/proc/self", TMPDIR=str(tmp_path))
    assert Path(after["MPLCONFIGDIR"]).parent.name.startswith("fovea-")
    assert Path(after["MPLCONFIGDIR"]).parent.name != f"fovea-{os.getuid()}"
