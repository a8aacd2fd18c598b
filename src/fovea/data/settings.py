"""Checks of a data module's settings, before anything is read."""

from __future__ import annotations

from typing import get_args

from fovea.data.dataset import OnBadImage
from fovea.data.decoding import Decode
from fovea.data.sampling import Sampling
from fovea.errors import FoveaError, did_you_mean


def check_settings(
    *,
    batch_size: int,
    eval_batch_size: int,
    num_workers: int | str,
    decode: str,
    in_memory: bool | str,
    memory_fraction: float,
    fraction: float,
    limit_per_class: int | None,
    sampling: str,
    repeats: int,
    on_bad_image: str,
) -> None:
    """Raise a `FoveaError` that names the first key of ``data`` with an impossible value."""
    counts = {"batch_size": batch_size, "eval_batch_size": eval_batch_size, "repeats": repeats}
    for key, count in {**counts, "limit_per_class": limit_per_class}.items():
        if count is not None and count < 1:
            raise FoveaError(f"data.{key}={count} must be at least 1")
    if num_workers != "auto" and not (isinstance(num_workers, int) and num_workers >= 0):
        raise FoveaError(f"data.num_workers={num_workers} must be 'auto' or a number from 0 up")
    if in_memory not in (True, False, "auto"):
        raise FoveaError(f"data.in_memory={in_memory} must be auto, true or false")
    for key, share in {"fraction": fraction, "memory_fraction": memory_fraction}.items():
        if not 0 < share <= 1:
            raise FoveaError(f"data.{key}={share} must be above 0 and at most 1")
    check_choice("data.decode", decode, get_args(Decode))
    check_choice("data.sampling", sampling, get_args(Sampling))
    check_choice("data.on_bad_image", on_bad_image, get_args(OnBadImage))


def check_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise a `FoveaError` that names ``key`` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise FoveaError(
            f"{key}={value} is not one of {', '.join(choices)}.{did_you_mean(str(value), choices)}"
        )


def check_batch(batch_size: int, world: int, accumulate: int, train_size: int) -> None:
    """Raise unless ``batch_size`` divides over devices and accumulation, and train holds one.

    Raises:
        FoveaError: naming the nearest sizes that fit.
    """
    slices = world * accumulate
    if batch_size % slices:
        lower = batch_size // slices * slices
        nearest = [size for size in (lower, lower + slices) if 0 < size <= train_size]
        sizes = " or ".join(f"data.batch_size={size}" for size in nearest)
        raise FoveaError(
            f"data.batch_size={batch_size} is the global batch and cannot be shared by {world} "
            f"device(s) x {accumulate} accumulation step(s) = {slices} equal parts. "
            + (f"Nearest that fit: {sizes}." if sizes else "Use fewer devices.")
        )
    if batch_size > train_size:
        largest = train_size // slices * slices
        way_out = (
            f"The largest that fits: data.batch_size={largest}."
            if largest
            else f"Use fewer than {slices} devices x accumulation steps."
        )
        raise FoveaError(
            f"data.batch_size={batch_size} is larger than the train split of {train_size} images. "
            + way_out
        )
