"""Shards for tests, made by the script in this process."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

SCRIPTS = Path(__file__).parents[1] / "scripts"
sys.path.insert(0, str(SCRIPTS))

import prepare_shards  # noqa: E402
import shard_crew  # noqa: E402
import shard_files  # noqa: E402
import shard_images  # noqa: E402
import shard_making  # noqa: E402


def make_shards(source, out, *words):
    """Store the image folder ``source`` in ``out``, in shards of about two images."""
    prepare_shards.prepare([f"data.root={source}", "data=folder", f"out={out}", *words])
    return out


def photo(path, size, seed=0, **options):
    """Write an image of soft colours, (width, height) pixels, as its suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path, **options)
    return path


def photo_folder(root, counts, size=(40, 30)):
    """Write ``{split: images a class}`` of two classes as JPEGs, each another picture."""
    number = 0
    for split, count in counts.items():
        for name in ("cat", "dog"):
            for i in range(count):
                number += 1
                photo(root / split / name / f"{i}.jpg", size, number)
    return root


__all__ = ["SCRIPTS", "make_shards", "photo", "photo_folder", "prepare_shards", "shard_crew"]
__all__ += ["shard_files", "shard_images", "shard_making"]
