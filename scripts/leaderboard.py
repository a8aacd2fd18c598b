"""Show all runs, the best first: on the terminal, and as a page with their curves.

    python scripts/leaderboard.py [outputs] [--sort val/top1] [--columns id,val/top1,optimizer.lr]
    python scripts/leaderboard.py --html [leaderboard.html]
    python scripts/leaderboard.py --wandb entity/project

Runs are ranked by the metric they monitor. Shown are the settings in which they differ, and as many
columns as the terminal has room for; --columns takes any of `fovea.runs.load`. The page is one file
that needs no network: heads sort, a filter picks rows, chosen runs lay their curves above each
other.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

import pandas as pd

# As src/train.py has it: the library beside this folder, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from fovea import runs
from fovea.errors import FoveaError, did_you_mean, printable
from fovea.runs.page import write_leaderboard
from fovea.runs.ranking import best_first, check_columns, one_line, worth_showing
from fovea.runs.state import STATES
from fovea.runs.terminal import text_table

MOST_PROBLEMS = 5


def main() -> None:
    """Print the table, write the page; status 2 and one line for a mistake of the user's."""
    options = parse_arguments()
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        show(options)
    except FoveaError as error:
        print(printable(str(error)), file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def parse_arguments() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", help="of runs; default: outputs")
    parser.add_argument("--sort", metavar="COLUMN", help="default: the metric most runs monitor")
    parser.add_argument("--mode", choices=("min", "max"), help="which of its values come first")
    parser.add_argument("--columns", metavar="A,B,…", help="to show, instead of the usual ones")
    parser.add_argument(
        "--kind", choices=("train", "eval", "all"), default="train", help="default: train"
    )
    parser.add_argument("--state", metavar="A,B,…", help="only runs in these states")
    parser.add_argument("--top", type=int, default=40, help="rows on the terminal; 0: all")
    parser.add_argument("--html", nargs="?", const="", metavar="FILE", help="write the page, too")
    parser.add_argument("--wandb", metavar="ENTITY/PROJECT", help="runs of W&B, not of a folder")
    options = parser.parse_args()
    if options.folder is None and not options.wandb and os.path.isdir(options.html or ""):
        # "--html outputs" reads as if the folder were meant, and its page.
        options.folder, options.html = options.html, ""
    options.folder = options.folder or "outputs"
    return options


def show(options: argparse.Namespace) -> None:
    """Print the table of ``options`` and write its page if that is wanted."""
    if options.top < 0:
        raise FoveaError(f"--top {options.top}: give how many rows to show; 0 shows all.")
    everything = runs.load_wandb(options.wandb) if options.wandb else runs.load(options.folder)
    chosen = chosen_runs(everything, options)
    source = options.wandb or options.folder
    if chosen.empty:
        raise FoveaError(
            f"There is no such run in {source}; it holds {len(everything)} runs of all kinds and "
            "states. Runs go to: outputs; evaluations are shown by --kind eval"
        )
    table, order = best_first(chosen, options.sort, options.mode)
    if options.columns is not None:
        columns = check_columns(table, words(options.columns, "--columns"))
    else:
        columns = worth_showing(table, order)
    print_table(table.head(options.top or len(table)), columns, asked=options.columns is not None)
    more = f", {len(table) - options.top} more: --top 0" if 0 < options.top < len(table) else ""
    print(f"\n{len(table)} run{'s'[: len(table) > 1]} by {order}{more}")
    print_problems(table)
    if options.html is not None:
        page = Path(options.html or ("." if options.wandb else options.folder))
        page = page / "leaderboard.html" if os.path.isdir(page) else page
        online = options.wandb is not None
        write_leaderboard(page, table, columns, order, source, wandb=online)
        print(printable(f"page  {page}"))


def words(text: str, option: str) -> list[str]:
    """Return what stands between the commas of an option's ``text``.

    Raises:
        FoveaError: nothing does.
    """
    found = [word.strip() for word in text.split(",") if word.strip()]
    if not found:
        raise FoveaError(
            f"{option} {text}: it names nothing. Give names, with commas between them."
        )
    return found


def chosen_runs(table: pd.DataFrame, options: argparse.Namespace) -> pd.DataFrame:
    """Return the rows of the kind and in the states asked for; what has no kind counts as both."""
    if options.kind != "all":
        table = table[table["kind"].isin([options.kind]) | table["kind"].isna()]
    if options.state is not None:
        states = words(options.state, "--state")
        known = list(dict.fromkeys([*STATES, *table["state"]]))
        for state in states:
            if state not in known:
                advice = did_you_mean(state, known) or f" There are: {', '.join(STATES)}"
                raise FoveaError(f"--state {state}: no such state.{advice}")
        table = table[table["state"].isin(states)]
    return table


def print_table(table: pd.DataFrame, columns: list[str], asked: bool) -> None:
    """Print ``table`` as wide as the terminal is; into a pipe or a file, as wide as it gets."""
    terminal = sys.stdout.isatty()
    fixed = terminal or "COLUMNS" in os.environ
    width = shutil.get_terminal_size().columns if fixed else None
    colour = terminal and "NO_COLOR" not in os.environ
    text, left_out = text_table(table, columns, width, colour)
    print(text)
    if left_out and asked:
        names = ", ".join(map(one_line, left_out))
        print(f"\nNo room for {names}: make the terminal wider, or use a pipe.")


def print_problems(table: pd.DataFrame) -> None:
    """Print why runs failed, were killed or can't be read, of the first few."""
    bad = table[table["error"].notna() | table["state"].isin(["killed", "unknown"])]
    for row in bad.head(MOST_PROBLEMS).to_dict("records"):
        reason = row["evidence"] if pd.isna(row["error"]) else row["error"]
        print(printable(f"{row['state']}  {row['id']}: {(str(reason).splitlines() or [''])[0]}"))
    if len(bad) > MOST_PROBLEMS:
        print(f"and {len(bad) - MOST_PROBLEMS} more: --columns id,state,error,evidence")


if __name__ == "__main__":
    main()
