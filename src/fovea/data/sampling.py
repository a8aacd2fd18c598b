"""Which sample stands where in which batch: pure functions of the seed, the epoch and the split.

Nothing here depends on the number of devices, accumulation steps or workers, except which share of
a global batch a rank takes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Sampler

Sampling = Literal["shuffle", "balanced"]


class SampleKey(NamedTuple):
    """One sample of one batch: everything its random draws depend on, besides the seed.

    Attributes:
        index: position in the split.
        epoch: counted from 0.
        copy: counts repeated occurrences of ``index`` in the epoch, so each is augmented anew.
        valid: False for an entry that only fills up the last evaluation batch.
    """

    index: int  # type: ignore[assignment]  # shadows tuple.index
    epoch: int = 0
    copy: int = 0
    valid: bool = True


class Keys(NamedTuple):
    """The samples of one batch, as tensors.

    Attributes:
        indices: (B,) int64, positions in the split.
        copies: (B,) int64, see `SampleKey.copy`.
        valid: how many of them count; the others, at the end, only fill up the batch.
        epoch: counted from 0.
    """

    indices: Tensor
    copies: Tensor
    valid: int
    epoch: int = 0

    def each(self) -> list[SampleKey]:
        """Return the samples one by one."""
        pairs = zip(self.indices.tolist(), self.copies.tolist(), strict=True)
        return [
            SampleKey(index, self.epoch, copy, valid=place < self.valid)
            for place, (index, copy) in enumerate(pairs)
        ]


class Share(NamedTuple):
    """Which part of each global batch one process takes, and in how many pieces."""

    world: int = 1
    rank: int = 0
    accumulate: int = 1


ALONE = Share()


class Position(NamedTuple):
    """Where in the run an iterator starts: the epoch, and micro-batches of it already used."""

    epoch: int = 0
    micro_batch: int = 0


def stable_seed(*parts: int | str) -> int:
    """Return a number in [0, 2**63) that depends on ``parts`` alone, on any machine."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """Return a fresh CPU generator seeded by `stable_seed` of ``parts``."""
    return torch.Generator().manual_seed(stable_seed(*parts))


@dataclass(frozen=True)
class EpochOrder:
    """The order in which an epoch visits the train split.

    Attributes:
        labels: (N,) int64.
        sampling: ``shuffle`` visits each sample once. ``balanced`` draws N samples with
            replacement, a sample's probability being the inverse of its class's count, so that
            classes come equally often.
        repeats: each visited sample is taken this many times in a row, each copy augmented anew,
            and the epoch still ends after N entries: an epoch sees N / repeats distinct samples.
        groups: (N,) int64 in [0, G), which file a sample lies in; only with ``window``.
        window: how many groups, themselves shuffled, are mixed at a time, so that an epoch comes to
            the files one after the other; with ``shuffle`` only. None: all are mixed.

    Source: repeated augmentation, Hoffer et al. 2020, "Augment your batch" (arXiv 1901.09335), in
    the form of DeiT and torchvision's ``RASampler``, where the copies also fall into one batch and
    the epoch keeps its length.
    """

    labels: Tensor
    seed: int
    sampling: Sampling = "shuffle"
    repeats: int = 1
    groups: Tensor | None = None
    window: int | None = None

    def entries(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Return sample indices (N,) and copy numbers (N,), both int64, of ``epoch``."""
        size = len(self.labels)
        source = generator("order", self.seed, epoch)
        if self.sampling == "balanced":
            weights = 1.0 / torch.bincount(self.labels)[self.labels].double()
            indices = torch.multinomial(weights, size, replacement=True, generator=source)
        else:
            indices = torch.randperm(size, generator=source)
        if self.groups is not None and self.window is not None:
            turns = torch.randperm(int(self.groups.max()) + 1, generator=source) // self.window
            indices = indices[torch.sort(turns[self.groups[indices]], stable=True).indices]
        indices = indices.repeat_interleave(self.repeats)[:size]
        return indices, _occurrence(indices)


