"""Measure how fast images are read, by fovea and by other projects, from the same files.

    python scripts/benchmark_input.py --root photos      # photos/<class>/*.jpg or photos/train/
    python scripts/benchmark_input.py --synthetic 400    # images are made up
    python scripts/benchmark_input.py --root photos --parts original --peers torchvision-v2,ffcv

Every way, number of workers and repeat is a process of its own, which makes its loader, warms it up
and then takes batches for --seconds. One repeat goes over all ways before the next one starts, and
ratios are taken within a repeat, so that a machine that slows down slows all. CPU time is that of
the process and its workers. Parts are

    original    the JPEGs as they are: RandomResizedCrop(224) and flip, or Resize(256) and
                CenterCrop(224), antialiased bilinear where the way has it
    400, 256    (any number) the longest side in pixels of copies that were shrunk and stored,
                quality 90; their ratios are to torchvision on the originals
    small       32 x 32 pixels in memory, padded random crop and flip, float32, normalised

Ways whose package is missing are listed with the command that installs it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import pandas as pd
from input_files import (
    ORIGINAL,
    SMALL,
    TRAIN,
    VIEWS,
    Job,
    kilobytes_an_image,
    link_images,
    make_photographs,
    make_small,
    shrink_images,
)
from input_measure import OURS, REFERENCE, WAYS, find_way, in_own_process
from input_report import draw, machine, print_tables, summarise
from input_ways import Way
from tqdm import tqdm

from fovea.data.processors import processor_share
from fovea.errors import FoveaError, did_you_mean

PEERS = list(dict.fromkeys(way.name for way in WAYS if not way.name.startswith(OURS)))


def main() -> int:
    """Run the benchmark and return its exit status."""
    try:
        options = parse_arguments()
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            benchmark(options, Path(folder))
    except (FoveaError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def parse_arguments() -> argparse.Namespace:
    """Return the command line's options, lists as lists.

    Raises:
        FoveaError: for a name that does not exist.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    all_workers = ",".join(map(str, sorted({1, processor_share(1)})))
    add = parser.add_argument
    add("--root", type=Path, help="folder of class folders of JPEGs, or with train/")
    add("--synthetic", type=int, metavar="N", help="make N JPEGs up instead")
    add("--small", type=Path, metavar="PATH", help="CIFAR-10 as train/<class>/*.jpg; else noise")
    add("--parts", default=f"{ORIGINAL},400,256,{SMALL}", help="default: %(default)s")
    add("--peers", default=",".join(PEERS), help="beside torchvision and fovea; default: all")
    add("--views", default=",".join(VIEWS), help="of the originals; default: %(default)s")
    add("--workers", default=all_workers, help="0: no loader; default: %(default)s")
    add("--batch-size", type=int, default=64)
    add("--files", type=int, default=2048, help="images an epoch; default: %(default)s")
    add("--repeats", type=int, default=3)
    add("--seconds", type=float, default=3.0, help="measured in each run; default: %(default)s")
    add("--out", type=Path, default=Path("benchmark_input.csv"), help="a plot comes beside it")
    add("--folder", type=Path, help="to make files in; else the system's temporary one")
    options = parser.parse_args()
    options.peers = names("--peers", options.peers, PEERS)
    options.views = names("--views", options.views, VIEWS)
    options.parts = names("--parts", options.parts, (ORIGINAL, SMALL), or_number=True)
    options.workers = list(map(int, names("--workers", options.workers, (), or_number=True)))
    if any(part.isdecimal() for part in options.parts) and ORIGINAL not in options.parts:
        raise FoveaError(f"What is stored is compared with the originals: --parts={ORIGINAL},…")
    if options.parts != [SMALL] and (options.root is None) == (options.synthetic is None):
        raise FoveaError("Say which images: --root FOLDER, or --synthetic 400 to make some up")
    return options


def names(option: str, text: str, choices: Sequence[str], or_number: bool = False) -> list[str]:
    """Return the names in ``text``, each one of ``choices`` or perhaps a number."""
    found = text.split(",")
    for name in found:
        if name not in choices and not (or_number and name.isdecimal()):
            there = ", ".join([*choices, *["a number"] * or_number])
            near = did_you_mean(name, choices)
            raise FoveaError(f"{option}={name} is not one of {there}.{near}")
    return found


