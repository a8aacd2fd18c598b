"""``data.check=true``: every image is read once, and what is wrong is told."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

from omegaconf import DictConfig

from fovea import console
from fovea.errors import FoveaError
from fovea.experiment import build_data

log = logging.getLogger("fovea")


def check_images(cfg: DictConfig, folder: Path) -> None:
    """Read every image once and print and write down what is wrong; nothing is trained.

    Raises:
        FoveaError: some can't be read; they are listed in image_check.csv.
    """
    data = build_data(cfg)
    found = data.check()
    table = folder / "image_check.csv"
    with table.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        csv.writer(file).writerows([("path", "reason", "split", "readable"), *found])
    console.print_rows(data.describe())
    for item in found[:20]:
        log.info("  %s: %s (%s)", item.path, item.reason, item.split)
    unreadable = sum(not item.readable for item in found)
    log.info(
        "%d images read: %d unreadable, %d odd; all in %s",
        *(data.num_files(), unreadable, len(found) - unreadable),
        console.shorten(table),
    )
    if unreadable:
        raise FoveaError(
            f"{unreadable} images can't be read. Mend or remove them, or train without them: "
            "data.on_bad_image=skip"
        )
