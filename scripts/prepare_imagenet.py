"""Make an ImageNet-1k image folder: train/<wnid>/*.JPEG and val/<wnid>/*.JPEG.

    python scripts/prepare_imagenet.py SOURCE TARGET

SOURCE holds one of
  - the official archives: ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and
    ILSVRC2012_devkit_t12.tar.gz (md5 checked; bounding boxes are not needed)
  - Kaggle's layout: ILSVRC/Data/CLS-LOC/{train,val} and LOC_val_solution.csv
  - a folder that is sorted already: {train,val}/<wnid>/*.JPEG

Nothing that exists is overwritten. Cut short, the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

from imagenet_archives import PreparationError
from imagenet_sources import PUBLISHED_MD5, WNID, Group, Picture, Source
from tqdm import tqdm

TRAIN, VAL, CLASSES = 1_281_167, 50_000, 1000
STATE_FILE = ".prepare_imagenet.json"
PART_SUFFIX = ".part"


class State:
    """What earlier calls finished, kept in the target folder."""

    def __init__(self, target: Path) -> None:
        self.file = target / STATE_FILE
        text = self.file.read_text() if self.file.exists() else "{}"
        self.values: dict[str, int | str] = json.loads(text)

    def put(self, key: str, value: int | str) -> None:
        """Record and save, so that a cut leaves the old state or the new one."""
        self.values[key] = value
        part = self.file.with_suffix(PART_SUFFIX)
        part.write_text(json.dumps(self.values, indent=0))
        part.replace(self.file)


def main() -> int:
    """Run the command and return its exit status."""
    options = parse_arguments()
    if options.list_classes:
        return list_classes()
    try:
        prepare(options)
    except PreparationError as error:
        return failed(str(error))
    except OSError as error:
        return failed(f"{error.filename or options.target}: {error.strerror or error}")
    except KeyboardInterrupt:
        failed("cut short; the same command goes on from here")
        return 130
    return 0


def failed(message: str) -> int:
    """Print ``message`` as an error and return the exit status."""
    print(f"prepare_imagenet: {message}", file=sys.stderr)
    return 2


def parse_arguments() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, nargs="?", metavar="SOURCE")
    parser.add_argument("target", type=Path, nargs="?", metavar="TARGET")
    parser.add_argument("--splits", nargs="+", choices=["train", "val"], default=["train", "val"])
    parser.add_argument(
        "--by",
        choices=["hardlink", "symlink", "copy", "move"],
        default="hardlink",
        help="how files of a folder get to TARGET (default: hardlink, or copy on another disk)",
    )
    parser.add_argument("--no-md5", action="store_true", help="take the archives unchecked")
    parser.add_argument(
        "--expect",
        nargs=3,
        type=int,
        default=[TRAIN, VAL, CLASSES],
        metavar=("TRAIN", "VAL", "CLASSES"),
        help="how many images and classes there must be in the end (default: ILSVRC2012's)",
    )
    parser.add_argument(
        "--list-classes", action="store_true", help="print label, wnid and name of each class"
    )
    options = parser.parse_args()
    if not options.list_classes and options.target is None:
        parser.error("SOURCE and TARGET are needed")
    return options


def list_classes() -> int:
    """Print the 1000 classes in label order."""
    # As src/train.py has it: the library beside this folder, installed or not.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
    from fovea.data import imagenet_classes

    for label, (wnid, name) in enumerate(imagenet_classes().items()):
        print(f"{label}\t{wnid}\t{name}")
    return 0


def prepare(options: argparse.Namespace) -> None:
    """Bring the chosen splits to the target folder and check the counts.

    Raises:
        PreparationError: with what to do about it.
    """
    source, target = Source(options.source.absolute()), options.target.absolute()
    groups = {split: list(source.groups(split)) for split in options.splits}
    if "val" in groups and any(group.name in ("archive", "flat") for group in groups["val"]):
        source.val_labels()  # lacking, they are missed now and not after hours
    target.mkdir(parents=True, exist_ok=True)
    state = State(target)
    if not options.no_md5:
        check_md5(source, state)
    for split, images in zip(("train", "val"), options.expect[:2], strict=True):
        if split in groups:
            bring(groups[split], target / split, images, options.by, state)
    check_counts(target, options)
    print(f"Ready: python src/train.py data=imagenet data.root={target}")


def check_md5(source: Source, state: State) -> None:
    """Compare the archives with the published sums, each file once."""
    for name, path in source.archives.items():
        status = path.stat()
        seal = f"{status.st_size} {status.st_mtime_ns}"
        if state.values.get(f"md5 of {path}") == seal:
            continue
        digest = hashlib.md5(usedforsecurity=False)
        bar = tqdm(total=status.st_size, desc=f"md5 {name}", unit="B", unit_scale=True)
        with open(path, "rb") as file, bar:
            while block := file.read(1 << 22):
                digest.update(block)
                bar.update(len(block))
        if digest.hexdigest() != PUBLISHED_MD5[name]:
            raise PreparationError(
                f"{path} has md5 {digest.hexdigest()}, not the published {PUBLISHED_MD5[name]}: it "
                "is cut off or another file. Fetch it again (or take it as it is by --no-md5)."
            )
        state.put(f"md5 of {path}", seal)


def bring(groups: list[Group], target: Path, images: int, by: str, state: State) -> None:
    """Bring all pictures of ``groups`` to ``target/<wnid>/``, leaving out what is there."""
    done = [group for group in groups if is_done(group, target, state)]
    to_do = [group for group in groups if group not in done]
    check_room(target.parent, to_do, by)
    there = sum(int(state.values[f"{target.name}/{group.name}"]) for group in done)
    with tqdm(total=images, initial=there, desc=target.name, unit="image") as bar:
        for group in to_do:
            count = 0
            for picture in group.pictures():
                place(picture, target / picture.wnid / picture.name, by)
                bar.update()
                count += 1
            if group.packed:
                state.put(f"{target.name}/{group.name}", count)


def is_done(group: Group, target: Path, state: State) -> bool:
    """Return whether an earlier call finished ``group`` and its files are still there."""
    count = state.values.get(f"{target.name}/{group.name}")
    if count is None:
        return False
    folders = [target / group.name] if WNID.fullmatch(group.name) else list(target.glob("n*"))
    return sum(count_images(folder) for folder in folders) >= int(count)


def check_room(target: Path, groups: list[Group], by: str) -> None:
    """Raise when the disk cannot hold what is to be written."""
    written = [group for group in groups if group.packed or by == "copy"]
    need, free = sum(group.size for group in written), shutil.disk_usage(target).free
    if need > free:
        raise PreparationError(
            f"{target} has room for {free / 1e9:.1f} GB, and {need / 1e9:.1f} GB are needed"
        )


def place(picture: Picture, target: Path, by: str) -> None:
    """Bring one picture to ``target``, at once whole: a cut leaves no half file behind.

    Raises:
        PreparationError: another file is there already.
    """
    if target.exists():
        if target.stat().st_size != picture.size:
            raise PreparationError(
                f"{target} exists with {target.stat().st_size} bytes, where {picture.size} are "
                "expected: not overwritten. Move it away, or choose another TARGET."
            )
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if picture.file is not None and by == "move":
        shutil.move(picture.file, target)
    elif picture.file is not None and by == "symlink":
        target.symlink_to(picture.file)
    elif picture.file is None or by == "copy" or not hard_linked(picture.file, target):
        write(picture, target)


def hard_linked(file: Path, target: Path) -> bool:
    """Return whether ``target`` could be made a second name of ``file``."""
    try:
        os.link(file, target)
    except OSError:  # another disk, or a file system without hard links
        return False
    return True


def write(picture: Picture, target: Path) -> None:
    """Write the picture's bytes beside ``target`` and rename them to it."""
    part = target.with_name(target.name + PART_SUFFIX)
    with picture.open() as source, open(part, "wb") as file:
        shutil.copyfileobj(source, file)
    if part.stat().st_size != picture.size:
        raise PreparationError(f"{picture.name} ends too early: the archive is cut off")
    part.replace(target)


def count_images(folder: Path) -> int:
    """Return the whole files in ``folder``."""
    if not folder.is_dir():
        return 0
    return sum(1 for name in os.listdir(folder) if not name.endswith(PART_SUFFIX))


def check_counts(target: Path, options: argparse.Namespace) -> None:
    """Print the counts of each split, and raise unless they are as expected."""
    *images, classes = options.expect
    wrong = []
    for split, expected in zip(("train", "val"), images, strict=True):
        if split not in options.splits:
            continue
        counts = {f.name: count_images(f) for f in (target / split).iterdir() if f.is_dir()}
        total = sum(counts.values())
        print(f"{split}: {total:,} images in {len(counts):,} classes")
        if (total, len(counts)) != (expected, classes):
            wrong.append(f"{split} should have {expected:,} images in {classes:,} classes")
    if wrong:
        raise PreparationError(
            f"{'; '.join(wrong)}. Files in {target} that are not ImageNet's, or a source with some "
            "missing, make the difference; for a part of ImageNet say --expect TRAIN VAL CLASSES."
        )


if __name__ == "__main__":
    sys.exit(main())
