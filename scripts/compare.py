"""Say which of several runs is better on the same samples, and what may be claimed of it.

    python scripts/compare.py outputs/<run> outputs/<run>       # as many as you like
    python scripts/compare.py outputs/sweeps/<sweep>            # all runs in it
    python scripts/compare.py outputs --group-by model.name     # systems told apart by this alone
    python scripts/compare.py a/predictions/test.npz b/predictions/test.npz

Runs that differ in nothing but their seed are one system. A single run beside several is taken to
vary with its seed as they do. Compared are the predictions that training (test=true) and eval.py
leave in a run's folder. Everything is written into --out: compare.html to read, compare.json and
CSV files for programs, pictures.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

# As src/train.py has it: the library beside this folder, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from torch import Tensor

from fovea import run_folder, run_id
from fovea.comparison import (
    Comparison,
    compare,
    say_all,
    say_limits,
    systems_table,
    write_comparison,
)
from fovea.errors import FoveaError, printable
from fovea.experiment import build_data

_MOST_SAID = 12
"""Sentences on the terminal; the page has all."""


def main() -> int:
    """Compare, print what holds, write the folder; return the exit status."""
    options = parse_arguments()
    try:
        comparison = compare(
            options.runs,
            split=options.split,
            group_by=options.group_by,
            baseline=options.baseline,
            seed=options.seed,
            resamples=options.resamples,
        )
        folder = options.out or Path("outputs", f"compare_{run_id.make(Path('outputs'))}")
        run_folder.check_writable(folder)
        print_summary(comparison)
        files = write_comparison(folder, comparison, find_images(comparison), options.count)
    except (FoveaError, OSError) as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 2
    print(f"\npage  {files['page']}")
    return 0


def parse_arguments() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN",
        help="folder of a run, an evaluation or several runs, or file of predictions")  # fmt: skip
    add("--split", default="test", choices=("train", "val", "test"),
        help="whose predictions; default: %(default)s")  # fmt: skip
    add("--group-by", type=keys, metavar="KEY[,KEY…]",
        help="settings that alone tell systems apart, such as model.name,optimizer.lr; none: every "
        "run is a system of its own; default: all but seeds, places, and what only watches a run "
        "(progress bar, sheets of images, profiler, …)")  # fmt: skip
    add("--baseline", action="store_true", help="compare all with the first system only")
    add("--resamples", type=positive, default=2000, help="default: %(default)s")
    add("--seed", type=int, default=0, help="of the resampling; default: %(default)s")
    add("--count", type=positive, default=15, help="pictures on a sheet; default: %(default)s")
    add("--out", type=Path, help="folder to write; default: a new one in outputs/")
    return parser.parse_args()


def keys(text: str) -> list[str]:
    """Return the settings that ``text`` names, with commas between them; of "none", no setting."""
    return [] if text == "none" else [key.strip() for key in text.split(",") if key.strip()]


def positive(text: str) -> int:
    """Return the whole number above 1 that ``text`` is."""
    number = int(text)
    if number < 2:
        raise argparse.ArgumentTypeError(f"{text} is below 2")
    return number


def print_summary(comparison: Comparison) -> None:
    """Print the systems and what may be claimed of them."""
    table = systems_table(comparison).sort_values("top1", ascending=False, kind="stable")
    print(f"{comparison.samples:,} samples of '{comparison.split}'; top-1 with 95 % interval\n")
    width = max(len(name) for name in table["system"])
    for row in table.itertuples():
        runs = f"  {row.runs} runs, sd {100 * row.sd:.2f}" if row.runs > 1 else ""
        print(
            f"  {row.system:<{width}}  {100 * row.top1:6.2f} %"
            f"  {100 * row.low:6.2f} to {100 * row.high:6.2f}  {row.name}{runs}"
        )
    said = say_all(comparison)
    print("", *said[:_MOST_SAID], sep="\n")
    if len(said) > _MOST_SAID:
        print(f"… and {len(said) - _MOST_SAID} more comparisons, on the page.")
    print("", *say_limits(comparison), *comparison.notes, sep="\n")


def find_images(comparison: Comparison) -> Callable[[int], Tensor] | None:
    """Return what gives a sample's image by its index; None, with a word, if there is no way to it.

    The data set is built as one of the runs had it, and has to hold, still, what the first run was
    judged on: samples have the indices they had there.
    """
    judged_on = comparison.entries[0].results.about.get("fingerprint")
    reason = "no run folder says which data set it is"
    for entry in comparison.entries:
        if entry.folder is None:
            continue
        try:
            data = build_data(run_folder.read_config(entry.folder))
            now = data.split_fingerprints().get(comparison.split)
            if now == judged_on:
                dataset = data.dataset(comparison.split)
                return lambda index: dataset[index].images
            reason = "the data set has other images now"
        except Exception as error:  # whatever keeps the images away, the numbers stand
            reason = str(error).partition("\n")[0]
    print(f"\nNo pictures of the samples: {printable(reason)}")
    return None


if __name__ == "__main__":
    sys.exit(main())
