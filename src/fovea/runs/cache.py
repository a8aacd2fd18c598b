"""What was read of run folders, kept: a JSON file that may be deleted at any time.

A run is read anew as soon as the time or size of one of its files has changed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fovea.runs.record import Record, Stamps

logger = logging.getLogger(__name__)

FORMAT = 2
"""Of the files, and of what is read: those of another are made anew."""

FEWEST_NEW = 20
"""Fewer runs that were read anew are no reason to write the file: they are read in no time."""

SETTLED_S = 2.0
"""Of a run that was changed this lately nothing is kept: file systems that count time coarsely
could show the same time and size after the next change."""


def cache_folder() -> Path | None:
    """Return where tables are kept; None: nowhere.

    The environment's ``FOVEA_CACHE`` (empty: nowhere), else ``$XDG_CACHE_HOME/fovea``, else
    ``~/.cache/fovea``.
    """
    given = os.environ.get("FOVEA_CACHE")
    if given == "":
        return None
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(given or f"{base}/fovea").expanduser().absolute()
    except RuntimeError:  # a user without a home
        return None


class Cache:
    """The records of the runs below one folder, by their path.

    Args:
        source: what they are of: a folder, or the address of a project.
    """

    def __init__(self, source: str) -> None:
        folder = cache_folder()
        name = hashlib.sha256(os.fsencode(source)).hexdigest()[:32]
        self._file = None if folder is None else folder / f"runs-{name}.json"
        self._kept: dict[str, Any] = self._read()
        self._new: dict[str, Any] = {}
        self._fresh = 0

    def __bool__(self) -> bool:
        """Whether there is anything in it."""
        return bool(self._kept)

    def find(self, path: str, stamps: Any) -> Record | None:
        """Return what was kept of ``path`` with the same ``stamps``."""
        entry = self._kept.get(path)
        if not isinstance(entry, dict) or entry.get("stamps") != _plain(stamps):
            return None
        record = entry.get("record")
        whole = isinstance(record, dict) and all(
            isinstance(record.get(part), dict) for part in ("row", "settings")
        )
        if not whole:
            return None
        self._new[path] = entry
        return record

    def add(self, path: str, stamps: Any, record: Record) -> None:
        """Keep ``record``."""
        self._new[path] = {"stamps": _plain(stamps), "record": record}
        self._fresh += 1

    def write(self) -> None:
        """Write what was found or added, whole or not at all; where that cannot be, do without."""
        if self._file is None or self._fresh < FEWEST_NEW:
            return
        part = self._file.with_name(f"{self._file.name}.{secrets.token_hex(4)}.part")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            try:
                part.write_text(json.dumps({"format": FORMAT, "runs": self._new}))
                part.replace(self._file)
            finally:
                part.unlink(missing_ok=True)
        except (OSError, ValueError, TypeError) as error:
            logger.debug("the table of runs is not kept: %s", error)

    def _read(self) -> dict[str, Any]:
        if self._file is None:
            return {}
        try:
            content = json.loads(self._file.read_text())
            runs = content["runs"] if content["format"] == FORMAT else {}
            return runs if isinstance(runs, dict) else {}
        except FileNotFoundError:
            return {}
        except Exception as error:  # a damaged file is no file
            logger.debug("cannot use %s: %s", self._file, error)
            return {}


def settled(stamps: Stamps) -> bool:
    """Return whether the newest of the files is old enough for its time to be telling."""
    newest = max((changed for changed, _ in stamps.values()), default=0)
    return newest < (time.time() - SETTLED_S) * 1e9


def _plain(stamps: Any) -> Any:
    """Return ``stamps`` as they are after a way through JSON: tuples are lists there."""
    if isinstance(stamps, Mapping):
        return {key: list(value) for key, value in stamps.items()}
    return stamps