def benchmark(options: argparse.Namespace, folder: Path) -> None:
    """Prepare, measure, report."""
    ways, missing = chosen_ways(options.peers)
    print("\n".join(machine()), flush=True)
    print("\n".join(make_files(options, folder)), flush=True)
    jobs = list(all_jobs(options, ways, folder))
    failed = pack_all(jobs, options.files)
    table = summarise(measure_all(jobs, options.repeats, failed))
    print_tables(table)
    for way in missing:
        print(f"not installed: {way.name}. To add it: {way.install}")
    for (name, part), reason in failed.items():
        print(f"failed: {name} ({part}): {reason}. Installed by: {find_way(name, part).install}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.out, index=False)
    plot = options.out.with_suffix(".png")
    draw(table, plot)
    print(f"wrote {options.out} and {plot}")


def chosen_ways(peers: list[str]) -> tuple[list[Way], list[Way]]:
    """Return the ways to measure, and those that are wanted and not installed."""
    wanted = [w for w in WAYS if w.name in {*peers, REFERENCE} or w.name.startswith(OURS)]
    there = [way for way in wanted if way.installed()]
    missing = {way.name: way for way in wanted if not way.installed()}
    return there, list(missing.values())


def make_files(options: argparse.Namespace, folder: Path) -> list[str]:
    """Make the files of each part; return what they are."""
    lines = []
    if options.parts != [SMALL]:
        root = options.root or folder / "synthetic"
        if options.synthetic:
            make_photographs(root, options.synthetic)
        lines += link_images(root, folder / ORIGINAL, options.files)
    for part in options.parts:
        if part.isdecimal():
            shrink_images(folder / ORIGINAL, folder / part, int(part))
    if SMALL in options.parts:
        lines += make_small(folder / SMALL, options.small)
    return [f"files     {line}" for line in lines]


def all_jobs(options: argparse.Namespace, ways: list[Way], folder: Path) -> Iterator[Job]:
    """Yield the runs of one repeat: those that are compared stand together."""
    for view in options.views:
        parts = [part for part in options.parts if view == TRAIN or part == ORIGINAL]
        for workers, part, way in product(options.workers, parts, ways):
            if way.parts([part]) and workers >= way.least_workers:
                yield Job(
                    way.name, part, view, workers, options.batch_size, options.seconds, str(folder)
                )


def pack_all(jobs: list[Job], count: int) -> dict[tuple[str, str], str]:
    """Write the files that ways read instead; return why those failed that did."""
    failed: dict[tuple[str, str], str] = {}
    for job in {(job.way, job.part): job for job in jobs}.values():
        if type(find_way(job.way, job.part)).pack is Way.pack:
            continue
        try:
            in_own_process("pack", job)
            size = kilobytes_an_image(job.packed, count)
            print(f"packed    {job.way} {job.part}: {size:.0f} kB an image", flush=True)
        except FoveaError as error:
            failed[job.way, job.part] = str(error)
    return failed


def measure_all(jobs: list[Job], repeats: int, failed: dict[tuple[str, str], str]) -> pd.DataFrame:
    """Return a row for each run, see `summarise`; ways that fail go into ``failed``."""
    rows = []
    turns = [(repeat, job) for repeat in range(repeats) for job in jobs]
    for repeat, job in tqdm(turns, unit="run", dynamic_ncols=True):
        if (job.way, job.part) in failed:
            continue
        try:
            result = in_own_process("measure", job)
        except FoveaError as error:
            if job.way in {OURS, REFERENCE}:
                raise FoveaError(f"{job.way}, {job.part}, {job.view}: {error}") from error
            failed[job.way, job.part] = str(error)
            continue
        settings = {"part": job.part, "view": job.view, "workers": job.workers, "way": job.way}
        rows.append({**settings, "repeat": repeat, **result})
    return pd.DataFrame(rows)


if __name__ == "__main__":
    sys.exit(main())
