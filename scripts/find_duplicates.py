"""Find near-duplicates in a data set: images that are in two of its splits, or twice in one.

    python scripts/find_duplicates.py data=folder data.root=photos [--within] [--out FOLDER]

data=… and data.…=… name any data set, as for src/train.py. Copies are found that were re-encoded,
resized, brightened, turned to grey, mirrored or slightly cropped. Written are duplicates.csv, a row
an image that is not the only one of its kind, and duplicates.png, a sheet of pairs. Hashes of files
are kept in $FOVEA_CACHE, so a second search starts at once.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

# As src/train.py has it: the library beside this folder, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from fovea.errors import FoveaError, printable

if TYPE_CHECKING:
    import pandas as pd

    from fovea.data.duplicates import Duplicates


def main() -> int:
    """Run the command and return its exit status: 0 whether or not there are duplicates."""
    options = parse_arguments()
    try:
        find(options)
    except FoveaError as error:
        print(f"find_duplicates: {printable(str(error))}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"find_duplicates: {error.filename or ''}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("find_duplicates: cut short; hashes that were made are kept", file=sys.stderr)
        return 130
    return 0


def parse_arguments() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="+", metavar="data…", help="the data set")
    parser.add_argument(
        "--within",
        action="store_true",
        help="also search each split for images that it holds twice",
    )
    parser.add_argument("--out", type=Path, default=Path("duplicates"), help="folder to write to")
    parser.add_argument(
        "--max-distance",
        type=int,
        default=10,
        metavar="BITS",
        help="of 64 in which hashes may differ (default: 10)",
    )
    parser.add_argument(
        "--min-similarity",
        type=float,
        default=0.6,
        metavar="R",
        help="of the shapes in two thumbnails, a correlation to 1 (default: 0.6)",
    )
    return parser.parse_args()


def find(options: argparse.Namespace) -> None:
    """Search the data set that ``options`` name; print what was found, and write it.

    Raises:
        FoveaError: no such data set.
    """
    if not (0 <= options.max_distance <= 64 and -1 <= options.min_similarity <= 1):
        raise FoveaError("--max-distance must lie in 0 to 64, --min-similarity in -1 to 1")
    strange = [word for word in options.words if not word.lstrip("+").startswith("data")]
    if strange:
        raise FoveaError(f"'{strange[0]}' is no part of a data set: data=…, data.<key>=…")
    # Slow (torch), so only now that the arguments are known to be good.
    import pandas as pd

    from fovea.data.duplicates import DuplicateFinder
    from fovea.experiment import build_data, compose
    from fovea.judging.duplicates import Images, duplicates_table, pictures, write_duplicates

    data = build_data(compose(options.words, "train"))
    finder = DuplicateFinder(
        data.loader_processes(), data.decode, options.max_distance, options.min_similarity
    )
    tables, images = [], []
    for name, other in pairs_of(list(data.splits), options.within):
        first, second = Images(data, name), Images(data, other)
        found = finder.find(first.split, second.split)
        tables.append(duplicates_table(found, first, second))
        images += [partial(pictures(found, first, second), row) for row in range(len(found.found))]
        print(describe(name, other, len(first.split), tables[-1], found), flush=True)
    table = pd.concat(tables, ignore_index=True)
    title = f"{len(table):,} images that are there twice"
    sheet = write_duplicates(table, lambda row: images[row](), options.out, title)
    print(f"{options.out / 'duplicates.csv'}{f', {sheet}' if sheet else ''}")


def pairs_of(splits: list[str], within: bool) -> list[tuple[str, str]]:
    """Return which splits to compare: each with those before it, and with itself if asked."""
    pairs = [(later, earlier) for earlier, later in combinations(splits, 2)]
    return pairs + [(name, name) for name in splits if within]


def describe(name: str, other: str, count: int, table: pd.DataFrame, found: Duplicates) -> str:
    """Return what was found of two splits in a line."""
    strange = int((table["label"] != table["twin_label"]).sum())
    words = [
        f"{name}: {len(table):,} of {count:,} images ({len(table) / count:.2%}) have a "
        f"near-duplicate {'before them' if name == other else f'in {other}'}"
    ]
    if len(table):
        words.append(f"{int(table['mirrored'].sum()):,} mirrored")
        words.append(f"{strange:,} under another label")
    line = "; ".join(words)
    return f"{line}\n  {found.left_out()}" if found.left_out() else line


if __name__ == "__main__":
    sys.exit(main())
