"""Put evaluations of several models on several test sets into one table, as papers have it.

    python scripts/robustness_table.py [outputs] [--csv table.csv]

A row is a model, a column a test set: top-1 accuracy, and the mCE or mean error of what was
evaluated under corruption. It is read from the reports that eval.py has left below the folder, a
later one before an earlier one; what was not evaluated stays empty.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import pandas as pd

# As src/train.py has it: the library beside this folder, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from fovea.errors import FoveaError, printable
from fovea.evaluation.tables import write_csv

_MEANS = {"mce": "mCE", "mean_ce": "mean CE", "mean_corruption_error": "error under corruption"}


def main() -> int:
    """Print the table and write it if that is wanted; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path("outputs"),
        help="of evaluations; default: outputs")  # fmt: skip
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write the table, as shares")
    options = parser.parse_args()
    try:
        table, notes = read_table(options.folder)
        if options.csv is not None:
            write_csv(table.reset_index(), options.csv)
    except (FoveaError, OSError) as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 2
    shown = table.map(lambda share: "" if pd.isna(share) else f"{share:.2%}")
    print(printable("\n".join([shown.to_string(), *notes])))
    return 0


def read_table(folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """Return the table, an index of models and columns of shares, and what has to be said of it.

    Raises:
        FoveaError: there is no report on an evaluation.
    """
    cells: dict[str, dict[str, float]] = {}
    images: dict[str, set[Any]] = {}
    files = sorted(folder.rglob("metrics.json"), key=lambda file: file.stat().st_mtime)
    for file in files:
        report = read_report(file)
        if report is None:
            continue
        about = report["about"]
        row = cells.setdefault(model_of(about), {})
        for column, share in scores_of(report).items():
            row[column] = share
            images.setdefault(column, set()).add(about.get("fingerprint"))
    if not cells:
        raise FoveaError(
            f"There is no evaluation in {folder}. Make some: python src/eval.py "
            "ckpt=[outputs/<run>,outputs/<run>] data=imagenet_v2"
        )
    notes = [
        f"note: '{column}' is of different images for different models."
        for column, prints in images.items()
        if len(prints) > 1
    ]
    return pd.DataFrame.from_dict(cells, "index").rename_axis("model"), notes


def read_report(file: Path) -> dict[str, Any] | None:
    """Return the numbers of a report that says what it is of; None for another file."""
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    about = report.get("about") if isinstance(report, dict) else None
    return report if isinstance(about, dict) and {"data", "split"} <= set(about) else None


def model_of(about: dict[str, Any]) -> str:
    """Return the name of a row: the run or the weights, and the views if there are several."""
    name, views = str(about.get("run") or about.get("ckpt")), about.get("views", "center")
    return name if views == "center" else f"{name} ({views})"


def scores_of(report: dict[str, Any]) -> dict[str, float]:
    """Return what a report has for the table by column, as shares."""
    about = report["about"]
    # "ImageNet-C in /data/c: fog, severity 1" is the first of several versions, or the only one.
    title, _, version = re.sub(r" in .*?(?=: |$)", "", about["data"]).partition(": ")
    place = title if about["split"] == "test" else f"{title} {about['split']}"
    found = {
        f"{place} {said}": report[f"{about['split']}/{name}"]
        for name, said in _MEANS.items()
        if report.get(f"{about['split']}/{name}") is not None
    }
    if version and found:
        return found
    return {f"{place} {version}".strip(): report["top1"], **found}


if __name__ == "__main__":
    sys.exit(main())
