"""Checkpoints reach the disk whole or not at all, and a full disk does not end a training."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from torch import Tensor

from fovea.checkpoints import durable, generations
from fovea.machine.no_room import reason

log = logging.getLogger("fovea")


class AtomicCheckpointIO(CheckpointIO):
    """Writes checkpoints whole (see `durable`), and ``last.ckpt`` with the generations before it.

    A disk that is full, or any other error of the file system, is a warning: what was there before
    stays as it was, and `failed` is set for whoever wants to know.

    Args:
        keep: generations of ``last.ckpt``, itself included; at least 1.

    Attributes:
        failed: why the latest save did not succeed, None if it did. Only on the rank that writes.
    """

    def __init__(self, keep: int = 2) -> None:
        self.keep = keep
        self.failed: str | None = None
        self._first = True

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Replace ``path`` as a whole by what ``torch.save`` makes of ``checkpoint``."""
        path = Path(path)
        temporary = durable.partial(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            if path.name == generations.LAST and self._first:
                generations.remove_damaged(path)  # this run went on from one that is older
                self._first = False
            generations.put_in_place(path, self.keep if path.name == generations.LAST else 1)
            self.failed = None
        except (OSError, RuntimeError) as error:
            # torch.save raises a RuntimeError of its own when the file's write fails.
            cause = error if isinstance(error, OSError) else error.__context__
            _remove(temporary)
            if not isinstance(cause, OSError):
                raise
            self.failed = _explain(path, cause, checkpoint)
            log.warning("WARNING: %s", self.failed)
        except BaseException:
            _remove(temporary)
            raise

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Return the checkpoint at ``path``, its tensors on the CPU; no code in it is ever run."""
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return content

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove the file at ``path``."""
        Path(path).unlink(missing_ok=True)


def _remove(temporary: Path) -> None:
    with suppress(OSError):  # the whole disk may be gone
        temporary.unlink(missing_ok=True)


def _explain(path: Path, error: OSError, checkpoint: dict[str, Any]) -> str:
    """Return what failed, on which disk, and what there is to do."""
    before = [file.name for file in generations.existing(path)]
    return (
        f"{path.name} could not be written: {reason(error, path)}, the checkpoint needs "
        f"{_bytes_in(checkpoint) / 1e6:.1f} MB. "
        f"{'What there is stays: ' + ', '.join(before) if before else 'There is none yet'}. Make "
        "room there; checkpoint.keep=1 needs less."
    )


def _bytes_in(node: Any) -> int:
    """Return the bytes of all tensors in nested containers."""
    if isinstance(node, Tensor):
        return node.numel() * node.element_size()
    if isinstance(node, dict):
        return sum(map(_bytes_in, node.values()))
    return sum(map(_bytes_in, node)) if isinstance(node, list | tuple) else 0
