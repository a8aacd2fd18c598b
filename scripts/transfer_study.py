"""Run the transfer study and put its runs into one table: schedules x images a class.

    python scripts/transfer_study.py [--jobs 2] [data.root=<folder> logger=none ...]
    python scripts/transfer_study.py --table outputs/transfer_study

The first line trains what is not there yet, and goes on where it was cut:
experiment=transfer_pretrain, then `experiment=transfer_study -m` into <outputs>/transfer_study; the
words go to both. The second line trains nothing. The table is printed, and written into the study's
folder as transfer.md and transfer.csv, with a figure, transfer.png.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

# As src/train.py has it: the library beside this folder, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from transfer_table import read_runs, summarise, to_markdown, write

from fovea.arguments import compose_checked
from fovea.errors import FoveaError, printable

TRAIN = Path(__file__).resolve().parents[1] / "src" / "train.py"
NAME = "transfer_study"


def main() -> int:
    """Train what is missing, print and write the table; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", type=Path, metavar="FOLDER", help="of a study: train nothing")
    parser.add_argument("--jobs", type=int, default=1, help="runs of the study at a time")
    parser.add_argument("words", nargs="*", help="key=value for both, as train.py takes them")
    options = parser.parse_args()
    try:
        if options.table is not None and options.words:
            raise FoveaError("--table trains nothing, so it takes no key=value beside it.")
        folder = options.table or train(options.words, options.jobs)
        runs, notes = read_runs(folder)
        cells = summarise(runs)
        write(folder, cells, notes)
    except (FoveaError, OSError) as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 2
    print(
        printable("\n".join(["", to_markdown(cells, notes), f"  written to {folder}/transfer.*"]))
    )
    return 0


def train(words: list[str], jobs: int) -> Path:
    """Return the study's folder after both commands have run to their ends.

    Raises:
        FoveaError: wrong words, or a command that failed and has said why.
    """
    if jobs < 1:
        raise FoveaError(f"--jobs {jobs} must be at least 1.")
    cfg = compose_checked("train", [f"experiment={NAME}", *words])
    places = ["launcher=parallel", f"launcher.jobs={jobs}"] if jobs > 1 else []
    study = [f"experiment={NAME}", f"run_id={NAME}", "resume=auto", *places, "-m"]
    for command in (["experiment=transfer_pretrain", "resume=auto"], study):
        status = subprocess.run([sys.executable, str(TRAIN), *command, *words]).returncode
        if status:
            raise FoveaError(
                f"`train.py {command[0]}` ended with status {status}, see above. The same command "
                "goes on with what is missing."
            )
    return Path(cfg.paths.outputs, NAME)


if __name__ == "__main__":
    sys.exit(main())
