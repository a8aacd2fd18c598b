"""Files of a run that can't be written: what is to be said, and going on without them.

Checkpoints are not among them: see `fovea.checkpoints.checkpoint_io`.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)


def reason(error: OSError, path: Path | str) -> str:
    """Return why ``path`` can't be written, with its disk's name and the room that is left."""
    said = error.strerror or type(error).__name__
    folder = Path(path).absolute()
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    try:
        free = shutil.disk_usage(folder).free
        while not os.path.ismount(folder):
            folder = folder.parent
    except OSError:
        return said
    return f"{said} (disk {folder}: {free / 1e6:,.1f} MB free)"


@contextmanager
def spared(what: str, path: Path) -> Iterator[None]:
    """Go on without ``what`` where its files at ``path`` can't be written, and say so."""
    try:
        yield
    except OSError as error:
        logger.warning(
            "%s could not be written to %s: %s. The run goes on without.",
            *(what, path, reason(error, path)),
        )
