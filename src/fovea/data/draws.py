"""Random numbers of samples: pure functions of the seed, the epoch and the sample, on any device.

Neither the process that reads a sample, nor its place in a batch, nor the device that augments it
changes what is drawn for it.
"""

from __future__ import annotations

from torch import Tensor

from fovea.data.sampling import stable_seed

# SplitMix64's increment and multipliers (Steele, Lea and Flood 2014, "Fast splittable pseudorandom
# number generators", figure 17), as signed 64-bit numbers; tensors wrap around as it wants.
_STEP = 0x9E3779B97F4A7C15 - (1 << 64)
_MULTIPLIERS = ((30, 0xBF58476D1CE4E5B9 - (1 << 64)), (27, 0x94D049BB133111EB - (1 << 64)))
_POSITIVE, _ALL_BITS = (1 << 63) - 1, (1 << 64) - 1


def sample_seeds(seed: int, epoch: int, indices: Tensor, copies: Tensor) -> Tensor:
    """Return a seed in [0, 2**63) for each sample of an epoch, (B,) int64.

    Args:
        seed: of the run.
        epoch: counted from 0.
        indices: (B,) int64, positions in the split.
        copies: (B,) int64, see `SampleKey.copy`.
    """
    start = stable_seed("sample", seed, epoch)
    return _mixed(_mixed(start + indices * _STEP) + copies * _STEP) & _POSITIVE


def uniform(seeds: Tensor, draw: int) -> Tensor:
    """Return the ``draw``-th number of each sample, (B,) float32 in [0, 1).

    Args:
        seeds: (B,) int64, of `sample_seeds`.
        draw: counted from 1. Different draws of a sample are independent.
    """
    bits = _mixed(seeds + _signed(draw * _STEP))
    return ((bits >> 40) & 0xFFFFFF).float() / (1 << 24)  # all that float32 can tell apart


class Draws:
    """The numbers of one sample, one after the other, where a tensor of samples is not at hand.

    Seeding Python's own generator takes as long as a third of a small image's resize does.

    Args:
        seed: the numbers are those of SplitMix64 with this seed.
    """

    def __init__(self, seed: int) -> None:
        self._state = seed

    def uniform(self, low: float, high: float) -> float:
        """Return a number in [low, high)."""
        self._state = state = (self._state + _STEP) & _ALL_BITS
        for shift, factor in _MULTIPLIERS:
            state = ((state ^ (state >> shift)) * factor) & _ALL_BITS
        return low + (high - low) * ((state ^ (state >> 31)) >> 11) / (1 << 53)

    def randint(self, low: int, high: int) -> int:
        """Return a whole number from ``low`` to ``high``, both included."""
        return low + int(self.uniform(0, high - low + 1))


def _mixed(state: Tensor) -> Tensor:
    """Return SplitMix64's output function of each element."""
    for shift, factor in _MULTIPLIERS:
        state = (state ^ _shifted(state, shift)) * factor
    return state ^ _shifted(state, 31)


def _signed(number: int) -> int:
    """Return ``number`` wrapped around to 64 bits with a sign, as tensors hold it."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def _shifted(state: Tensor, bits: int) -> Tensor:
    """Return ``state >> bits`` with zeros shifted in: torch copies the sign."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)
