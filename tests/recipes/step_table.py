"""Prints what of each recipe equals a plain loop's numbers, as a table.

``PYTHONPATH=src:tests python -m recipes.step_table`` trains every recipe at toy size, in one
process and on two ranks with accumulation.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from process import ROOT, environment
from recipes.comparing import Compared, compare, table
from recipes.made_images import make_data
from recipes.toys import RECIPES


def record(folder: Path, *names: str) -> None:
    """Train the recipes (all, if none is named) in processes of their own; traces in ``folder``."""
    make_data(folder / "data")
    paths = f"{ROOT / 'src'}:{ROOT / 'tests'}"
    done = subprocess.run(
        [sys.executable, "-m", "recipes.stepping", str(folder / "data"), str(folder), *names],
        env=environment(PYTHONPATH=paths), capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-5000:]


def traces(folder: Path, name: str, world: int) -> list[dict]:
    """Return what the ranks of a run recorded."""
    return [torch.load(folder / f"{name}-{world}-rank{rank}.pt") for rank in range(world)]


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        record(folder)
        runs: dict[tuple[str, int], Compared] = {}
        for name in RECIPES:
            for world in (1, 2):
                runs[name, world] = compare(name, traces(folder, name, world))
        print(table(runs))


if __name__ == "__main__":
    main()
