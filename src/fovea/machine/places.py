"""Where a process writes and what it is called, where containers and batch jobs lack the usual.

No home, a home that is read-only, a user without a name, no folder for temporary files, no standard
output: libraries fail on each of these, some while they are imported. `prepare_process` is called
before anything else, `prepare_folders` before torch is imported.
"""

from __future__ import annotations

import getpass
import os
import sys
import tempfile
from pathlib import Path

from fovea.errors import FoveaError

_KEPT = {"TORCH_HOME": "torch", "HF_HOME": "huggingface", "FOVEA_CACHE": "fovea"}
"""Variables that name a folder of the user's cache which serves for reading as well."""


def prepare_process() -> None:
    """Open the standard streams that are closed, and let them take any character.

    Raises:
        FoveaError: the working directory does not exist any more.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # else the next file that is opened would get what is printed
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - as long as the process
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        os.getcwd()
    except OSError:
        raise FoveaError(
            "The folder this was started in does not exist any more: cd to another one, such as "
            f"{Path.home() if 'HOME' in os.environ else '/'}, and type the command again."
        ) from None


def mute_broken_pipe() -> None:
    """Send what is printed from now on nowhere: the reader of standard output has gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def prepare_folders(outputs: Path) -> None:
    """Give libraries a user's name, and folders for temporary and cached files that are writable.

    Variables that are set and usable stay. What a read-only cache holds is still read.

    Args:
        outputs: an absolute, writable folder; used where there is no other.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError):  # a number without a name, as containers have it
        os.environ["USER"] = f"uid{os.getuid()}"
    try:
        temporary = Path(tempfile.gettempdir())
    except FileNotFoundError:
        temporary = outputs / ".tmp"
        temporary.mkdir(exist_ok=True)
        tempfile.tempdir = str(temporary)
    if os.environ.get("TMPDIR", str(temporary)) != str(temporary) or temporary.parent == outputs:
        os.environ["TMPDIR"] = str(temporary)  # for processes that this one starts
    home = os.path.expanduser("~")
    if not os.path.isabs(home):  # no HOME, and no entry for the user
        home = os.environ["HOME"] = str(_own(temporary))
    given = os.environ.get("XDG_CACHE_HOME", "")
    # A relative one is to be ignored, says the XDG base directory specification.
    cache = Path(given if os.path.isabs(given) else f"{home}/.cache")
    if given and not os.path.isabs(given):
        del os.environ["XDG_CACHE_HOME"]
    if not is_writable(cache):
        for variable, folder in _KEPT.items():
            if os.path.isdir(cache / folder):  # False also where one may not look
                os.environ.setdefault(variable, str(cache / folder))
        os.environ["XDG_CACHE_HOME"] = str(_own(temporary) / "cache")
    if not is_writable(Path(home)):
        os.environ.setdefault("TRITON_CACHE_DIR", str(_own(temporary) / "triton"))
        os.environ.setdefault("MPLCONFIGDIR", str(_own(temporary) / "matplotlib"))


def is_writable(folder: Path) -> bool:
    """Return whether ``folder`` is, or could be made, a folder one may write to."""
    try:
        for place in (folder, *folder.parents):
            if place.exists():
                return place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    except OSError:
        pass
    return False


def _own(temporary: Path) -> Path:
    """Return this user's own folder among the temporary files, the same for all its processes."""
    folder = temporary / f"fovea-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            raise PermissionError
    except OSError:  # somebody else's: anybody may make folders here
        return Path(tempfile.mkdtemp(prefix="fovea-", dir=temporary))
    return folder
