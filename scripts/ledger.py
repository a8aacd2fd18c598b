"""Show what each recipe is expected to reach, and what the runs of it that are here reached.

    python scripts/ledger.py [outputs] [--changes 3] [--all]

A run counts as a reproduction only if it is finished and nothing that matters was overridden: not
places, names, seed, loggers, launcher, workers, checkpoints or devices (the global batch stays),
but everything else, the number of training images included. A recipe of which there is no run is
"unverified here". Of the val split the last epoch counts, of test the checkpoint that was tested.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# As src/train.py has it: the library beside this folder, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from fovea.errors import FoveaError, printable
from fovea.recipes.ledger import NOT_TRIED, Entry, ledger


def main() -> None:
    """Print the ledger; status 2 and one line for a mistake of the user's."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", default="outputs", help="of runs; default: outputs")
    parser.add_argument("--changes", type=int, default=3, help="shown of each run; 0: all")
    parser.add_argument("--all", action="store_true", help="variants that were not tried, too")
    options = parser.parse_args()
    if options.changes < 0:
        parser.error(f"--changes {options.changes}: 0 or more")
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        entries, broken = ledger(options.folder)
    except FoveaError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(text(entries, options.changes, options.all))
    if all(entry.verdict == NOT_TRIED for entry in entries):
        print(f"\nNo run of a recipe is in {printable(options.folder)}.")
    if broken:
        print("\nCan't be read, and not counted:")
        print("\n".join(f"  {printable(line)}" for line in broken))


def text(entries: list[Entry], changes: int, everything: bool) -> str:
    """Return the table of ``entries``.

    Args:
        entries: in their order.
        changes: how many overrides are shown of a run; 0: all.
        everything: variants that were not tried as well.
    """
    rows = [("recipe", "metric", "expected", "reached", "verdict", "run")]
    notes: dict[int, list[str]] = {}
    told: list[str | None] = []
    for entry in entries:
        if entry.variant and entry.verdict == NOT_TRIED and not everything:
            continue
        name = f"{entry.recipe}, {entry.variant}" if entry.variant else entry.recipe
        spread = f" +- {entry.spread:.4f}" if entry.spread else ""
        reached = "" if entry.reached is None else f"{entry.reached:.4f}"
        run = printable(entry.run or "")
        rows.append(
            (name, entry.metric, f"{entry.expected:.4f}{spread}", reached, entry.verdict, run)
        )
        if entry.changes and (not told or told[-1] != entry.run):
            told.append(entry.run)
            shown = entry.changes[: changes or None]
            more = len(entry.changes) - len(shown)
            notes[len(rows) - 1] = [*shown, *([f"and {more} more: --changes 0"] if more else [])]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = []
    for number, row in enumerate(rows):
        cells = [cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)]
        lines.append("  ".join(cells).rstrip())
        lines += [f"    {printable(note)}" for note in notes.get(number, [])]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
