"""What the machine has: processors, memory, disks, and places to write to."""

from __future__ import annotations

import getpass
import locale
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from multiprocessing import shared_memory
from pathlib import Path

from doctor_finding import Finding, Options, note, ok, problem
from doctor_software import module_alone

LEAST_MEMORY, LITTLE_MEMORY = 2e9, 6e9
"""Bytes that a run on the CPU needs with its workers, and from which on it has room."""

LEAST_DISK, LITTLE_DISK = 1e9, 20e9
"""Bytes: a run of a ResNet-50 keeps checkpoints of 1.2 GB."""

LEAST_SHARED, LITTLE_SHARED = 256e6, 2e9
"""Bytes of /dev/shm: docker gives 64 MB; 16 workers with three batches of 256 images of 224 x 224
need 1.8 GB."""

SLOW_DISK = 30.0
"""MB/s, below which saving a checkpoint takes longer than it should."""

_MEMORY_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")


def check_processors(_options: Options) -> Finding:
    """Say how many processors a run may use, and whether others use them."""
    usable, there = module_alone("data/processors").available_processors(), os.cpu_count() or 1
    text = f"{usable} of {there} may be used"
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdecimal() and int(wanted) > usable:
        return note(f"{text}, but OMP_NUM_THREADS={wanted}", f"export OMP_NUM_THREADS={usable}")
    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows
        return ok(text)
    if load > 1.5 * there:
        return note(f"{text}; others are using them: load {load:.1f}", "look who: top")
    if usable == 1:
        return note(
            f"{text}: images are loaded beside training", "ask the batch system for more processors"
        )
    return ok(f"{text}, load {load:.1f}; OMP_NUM_THREADS is {wanted or 'not set'}")


def check_memory(_options: Options) -> Finding:
    """Say how much memory is free, as Linux and its cgroups see it."""
    free, total = _memory()
    if total == 0:
        return ok("not known on this system")
    text = f"{free / 1e9:.1f} GB free of {total / 1e9:.1f} GB"
    if free < LEAST_MEMORY:
        return problem(text, "end other programs, or ask the batch system for more memory")
    if free < LITTLE_MEMORY:
        return note(
            text, "fewer workers (data.num_workers=2) and data.in_memory=false take less of it"
        )
    return ok(text)


def check_disk(options: Options) -> Finding:
    """Write to the output folder and flush it: room, inodes and speed."""
    folder = _existing(options.outputs)
    elsewhere = "write elsewhere: paths.outputs=/path/with/room"
    if not os.access(folder, os.W_OK | os.X_OK):
        return problem(f"{folder} is not writable", elsewhere)
    free = shutil.disk_usage(folder).free
    text = f"{folder}: {free / 1e9:.1f} GB free"
    if free < LEAST_DISK:
        return problem(text, f"make room, or {elsewhere}")
    if os.name == "posix" and (status := os.statvfs(folder)).f_files and status.f_favail < 1000:
        return problem(f"{folder}: {status.f_favail} files may still be made", elsewhere)
    try:
        speed = _write_speed(folder, 16 if options.quick else 128)
    except OSError as error:
        return problem(f"{folder} can't be written to: {error}", f"check quotas, or {elsewhere}")
    text += f", {speed:,.0f} MB/s written and flushed"
    if speed < SLOW_DISK:
        return note(f"{text}: slow", f"checkpoint.keep=1 writes less; or {elsewhere}")
    if free < LITTLE_DISK:
        return note(text, f"checkpoints of large networks may fill it; {elsewhere}")
    return ok(text)


def check_shared_memory(_options: Options) -> Finding:
    """Make a lock and a shared block, as loading workers do; say how large /dev/shm is."""
    larger = (
        "start the container with more: docker run --shm-size=8g, or --ipc=host; "
        "data.num_workers=0 needs none"
    )
    try:
        multiprocessing.get_context("spawn").Lock()
        block = shared_memory.SharedMemory(create=True, size=1 << 20)
        block.close()
        block.unlink()
    except (OSError, ImportError) as error:
        return problem(f"can't be used: {error}", larger)
    place = Path("/dev/shm")
    if not place.is_dir():
        return ok("works")
    usage = shutil.disk_usage(place)
    text = f"{place}: {usage.free / 1e9:.2f} GB free of {usage.total / 1e9:.2f} GB"
    if usage.free < LEAST_SHARED:
        return problem(text, larger)
    return (
        note(f"{text}: little for large batches", larger)
        if usage.free < LITTLE_SHARED
        else ok(text)
    )


def check_places(_options: Options) -> Finding:
    """Look at home, temporary files, the user's name and the encoding of text."""
    encodings = {sys.getfilesystemencoding().upper(), locale.getpreferredencoding(False).upper()}
    if not encodings <= {"UTF-8", "UTF8"}:
        return note(
            f"text is {' and '.join(sorted(encodings))}: names of classes may be garbled",
            "export LC_ALL=C.UTF-8 PYTHONUTF8=1",
        )
    try:
        temporary = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        return problem(f"no folder for temporary files: {error}", "export TMPDIR=/path/with/room")
    home = Path(os.path.expanduser("~"))
    if not (home.is_absolute() and os.access(home, os.W_OK | os.X_OK)):
        return note(
            f"home {home} is not writable: caches go to {temporary} and are lost with it",
            "export HOME=/a/folder/of/yours, or XDG_CACHE_HOME",
        )
    free = shutil.disk_usage(temporary).free
    if free < LEAST_SHARED:
        return problem(f"{temporary}: {free / 1e6:.0f} MB free", "export TMPDIR=/path/with/room")
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a number without a name
        user = f"number {os.getuid()}, without a name (that is all right)"
    return ok(f"home {home} and {temporary} are writable, text is UTF-8, user {user}")


def _memory() -> tuple[int, int]:
    """Return the free and all bytes of memory; zeros where that is not known."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        fields = dict(line.split(":") for line in lines)
        free, total = (int(fields[n].split()[0]) * 1024 for n in ("MemAvailable", "MemTotal"))
    except (OSError, KeyError, ValueError):
        return 0, 0
    for name in _MEMORY_LIMITS:
        limit_file = Path("/sys/fs/cgroup") / name
        used_file = limit_file.with_name(
            "memory.current" if name == "memory.max" else "memory.usage_in_bytes"
        )
        try:
            limit, used = int(limit_file.read_text()), int(used_file.read_text())
        except (OSError, ValueError):  # no limit: "max"
            continue
        total, free = min(total, limit), min(free, max(0, limit - used))
    return free, total


def _existing(folder: Path) -> Path:
    """Return the nearest folder that exists."""
    folder = folder.expanduser().absolute()
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder


def _write_speed(folder: Path, megabytes: int) -> float:
    """Return MB/s of writing and flushing up to ``megabytes`` in at most two seconds."""
    block = os.urandom(1 << 20)  # some file systems compress
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as file:
        start = time.monotonic()
        for written in range(1, megabytes + 1):
            file.write(block)
            if written % 8 == 0:
                file.flush()
                os.fsync(file.fileno())
                if time.monotonic() - start > 2:
                    break
        file.flush()
        os.fsync(file.fileno())
        return written * (1 << 20) / 1e6 / (time.monotonic() - start)
