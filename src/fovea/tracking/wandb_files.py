"""What W&B's files of a run hold: the steps that were logged, and how far the server took them.

W&B keeps each part of a run (before and after a resume) in a folder of its own, ``run-…`` where it
was online and ``offline-run-…`` where not, with all that was logged in one ``.wandb`` file.
``wandb sync`` adds what such a file holds to the run, and looks at no step: rows that two of them
hold are there twice. So a part may only hold what no other one has, or will have, sent.
"""

from __future__ import annotations

import json
import logging
import os
import re
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

# A .wandb file is a log of LevelDB's kind behind 7 bytes of its own: blocks of 32 KiB, in them
# chunks of (checksum, length, kind), kind telling whether a record begins or ends with the chunk.
# Source: https://github.com/google/leveldb/blob/main/doc/log_format.md
_BLOCK = 32768
_PREFIX = 7
_CHUNK = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


class UploadLog:
    """Follows what W&B's own process, which keeps and uploads, writes into its log.

    Args:
        part: the folder of that part of the run.

    Attributes:
        rows: that the server took of this part.
        refused: what the server said for good, after which nothing more is sent; else "".
        trouble: what went wrong in the last attempt, "" once the server took something again.
        unsaved: why the ``.wandb`` file could not be written; else "".
    """

    def __init__(self, part: Path) -> None:
        self._path = part / "logs" / "debug-internal.log"
        self._read = 0
        self._first: int | None = None
        self._sent = 0
        self._asked: float | None = None
        self.rows = 0
        self.refused = ""
        self.trouble = ""
        self.unsaved = ""

    def update(self) -> None:
        """Read what is new; a log that is not there or not understood tells nothing."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._read += len(line)
                    self._take(json.loads(line))
        except (OSError, ValueError, AttributeError, TypeError) as error:
            logger.debug("cannot follow %s: %s", self._path, error)

    def silent_s(self) -> float:
        """Return for how many seconds the server has owed an answer."""
        return 0.0 if self._asked is None else time.monotonic() - self._asked

    def _take(self, entry: dict[str, Any]) -> None:
        said = str(entry["msg"])
        if said == "filestream: sending request":
            self._asked = self._asked or time.monotonic()
            if "history_offset" in entry:
                offset = int(entry["history_offset"])
                self._first = offset if self._first is None else self._first
                self._sent = offset + int(entry["history_lines"]) - self._first
        elif said == "filestream: request sent":
            self.rows, self._asked, self.trouble = self._sent, None, ""
        elif said.startswith("filestream: fatal error: "):
            self.refused = said.removeprefix("filestream: fatal error: ")
        elif said.startswith(("writer: failed to flush", "writer: failed to save")):
            self.unsaved = self.unsaved or said.rpartition(": ")[2]
        elif said.startswith("api: retrying"):
            status = entry.get("status")
            self.trouble = f"HTTP {status}" if status else str(entry.get("error", said))


def next_step(folder: Path, run_id: str) -> int:
    """Return the first step that neither the server nor a part waiting for ``wandb sync`` has.

    Args:
        folder: that holds the parts of the run.
        run_id: of W&B.
    """
    steps = [-1]
    for part in parts(folder, run_id):
        logged = history_steps(part)
        if not part.name.startswith("offline-"):
            uploads = UploadLog(part)
            uploads.update()
            logged = logged[: uploads.rows]
        steps += logged
    return max(steps) + 1


def unsynced(folder: Path, run_id: str) -> list[Path]:
    """Return the offline parts of a run that ``wandb sync`` has yet to send, oldest first.

    Those without a row are left out: one that a kill left unreadable keeps ``wandb sync`` from all.
    """
    return [
        part
        for part in parts(folder, run_id)
        if part.name.startswith("offline-")
        and not list(part.glob("*.synced"))
        and history_steps(part)
    ]


def parts(folder: Path, run_id: str) -> list[Path]:
    """Return the folders of the parts of a run, oldest first."""
    name = re.compile(rf"(offline-)?run-(\d{{8}}_\d{{6}})-{re.escape(run_id)}")
    found = [
        (match[2], path) for path in folder.glob("*run-*") if (match := name.fullmatch(path.name))
    ]
    return [path for _, path in sorted(found)]


def history_steps(part: Path) -> list[int]:
    """Return the steps of the rows in a part, as they come; up to where a kill cut its file."""
    from wandb.proto import wandb_internal_pb2

    messages: Any = wandb_internal_pb2  # made at import, so its types are not known
    steps = []
    for file in part.glob("*.wandb"):
        try:
            for record, _ in _records(file):
                message = messages.Record.FromString(record)
                if message.HasField("history"):
                    steps.append(message.history.step.num)
        except Exception as error:  # a damaged file, or one of another version of W&B
            logger.debug("cannot read on in %s: %s", file, error)
    return steps


def mend(folder: Path, run_id: str) -> None:
    """Cut what a kill or a full disk left half written off the files of a run's offline parts.

    ``wandb sync`` would stop there, and leave out the parts that come behind. None of them may be
    written to any more.
    """
    for part in unsynced(folder, run_id):
        for file in part.glob("*.wandb"):
            end = max((end for _, end in _records(file)), default=_PREFIX)
            if end < file.stat().st_size:
                os.truncate(file, end)


def as_number(text: str) -> float:
    """Return the number in a cell of ``metrics.csv``, a whole one as an int."""
    return int(text) if text.isdecimal() else float(text)


def _records(path: Path) -> Iterator[tuple[bytes, int]]:
    """Yield the whole records of a .wandb file, and where each ends."""
    record, start = b"", 0
    with path.open("rb") as file:
        at = _PREFIX
        while block := file.read(_BLOCK):
            while at + _CHUNK.size <= len(block):
                _, size, kind = _CHUNK.unpack_from(block, at)
                chunk = block[at + _CHUNK.size : at + _CHUNK.size + size]
                if len(chunk) < size or kind not in (_FULL, _FIRST, _MIDDLE, _LAST):
                    return
                record = chunk if kind in (_FULL, _FIRST) else record + chunk
                at += _CHUNK.size + size
                if kind in (_FULL, _LAST):
                    yield record, start + at
            at, start = 0, start + _BLOCK
