"""What one rank knows becomes known to all, without waiting for the device."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist


class Agreement:
    """Two whole numbers >= 0 each, of which all ranks get the largest, all at the same step.

    Several ranks get it at the next exchange, so that none has to wait for another, nor, as the
    numbers go from processor to processor, for its own device. All ranks must make one at the same
    time, and exchange equally often.

    Args:
        several: whether there is more than one rank.
    """

    def __init__(self, several: bool) -> None:
        self._several = several and dist.is_available() and dist.is_initialized()
        on_processors = self._several and dist.get_backend() == "gloo"
        self._group: Any = None
        if self._several and not on_processors:
            self._group = dist.new_group(backend="gloo")
        self._numbers: torch.Tensor | None = None
        self._work: Any = None

    def exchange(self, first: int, second: int) -> tuple[int, int]:
        """Return the largest of what the ranks gave the last time (one rank: what it gives now)."""
        if not self._several:
            return first, second
        agreed = (0, 0)
        if self._numbers is not None:
            self._work.wait()
            one, two = self._numbers.tolist()
            agreed = (int(one), int(two))
        self._numbers = torch.tensor([first, second], dtype=torch.int32)
        self._work = dist.all_reduce(
            self._numbers, op=dist.ReduceOp.MAX, group=self._group, async_op=True
        )
        return agreed

    def largest(self, number: int) -> int:
        """Return the largest of what the ranks give, waiting for them."""
        if not self._several:
            return number
        tensor = torch.tensor(number)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX, group=self._group)
        return int(tensor)