def _occurrence(indices: Tensor) -> Tensor:
    """Return, for each entry of (N,) ``indices``, how many equal entries stand before it."""
    ordered, order = torch.sort(indices, stable=True)
    places = torch.arange(len(indices))
    starts = torch.ones_like(ordered, dtype=torch.bool)
    starts[1:] = ordered[1:] != ordered[:-1]
    first = torch.cummax(torch.where(starts, places, 0), dim=0).values
    return torch.empty_like(places).scatter_(0, order, places - first)


class GlobalBatchSampler(Sampler[list[SampleKey]]):
    """Micro-batches of one rank, cut from global batches that are the same for any share.

    The global batches of an epoch are consecutive runs of ``batch_size`` entries of its order; an
    incomplete last one is dropped. Global batch g goes to ``world * accumulate`` slices, slice s
    taking every (world * accumulate)-th entry from the s-th on; micro-batch m of rank r is slice
    m * world + r. So the union over ranks and micro-batches of one optimiser step is the global
    batch, and the copies of repeated augmentation go to different ranks.

    Args:
        order: the train split's order.
        batch_size: global; a multiple of ``world * accumulate`` and no more than the split.
        share: of the process that iterates.
        position: asked at the start of each iteration for the epoch and for the number of its
            micro-batches to leave out (those used before a resume). ``len()`` is always the
            number of micro-batches in a whole epoch.
    """

    def __init__(
        self,
        order: EpochOrder,
        batch_size: int,
        share: Share = ALONE,
        position: Callable[[], Position] = Position,
    ) -> None:
        assert batch_size % (share.world * share.accumulate) == 0
        self.order = order
        self.batch_size = batch_size
        self.share = share
        self.position = position

    @property
    def local_batch_size(self) -> int:
        """Samples of a micro-batch."""
        return self.batch_size // (self.share.world * self.share.accumulate)

    def __len__(self) -> int:
        return len(self.order.labels) // self.batch_size * self.share.accumulate

    def __iter__(self) -> Iterator[list[SampleKey]]:
        return (keys.each() for keys in self.batches())

    def batches(self) -> Iterator[Keys]:
        """Yield the micro-batches."""
        epoch, start = self.position()
        indices, copies = self.order.entries(epoch)
        world, rank, accumulate = self.share
        for micro in range(start, len(self)):
            batch, step = divmod(micro, accumulate)
            first = batch * self.batch_size + step * world + rank
            entries = slice(first, (batch + 1) * self.batch_size, world * accumulate)
            chosen = indices[entries]
            yield Keys(chosen, copies[entries], len(chosen), epoch)


class EvalBatchSampler(Sampler[list[SampleKey]]):
    """Batches of one rank that, over all ranks, hold each of ``size`` samples exactly once.

    Batch b holds samples b * batch_size onwards and goes to rank b mod world: what a batch holds
    does not depend on the number of ranks. Entries with ``valid=False`` fill up the last batch, and
    whole batches of them give every rank the same number, so all batches have one shape.
    """

    def __init__(self, size: int, batch_size: int, share: Share = ALONE) -> None:
        assert batch_size >= 1
        self.size = size
        self.batch_size = batch_size
        self.share = share

    @property
    def local_batch_size(self) -> int:
        """Samples of a batch, those that only fill up included."""
        return self.batch_size

    def __len__(self) -> int:
        return math.ceil(math.ceil(self.size / self.batch_size) / self.share.world)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        return (keys.each() for keys in self.batches())

    def batches(self) -> Iterator[Keys]:
        """Yield the batches; what only fills up has index 0."""
        none = torch.zeros(self.batch_size, dtype=torch.int64)
        for turn in range(len(self)):
            first = (turn * self.share.world + self.share.rank) * self.batch_size
            places = torch.arange(first, first + self.batch_size)
            valid = max(0, min(self.size - first, self.batch_size))
            yield Keys(torch.where(places < self.size, places, 0), none, valid)


BatchSampler = GlobalBatchSampler | EvalBatchSampler
