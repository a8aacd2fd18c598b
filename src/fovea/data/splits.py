"""Pools of images, and how splits and subsets are cut from them: stratified, seeded, recorded."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fovea.data.sources import EncodedSource, ImageSource
from fovea.errors import FoveaError, did_you_mean

SPLITS = ("train", "val", "test")

_CHUNK = 2**16


@dataclass
class Split:
    """Some images of a source, with their labels.

    Attributes:
        source: the pool they are in.
        numbers: (N,) int64, which images of ``source``.
        labels: (N,) int64 in [0, K).
    """

    source: ImageSource
    numbers: Tensor
    labels: Tensor

    @classmethod
    def whole(cls, source: ImageSource, labels: Tensor) -> Split:
        """Return all of ``source`` as a split."""
        assert len(source) == len(labels)
        return cls(source, torch.arange(len(labels)), labels)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, mask: Tensor) -> Split:
        """Return the images where (N,) bool ``mask`` holds, in order."""
        return Split(self.source, self.numbers[mask], self.labels[mask])

    def counts(self, num_classes: int) -> list[int]:
        """Return how many images each class has."""
        return torch.bincount(self.labels, minlength=num_classes).tolist()

    def fingerprint(self) -> str:
        """Return a short hash of which images these are, under which labels."""
        digest = hashlib.sha256()
        classes = range(len(torch.bincount(self.labels)))
        ends = np.array([f"\t{label}\n".encode() for label in classes], dtype=np.bytes_)
        chunks = self.numbers.split(_CHUNK), self.labels.split(_CHUNK)
        for numbers, labels in zip(*chunks, strict=True):
            lines = np.strings.add(_paths(self.source, numbers), ends[labels.numpy()])
            digest.update(_recoded(b"".join(lines.tolist()), "replace"))
        return digest.hexdigest()[:16]


def _paths(source: ImageSource, numbers: Tensor) -> NDArray[np.bytes_]:
    if isinstance(source, EncodedSource):
        return source.relative_paths(numbers)
    paths = map(source.relative_path, numbers.tolist())
    return np.array([os.fsencode(path) for path in paths], dtype=np.bytes_)


def _recoded(paths: bytes, errors: str) -> bytes:  # many at once: a call each takes long
    return os.fsdecode(paths).encode(errors=errors)


@dataclass
class Found:
    """What a data set's folder holds, before anything is cut.

    Attributes:
        class_names: in label order.
        splits: those the data set itself defines. Nothing is cut where ``train`` is none of them.
        undivided: no split was defined, so test is cut as well as val.
        layout: in a few words, for the record.
        missing: what to say of a split that does not exist and may not be cut, by name.
    """

    class_names: list[str]
    splits: dict[str, Split]
    undivided: bool
    layout: str
    missing: dict[str, str] = field(default_factory=dict)


def allot(counts: Tensor, total: int, most: Tensor, tie_break: Tensor) -> Tensor:
    """Return how many of ``total`` fall to each class, in proportion to its count.

    Largest remainders. A class gets at most ``most``.

    Args:
        counts: (K,) int64.
        total: to hand out.
        most: (K,) int64.
        tie_break: (K,) float64 in [0, 1); of equal remainders the one with the larger goes first.
    """
    ideal = counts.double() * total / counts.sum().clamp(min=1)
    share = torch.minimum(ideal.floor().long(), most)
    # Remainders are compared in units of 1e-9, so that rounding does not break ties.
    remainder = ((ideal - share) * 1e9).round() + tie_break
    while (missing := total - int(share.sum())) > 0 and (open_ := share < most).any():
        wanted = torch.where(open_, remainder, -torch.inf)
        order = torch.argsort(wanted, descending=True, stable=True)
        share[order[: min(missing, int(open_.sum()))]] += 1
        remainder = remainder - 1e9
    return share


def cut(split: Split, total: int, num_classes: int, purpose: str, seed: int) -> tuple[Split, Split]:
    """Return (rest, part): ``total`` images cut from ``split``, stratified.

    Which images depends on the purpose, the seed and the images' own paths (`draw_hashes`), so a
    file more or less moves hardly another one. No class with two images or more loses its last
    one. Where that leaves fewer than ``total``, single images go too.
    """
    hashes = draw_hashes(split, purpose, seed)
    counts = torch.bincount(split.labels, minlength=num_classes)
    spare = (counts - 1).clamp(min=0)
    most = spare if int(spare.sum()) >= total else counts.clamp(max=1).maximum(spare)
    share = allot(counts, total, most, _class_draws(hashes, split.labels, num_classes))
    mask = within_class_rank(split.labels, hashes) < share[split.labels]
    return split.take(~mask), split.take(mask)


def subset(
    split: Split, num_classes: int, fraction: float, limit_per_class: int | None, seed: int
) -> Split:
    """Return a stratified part of ``split``: at least one image of each class that has any.

    With one seed, a smaller subset lies within each larger one.

    Args:
        split: to take from.
        num_classes: K.
        fraction: of each class, in (0, 1].
        limit_per_class: the most images a class may keep; None for no limit.
        seed: of the choice.
    """
    counts = torch.bincount(split.labels, minlength=num_classes)
    keep = (counts * fraction).round().long().clamp(min=1)
    if limit_per_class is not None:
        keep = keep.clamp(max=limit_per_class)
    rank = within_class_rank(split.labels, draw_hashes(split, "subset", seed))
    return split.take(rank < keep[split.labels])


def draw_hashes(split: Split, purpose: str, seed: int) -> Tensor:
    """Return (N,) int64 in [0, 2**63): a draw for each image, by its relative path alone.

    Unlike a shuffle of the list, an image's draw does not depend on which other images there are.
    """
    prefix, hashed = f"{purpose}/{seed}/".encode(errors="backslashreplace"), hashlib.blake2b
    digests = []
    for numbers in split.numbers.split(_CHUNK):
        paths = b"\0".join([*_paths(split.source, numbers).tolist(), b""])
        names = _recoded(paths, "backslashreplace").split(b"\0")[:-1]
        digests += [hashed(prefix + name, digest_size=8).digest() for name in names]
    draws = np.frombuffer(b"".join(digests), dtype="<u8") >> 1
    return torch.from_numpy(draws.astype(np.int64))


def _class_draws(hashes: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return (K,) float64 in [0, 1): a draw for each class, from its image with the least hash.

    So it depends neither on the class's number nor, as a rule, on its other images.
    """
    least = torch.zeros(num_classes, dtype=torch.int64)
    least.scatter_reduce_(0, labels, hashes, "amin", include_self=False)
    return (least % 2**20).double() / 2**20  # the low bits: the high ones of a minimum are all 0


