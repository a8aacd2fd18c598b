"""Write and score submissions to the ILSVRC2012 classification challenge.

    python scripts/ilsvrc_submission.py write RUN [RUN ...] --devkit DEVKIT --out submission.txt
    python scripts/ilsvrc_submission.py score submission.txt --devkit DEVKIT

RUN is a run, an evaluation's folder or a file of predictions. Of several, the mean of their
probabilities is ranked (an ensemble). A line of the submission holds the five best guesses for one
image, best first, as the devkit numbers the classes (ILSVRC2012_ID 1 to 1000, not a network's
labels); the lines follow the names ILSVRC2012_val_00000001, …2, or those of ILSVRC2012_test.

DEVKIT is ILSVRC2012_devkit_t12.tar.gz, a folder with it or with its content, or a text file of
lines "<wnid> <ILSVRC2012_ID> <name>".
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

# As src/train.py has it: the library beside this folder, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from imagenet_archives import PreparationError
from imagenet_devkit import Devkit, read_devkit, read_truth

from fovea.errors import FoveaError, printable

IMAGES = {"val": 50_000, "test": 100_000}
MOST_GUESSES = 5
SHOWN_PROBLEMS = 20

_IMAGE = re.compile(r"ILSVRC2012_(val|test)_(\d{8})")


def main() -> int:
    """Run the command and return its exit status."""
    options = parse_arguments()
    try:
        return int(options.command(options))
    except (FoveaError, PreparationError) as error:
        print(f"ilsvrc_submission: {printable(str(error))}", file=sys.stderr)
    except OSError as error:
        print(f"ilsvrc_submission: {error.filename}: {error.strerror}", file=sys.stderr)
    return 2


def parse_arguments() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="{write,score}")
    writing = commands.add_parser("write", help="predictions -> submission")
    writing.add_argument("runs", nargs="+", metavar="RUN")
    writing.add_argument("--split", default="val", choices=["val", "test"], help="of the RUNs")
    writing.add_argument("--devkit", type=Path, required=True)
    writing.add_argument("--out", type=Path, required=True, help="file to write")
    writing.add_argument(
        "--images", type=int, help="how many there must be (default: 50,000 of val, 100,000 test)"
    )
    writing.set_defaults(command=write)
    scoring = commands.add_parser("score", help="submission -> top-5 and top-1 error")
    scoring.add_argument("submission", type=Path)
    scoring.add_argument("--devkit", type=Path, required=True)
    scoring.add_argument("--truth", type=Path, help="of other images than the devkit's val images")
    scoring.set_defaults(command=score)
    return parser.parse_args()


def write(options: argparse.Namespace) -> int:
    """Write the submission of the predictions that ``options`` name."""
    # Slow (torch), so only once the command line and the devkit are known to be good.
    devkit = read_devkit(options.devkit)
    from ilsvrc_ranking import rank_classes

    name_of, guesses = rank_classes(options.runs, options.split, devkit.wnid_of_id, MOST_GUESSES)
    order = image_order(name_of, options.images)
    lines = [" ".join(map(str, guesses[row])) for row in order]
    options.out.write_text("".join(f"{line}\n" for line in lines))
    print(f"{options.out}: {len(lines):,} lines of {len(guesses[0])} guesses")
    return 0


def image_order(names: Sequence[str], expected: int | None = None) -> list[int]:
    """Return the rows of ``names`` in the devkit's order of the images.

    Args:
        names: paths that hold ``ILSVRC2012_val_00000001`` or the like, of one split.
        expected: how many images there must be; None: as many as the challenge had.

    Raises:
        FoveaError: other names, images that are missing or come twice.
    """
    found = [_IMAGE.search(Path(name).name) for name in names]
    strange = [name for name, match in zip(names, found, strict=True) if match is None]
    if strange or not names:
        shown = strange[0] if strange else "none"
        raise FoveaError(
            f"{len(strange):,} of {len(names):,} images are not named as the challenge's, "
            f"ILSVRC2012_val_00000001.JPEG (the first: {shown}). A submission needs predictions of "
            "its own images: python src/eval.py ckpt=<run> data=imagenet split=val"
        )
    splits = {match[1] for match in found if match}
    if len(splits) > 1:
        raise FoveaError("The predictions mix val and test images, which are two submissions.")
    row_of: dict[int, int] = {}
    for row, match in enumerate(found):
        assert match is not None
        if row_of.setdefault(int(match[2]), row) != row:
            raise FoveaError(f"{match[0]} is there twice: {names[row]}")
    return _all_rows(row_of, splits.pop(), expected)


def _all_rows(row_of: dict[int, int], split: str, expected: int | None) -> list[int]:
    """Return the rows of the images 1 to ``expected``; see `image_order`."""
    count = IMAGES[split] if expected is None else expected
    missing = [number for number in range(1, count + 1) if number not in row_of]
    if missing or len(row_of) != count:
        first = f"; the first that is missing: {missing[0]}" if missing else ""
        raise FoveaError(
            f"A submission has a line for each of the {count:,} {split} images, and there are "
            f"predictions of {len(row_of):,}{first}. For a part of them say --images, with how "
            "many there are from the first on."
        )
    return [row_of[number] for number in range(1, count + 1)]


def score(options: argparse.Namespace) -> int:
    """Print the errors of a submission, or what is wrong with it."""
    devkit = read_devkit(options.devkit)
    truth = read_truth(options.truth) if options.truth else devkit.truth
    if not truth:
        raise FoveaError(
            f"{options.devkit} brings no ground truth: give its file by --truth "
            "…/ILSVRC2012_validation_ground_truth.txt"
        )
    guesses, problems = read_submission(options.submission, devkit, len(truth))
    for problem in problems[:SHOWN_PROBLEMS]:
        print(f"{options.submission}: {problem}", file=sys.stderr)
    if len(problems) > SHOWN_PROBLEMS:
        print(f"… and {len(problems) - SHOWN_PROBLEMS:,} more", file=sys.stderr)
    if problems:
        return 2
    if twice := sum(len(set(line)) < len(line) for line in guesses):
        print(f"{twice:,} lines guess a class twice, which wastes a guess")
    print(f"{options.submission}: {len(guesses):,} images")
    for count, error in enumerate(errors(guesses, truth), start=1):
        note = {1: "  top-1", MOST_GUESSES: "  top-5, the challenge's"}.get(count, "")
        print(
            f"  error with {count} guess{'es' if count > 1 else '  '}  {100 * error:7.3f} %{note}"
        )
    return 0


def read_submission(file: Path, devkit: Devkit, expected: int) -> tuple[list[list[int]], list[str]]:
    """Return the guesses of each line, and what is wrong where.

    Args:
        file: a line an image: 1 to 5 ILSVRC2012_IDs between blanks, the best first.
        devkit: knows the IDs.
        expected: how many images there are.
    """
    lines = file.read_text(errors="replace").splitlines()
    guesses, problems = [], []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        ids = [int(word) for word in words if word.isascii() and word.isdigit()]
        strange = [word for word in words if not (word.isascii() and word.isdigit())]
        outside = [str(label) for label in ids if label not in devkit.wnid_of_id]
        if not words:
            problems.append(f"line {number}: no guess; each image needs 1 to {MOST_GUESSES}")
        if strange or outside:
            problems.append(
                f"line {number}: {', '.join(strange + outside)} is no ILSVRC2012_ID, a whole "
                f"number from {min(devkit.wnid_of_id)} to {max(devkit.wnid_of_id)}"
            )
        if len(words) > MOST_GUESSES:
            problems.append(f"line {number}: {len(words)} guesses, {MOST_GUESSES} are allowed")
        guesses.append(ids)
    if len(lines) != expected:
        problems.insert(0, f"{len(lines):,} lines, and there are {expected:,} images")
    return guesses, problems


def errors(guesses: Sequence[Sequence[int]], truth: Sequence[int]) -> list[float]:
    """Return the share of images that the first 1, 2, … 5 guesses miss.

    An image is right if one of its guesses is the truth; it may have fewer than five. Source:
    Russakovsky et al. 2015, "ImageNet Large Scale Visual Recognition Challenge", section 4.1.
    """
    return [
        sum(label not in line[:count] for line, label in zip(guesses, truth, strict=True))
        / len(truth)
        for count in range(1, MOST_GUESSES + 1)
    ]


if __name__ == "__main__":
    sys.exit(main())
