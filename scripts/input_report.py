"""What `benchmark_input.py` prints and draws of its runs."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path

import matplotlib
import pandas as pd
from input_files import ORIGINAL, SMALL
from input_measure import OURS, REFERENCE, find_way
from PIL import features

from fovea.data.nvimagecodec import available
from fovea.data.processors import processor_share

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # after the choice of a backend without a screen

CASE = ["part", "view", "workers"]
_PACKAGES = (
    *("torch", "torchvision", "timm", "pillow", "simplejpeg", "nvidia-nvimgcodec-cu13"),
    *("ffcv", "nvidia-dali-cuda130", "webdataset", "litdata", "numba", "opencv-python"),
)
_VALUES = ["images_per_second", "cpu_ms"]
_RATIOS = ["speedup", "speedup_cpu", "behind", "behind_cpu"]
_HEADER = (
    "                   images/s                      CPU ms  images/s  x torchvision  "
    "fovea is faster by\n"
    "                     median   min - max          /image  per core    wall    CPU     "
    "wall    CPU   gives"
)
_WALL, _CPU = "#1f6f8b", "#e08e45"


def machine() -> list[str]:
    """Return lines that say what the numbers hold for."""
    versions = {name: version(name) for name in _PACKAGES}
    jpeg = "libjpeg-turbo" if features.check_feature("libjpeg_turbo") else "libjpeg"
    return [
        f"machine   {processor_name()}, {processor_share(1)} processor(s) used, "
        f"{platform.system()}, Python {platform.python_version()}",
        "versions  " + ", ".join(f"{name} {number}" for name, number in versions.items() if number),
        f"decoding  Pillow with {jpeg}; fovea with "
        + ("nvImageCodec and simplejpeg" if available() else "simplejpeg, without nvImageCodec"),
    ]


def version(package: str) -> str | None:
    """Return the version that is installed, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def processor_name() -> str:
    """Return what the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def summarise(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each way of each case, with medians over the repeats.

    Ratios are medians of the ratios within a repeat, see `with_ratios`.

    Args:
        runs: part, view, workers, way, repeat, images_per_second, cpu_ms, gives.
    """
    runs = with_ratios(runs)
    groups = runs.groupby([*CASE, "way"], sort=False)
    table = groups[[*_VALUES, *_RATIOS]].median()
    for value in _VALUES:
        table[f"{value}_min"], table[f"{value}_max"] = groups[value].min(), groups[value].max()
    table["images_per_second_per_core"] = 1000 / table.cpu_ms
    table["repeats"] = groups.size()
    table["gives"] = groups.gives.first()
    table = table.reset_index()
    pairs = zip(table.way, table.part, strict=True)
    table["differs"] = [find_way(way, part).differs for way, part in pairs]
    return table


def with_ratios(runs: pd.DataFrame) -> pd.DataFrame:
    """Return ``runs`` with how each compares with others of its repeat.

    ``speedup`` is how many times as fast as the reference it is (on the original files, also for
    what is stored smaller), ``behind`` how many times as fast as it fovea is on the same part; both
    by wall clock, and by CPU time.
    """
    moment = ["view", "workers", "repeat"]
    runs = runs.assign(small=runs.part == SMALL)
    reference = runs[(runs.way == REFERENCE) & runs.part.isin([ORIGINAL, SMALL])]
    for others, keys, name in (
        (reference, ["small", *moment], "reference"),
        (runs[runs.way == OURS], ["part", *moment], "ours"),
    ):
        runs = runs.merge(others[[*keys, *_VALUES]], "left", keys, suffixes=("", f"_{name}"))
    return runs.assign(
        speedup=runs.images_per_second / runs.images_per_second_reference,
        speedup_cpu=runs.cpu_ms_reference / runs.cpu_ms,
        behind=runs.images_per_second_ours / runs.images_per_second,
        behind_cpu=runs.cpu_ms / runs.cpu_ms_ours,
    )


def print_tables(table: pd.DataFrame) -> None:
    """Print the rows of each case, then what differs between the ways."""
    for (part, view, workers), rows in table.groupby(CASE, sort=False):
        print(f"\n{case_title(str(part), str(view))}, {workers_title(int(workers))}")
        print(_HEADER)
        for row in rows.itertuples():
            span = f"{row.images_per_second_min:,.0f} - {row.images_per_second_max:,.0f}"
            print(
                f"  {row.way:<16}{row.images_per_second:>9,.0f}   {span:<17}{row.cpu_ms:>8.3f}"
                f"{row.images_per_second_per_core:>10,.0f}{row.speedup:>9.2f}{row.speedup_cpu:>7.2f}"
                f"{row.behind:>10.2f}{row.behind_cpu:>7.2f}   {row.gives}"
            )
    print("\nwhat differs from torchvision (PIL in workers, float32, normalised):")
    notes = table[table.differs != ""].drop_duplicates("differs")
    for row in notes.itertuples():
        print(f"  {row.way}{' (small)' if row.part == SMALL else ''}: {row.differs}")
    print()


def case_title(part: str, view: str) -> str:
    """Return a case in words."""
    names = {ORIGINAL: "original JPEGs", SMALL: "32 x 32 pixels in memory"}
    return f"{names.get(part, f'stored at {part} pixels or less')}, {view}"


def workers_title(workers: int) -> str:
    """Return the number of workers in words."""
    return f"{workers} worker{'s' * (workers > 1)}" if workers else "without a loader"


def draw(table: pd.DataFrame, path: Path) -> None:
    """Write a plot of the ratios to torchvision, with the most workers that were measured."""
    table = table[table.workers == table.workers.max()]
    cases = list(table.groupby(["part", "view"], sort=False))
    heights = [len(rows) + 1 for _, rows in cases]
    figure, axes = plt.subplots(
        len(cases), 1, figsize=(8, 0.42 * sum(heights)), height_ratios=heights, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axis, ((part, view), rows) in zip(axes[:, 0], cases, strict=True):
        places = range(len(rows))
        for shift, column, colour, label in (
            (-0.2, "speedup", _WALL, "wall clock"),
            (0.2, "speedup_cpu", _CPU, "CPU time"),
        ):
            bars = axis.barh([p + shift for p in places], rows[column], 0.4, color=colour)
            bars.set_label(label)
            axis.bar_label(bars, fmt="%.2f", padding=2, fontsize=7)
        axis.set_yticks(places, rows.way)
        axis.invert_yaxis()
        axis.set_xlim(0, 1.1 * max(rows.speedup.max(), rows.speedup_cpu.max()))
        axis.axvline(1, color="grey", linewidth=0.8)
        axis.set_title(case_title(part, view), fontsize=9, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    axes[-1, 0].set_xlabel(
        "times as fast as torchvision with PIL; "
        f"{workers_title(int(table.workers.max()))}, {processor_name()}"
    )
    figure.savefig(path, dpi=150)
    plt.close(figure)
