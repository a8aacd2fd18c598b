"""Which images go into which shard, decided once and kept beside the shards."""

from __future__ import annotations

import json
import math
import shutil
from typing import Any

import numpy as np
import torch
from shard_files import RECORDS, Job, Workshop, write_whole

from fovea.data import ImageDataModule
from fovea.data.sampling import generator
from fovea.data.shard_index import FORMAT
from fovea.errors import FoveaError

SAMPLED = 100
"""Images of a split whose stored size is found beforehand, to know how many fill a shard."""

_STATE_FILE = "state.json"


def settings_of(data: ImageDataModule, workshop: Workshop, shard_mb: float) -> dict[str, Any]:
    """Return what shards in one folder must have in common."""
    return {
        "format": FORMAT,
        "classes": data.class_names,
        "images": data.split_fingerprints(),
        "max_size": workshop.form.max_size,
        "quality": workshop.form.quality,
        "shard_mb": shard_mb,
    }


def check_folder(workshop: Workshop, settings: dict[str, Any]) -> None:
    """Raise where the folder holds something else, or shards made by other settings."""
    folder, state = workshop.folder, read_state(workshop)
    if state is None:
        if folder.is_dir() and {path.name for path in folder.iterdir()} - {RECORDS}:
            raise FoveaError(f"{folder} is not empty: take another out=, or clear it yourself")
        return
    made = state["settings"]
    other = [key for key in settings if made[key] != settings[key]]
    if other:
        said = "; ".join(
            f"other {key}"
            if key in {"classes", "images"}
            else f"{key}: {made[key]} there, {settings[key]} now"
            for key in other
        )
        raise FoveaError(
            f"{folder} has shards made by other settings ({said}). Take another out=, or delete "
            "that folder first."
        )


def read_state(workshop: Workshop) -> dict[str, Any] | None:
    """Return what earlier calls decided; None if there were none."""
    try:
        state: dict[str, Any] = json.loads((workshop.records / _STATE_FILE).read_text())
    except FileNotFoundError:
        return None
    return state


def planned(workshop: Workshop, settings: dict[str, Any]) -> list[Job]:
    """Return all shards there will be: as many images in each, in an order that mixes classes.

    Raises:
        FoveaError: the disk has no room for them.
    """
    orders = {
        name: torch.randperm(len(split), generator=generator("shards", name)).numpy()
        for name, split in workshop.splits.items()
    }
    state = read_state(workshop)
    if state is None:
        need = {n: workshop.bytes_an_image(n, o[:SAMPLED]) * len(o) for n, o in orders.items()}
        size = settings["shard_mb"] * 1e6
        counts = {n: min(len(orders[n]), math.ceil(need[n] / size)) for n in orders}
        state = {"settings": settings, "bytes": need, "shards": counts}
        write_whole(workshop.records / _STATE_FILE, state)
    jobs = [
        Job(name, number, rows)
        for name, order in orders.items()
        for number, rows in enumerate(np.array_split(order, state["shards"][name]))
    ]
    to_do = [job for job in jobs if workshop.record(job) is None]
    need_now = sum(state["bytes"][j.split] * len(j.rows) / len(orders[j.split]) for j in to_do)
    free = shutil.disk_usage(workshop.folder).free
    if need_now > free:
        raise FoveaError(
            f"About {need_now / 1e9:.1f} GB are to be written, and {workshop.folder} has room for "
            f"{free / 1e9:.1f} GB. Take another disk, or shrink the images by max_size=400."
        )
    return jobs
