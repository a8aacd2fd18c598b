"""Store a data set in shards: a few large files, read faster than images of their own.

    python scripts/prepare_shards.py data=folder data.root=photos out=shards/photos [key=value …]

  data=… data.…   any data set, as for src/train.py; its splits are kept as they are, cut ones too
  out=FOLDER      where the shards go
  max_size=400    shrink images to this many pixels on their longer side; others stay untouched.
                  To train at 224 pixels, take 400: smaller is faster, and costs accuracy
  quality=90      of the JPEGs this makes, 1 to 100; of images that a data set holds in memory (as
                  cifar10 does), which are stored as lossless PNG without it
  shard_mb=128    size of a shard in megabytes (millions of bytes)
  num_workers=auto  processes; a set of few images is done in one

Unreadable images stop it; data.on_bad_image=skip leaves them out, and lists them at the end. Cut
short, the same command goes on where it was; made whole, it mends what is missing. To train:

    python src/train.py data=shards data.root=shards/photos
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

# As src/train.py has it: the library beside this folder, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, ValidationError

from fovea.errors import FoveaError, did_you_mean


class Options(BaseModel):
    """What is typed besides the data set; see the text above."""

    out: str
    max_size: Annotated[int, Ge(1)] | None = None
    quality: Annotated[int, Ge(1), Le(100)] | None = None
    shard_mb: Annotated[float, Gt(0)] = 128
    num_workers: Annotated[int, Ge(0)] | Literal["auto"] = "auto"


def main() -> int:
    """Run the command and return its exit status."""
    words = sys.argv[1:]
    if not words or {"-h", "--help"} & set(words):
        print(__doc__)
        return 0 if words else 2
    try:
        prepare(words)
    except FoveaError as error:
        return failed(str(error))
    except OSError as error:
        return failed(f"{error.filename or ''}: {error.strerror or error}")
    except KeyboardInterrupt:
        failed("cut short; the same command goes on from here")
        return 130
    return 0


def failed(message: str) -> int:
    """Print ``message`` as an error and return the exit status."""
    print(f"\nprepare_shards: {message}", file=sys.stderr)
    return 2


def prepare(words: Sequence[str]) -> None:
    """Make the shards that ``words``, the command's arguments, ask for.

    Raises:
        FoveaError: with what to do about it.
    """
    own, rest = sorted_words(words)
    options = parse_options(own)
    # Slow (torch), so only now that the arguments are known to be good.
    from shard_making import make_shards

    from fovea.experiment import build_data, compose

    command = shlex.join(["python", "scripts/prepare_shards.py", *words])
    make_shards(build_data(compose(rest, "train")), command, **options.model_dump())


def sorted_words(words: Sequence[str]) -> tuple[dict[str, str | None], list[str]]:
    """Return the options among ``words`` by name, and what is left for the data set."""
    own: dict[str, str | None] = {}
    rest = []
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key in Options.model_fields:
            own[key] = None if value == "null" else value
        elif equals and (key in {"data", "paths.data"} or key.lstrip("+").startswith("data.")):
            rest.append(word)
        else:
            known = [*Options.model_fields, "data", "data.root"]
            raise FoveaError(
                f"'{word}': no such key.{did_you_mean(key, known)}\n  Keys: data=…, data.<key>=…, "
                f"{', '.join(f'{name}=…' for name in Options.model_fields)}; see --help"
            )
    return own, rest


def parse_options(own: dict[str, str | None]) -> Options:
    """Return the options of the command.

    Raises:
        FoveaError: naming each wrong one.
    """
    try:
        return Options.model_validate(own)
    except ValidationError as error:
        lines: dict[str, str] = {}
        for entry in error.errors():
            key = str(entry["loc"][0])
            lines.setdefault(key, f"{key}={own.get(key, '')}: {entry['msg']}")
        raise FoveaError("\n".join([*lines.values(), "See --help"])) from None


if __name__ == "__main__":
    sys.exit(main())
