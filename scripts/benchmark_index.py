"""Measure how fast a folder of a million images is found, and what its list costs a worker.

    python scripts/benchmark_index.py

makes ImageNet-like trees in a temporary folder, a small one and one of --images (tiny JPEGs, hard
links of one file a class), and removes them at the end. Printed are the seconds that a data module
takes to prepare each, at the first start (the folders are in the system's memory: it made them just
now) and at the next ones, and the memory that a worker shares with no other process after it read
random images of each (on Linux).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from itertools import chain, islice, repeat
from multiprocessing import Process, active_children
from pathlib import Path

from PIL import Image

from fovea.data import FolderDataModule
from fovea.data.index import SETTLED, SMALLEST_KEPT

SMALL = 1000


def main() -> None:
    """Run the benchmark and print its figures."""
    options = parse_arguments()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        os.environ["FOVEA_CACHE"] = str(Path(folder, "cache"))
        for name, images in (("small", min(SMALL, options.images)), ("large", options.images)):
            # Each in a process of its own, with which its workers go.
            process = Process(target=measure, args=(Path(folder, name), images, options))
            process.start()
            process.join()
            if process.exitcode:
                sys.exit(process.exitcode)


def parse_arguments() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1_281_167, help="of the large tree's train/")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batches", type=int, default=400, help="of 64 images that are read")
    parser.add_argument("--folder", type=Path, help="to make the trees in; else the system's")
    return parser.parse_args()


def measure(root: Path, images: int, options: argparse.Namespace) -> None:
    """Print the figures of a tree of ``images`` train images."""
    classes = min(images, options.classes)
    print(f"{images:,} train images in {classes} class folders", flush=True)
    make_split(root / "train", images, classes)
    make_split(root / "val", max(images // 25, classes), classes)
    if images >= SMALLEST_KEPT:
        time.sleep(SETTLED + 0.1)  # no index is kept of folders that changed just now
    for start in ("first start", "next start", "next start"):
        data = FolderDataModule(
            str(root), image_size=32, num_workers=options.workers, in_memory=False
        )
        began = time.perf_counter()
        data.prepare()
        print(f"  {start:<12} {time.perf_counter() - began:6.2f} s", flush=True)
    if sys.platform == "linux":
        memory = ", ".join(f"{mb:.0f}" for mb in worker_memory(data, options.batches))
        print(
            f"  private memory of each worker after {options.batches} batches: {memory} MB",
            flush=True,
        )


def make_split(folder: Path, images: int, classes: int) -> None:
    """Make ``images`` images in ``classes`` folders."""
    for label in range(classes):
        name = f"n{label:08}"
        (folder / name).mkdir(parents=True)
        first = folder / name / f"{name}_0.JPEG"
        for number in range(label, images, classes):
            if number == label:
                Image.new("RGB", (8, 8)).save(first)
            else:
                os.link(first, folder / name / f"{name}_{number}.JPEG")


def worker_memory(data: FolderDataModule, batches: int) -> list[float]:
    """Return the private memory in MB of each worker after it read its share of ``batches``."""
    loader = data.train_dataloader()
    for _ in islice(chain.from_iterable(repeat(loader)), batches):
        pass
    return [private_memory(worker.pid) for worker in active_children()]


def private_memory(process: int | None) -> float:
    """Return the memory in MB that ``process`` shares with no other."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


if __name__ == "__main__":
    main()