def within_class_rank(labels: Tensor, hashes: Tensor) -> Tensor:
    """Return (N,) int64: each sample's place among the samples of its class, ordered by hash."""
    by_hash = torch.sort(hashes, stable=True).indices
    by_class = by_hash[torch.sort(labels[by_hash], stable=True).indices]
    counts = torch.bincount(labels)
    starts = torch.cumsum(counts, 0) - counts
    ranks = torch.empty_like(labels)
    ranks[by_class] = torch.arange(len(labels)) - starts[labels[by_class]]
    return ranks


@dataclass(frozen=True)
class Cutting:
    """How much is cut where a data set does not define all splits itself.

    Attributes:
        val_fraction: of the images there are before any cut, in (0, 1).
        test_fraction: likewise, in [0, 1); 0 leaves the test split out.
        seed: of the cuts; not the run's seed, so that runs of several seeds share their splits.
    """

    val_fraction: float
    test_fraction: float
    seed: int

    def __post_init__(self) -> None:
        if not 0 < self.val_fraction < 1:
            raise FoveaError(
                f"data.val_fraction={self.val_fraction} must lie between 0 and 1, as in "
                "data.val_fraction=0.1"
            )
        if not (self.test_fraction >= 0 and self.test_fraction + self.val_fraction < 1):
            raise FoveaError(
                f"data.test_fraction={self.test_fraction} must be at least 0 and leave a train "
                f"split beside data.val_fraction={self.val_fraction}"
            )

    def apply(self, found: Found) -> tuple[dict[str, Split], dict[str, Any]]:
        """Return all splits, and a JSON-plain record of where each came from."""
        splits = dict(found.splits)
        record: dict[str, Any] = {name: {"from": found.layout} for name in splits}
        if "train" not in splits:
            return splits, record
        size, num_classes = len(splits["train"]), len(found.class_names)
        wanted = {"test": self.test_fraction if found.undivided else 0, "val": self.val_fraction}
        for name, fraction in wanted.items():
            if name in splits or not fraction:
                continue
            total = max(1, round(fraction * size))
            if total >= len(splits["train"]):
                raise FoveaError(
                    f"The train split has {size} images, too few to cut data.{name}_fraction="
                    f"{fraction} from. Add images, or a {name} folder."
                )
            splits["train"], splits[name] = cut(
                splits["train"], total, num_classes, name, self.seed
            )
            record[name] = {"cut_from": "train", "fraction": fraction, "split_seed": self.seed}
        return {name: splits[name] for name in SPLITS if name in splits}, record


def unknown_split(name: str, available: list[str], missing: dict[str, str]) -> FoveaError:
    """Return the error for a split that is asked for and not there."""
    if name in missing:
        return FoveaError(missing[name])
    there = ", ".join(available)
    return FoveaError(
        f"There is no split '{name}'; this data set has {there}.{did_you_mean(name, available)}"
    )
