"""The images: are they found, can they be read, and how fast are they decoded."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from doctor_finding import Finding, Options, note, ok, problem

SAMPLE = 64
"""Images of the folder that are decoded."""

SLOW = 150.0
"""Images/s of one worker, below which a network drive or a crowded machine is likely."""

MEASURE_S = 1.5


def check_data(options: Options) -> Finding:
    """Find the classes and splits of ``--data``, and decode images from all over it."""
    if options.data is None:
        return note("no folder given", "python scripts/doctor.py --data FOLDER checks one")
    from fovea.data.images import UnreadableImage
    from fovea.errors import FoveaError

    try:
        data = _module(options.data, "error")
        sizes = data.split_sizes
    except FoveaError as error:
        return problem(str(error).replace("\n", " "), "see the README on your own images")
    bad = []
    read = 0
    for split in sizes:
        dataset = data.dataset(split)
        share = max(1, SAMPLE // len(sizes))
        for index in range(0, len(dataset), max(1, len(dataset) // share)):
            try:
                _ = dataset[index]
                read += 1
            except UnreadableImage as error:
                bad.append(str(error).splitlines()[0])
    found = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
    text = f"{data.num_classes} classes; {found} images; {read} of {read + len(bad)} tried decode"
    if bad:
        todo = "data.check=true lists all of them, data.on_bad_image=skip trains without"
        return problem(f"{text}; {bad[0]}", todo)
    empty = data.class_counts("train").count(0) if "train" in sizes else 0
    if empty:
        return note(f"{text}; {empty} classes have no training image", "look at the folders")
    return ok(text)


def check_decoding(options: Options) -> Finding:
    """Measure how many images one worker decodes and crops in a second."""
    with tempfile.TemporaryDirectory(prefix="doctor-") as folder:
        given = options.data is not None
        if not given:
            _make_images(Path(folder))
        speed = _images_per_second(_module(options.data or Path(folder), "skip"))
    kind = "images of the folder" if given else "JPEGs of 500 x 375 pixels"
    text = f"{speed:,.0f} images/s by one worker: random crops to 224 x 224 of {kind}"
    if speed < SLOW:
        todo = "shrink them once: python scripts/prepare_shards.py --help; or data.in_memory=true"
        return note(f"{text}: slow", todo)
    return ok(text)


def _module(root: Path, on_bad_image: str) -> Any:
    """Return the data set in the folder or table ``root``, as ``data=folder`` has it."""
    from fovea.data import Augment, FolderDataModule

    data = FolderDataModule(
        root=str(root),
        batch_size=8,
        num_workers=0,
        on_bad_image=on_bad_image,
        augment=Augment(crop="resized"),
    )
    data.prepare()
    return data


def _images_per_second(data: Any) -> float:
    """Return how many training images of ``data`` one process and thread reads in a second."""
    import torch

    torch.set_num_threads(1)  # as a worker has
    count, start = 0, 0.0
    while True:
        for batch in data.train_dataloader():
            now = time.monotonic()
            start = start or now  # the first batch opens decoders
            if now - start > MEASURE_S:
                return count / (now - start)
            count += len(batch.indices)


def _make_images(folder: Path) -> None:
    """Write JPEGs of 500 x 375 pixels with as much detail as photographs have (about 60 kB)."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(16):
        coarse = rng.integers(0, 256, (47, 63, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
        noise = rng.integers(-12, 13, (375, 500, 3))
        pixels = (np.asarray(smooth) + noise).clip(0, 255).astype(np.uint8)
        place = folder / str(number % 2)
        place.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number}.jpg", quality=85)
