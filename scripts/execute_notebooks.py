"""Execute the notebooks and store them with their outputs, kept light.

    python scripts/execute_notebooks.py [NOTEBOOK ...]

Each runs in a copy of notebooks/, as in a fresh clone: the runs it needs are made anew, and nothing
is left behind. What a notebook may store is limited; one that fails is not stored.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
MOST_BYTES = 300_000
"""Of a stored notebook: a repository keeps each version of it."""
COLOURS = 128
TIMEOUT = 600
"""Seconds a cell may take."""


def main() -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all")
    for file in parser.parse_args().notebooks or sorted(NOTEBOOKS.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            try:
                notebook = execute(file, Path(folder))
            except CellExecutionError as error:
                print(f"execute_notebooks: {file.name} failed:\n{error}", file=sys.stderr)
                return 1
        text = nbformat.writes(lighten(notebook)) + "\n"
        if len(text) > MOST_BYTES:
            print(f"execute_notebooks: {file.name} has {len(text):,} bytes", file=sys.stderr)
            return 1
        file.write_text(text, encoding="utf-8")
        print(f"{file.name}: {len(text):,} bytes")
    return 0


def execute(file: Path, folder: Path) -> NotebookNode:
    """Return the notebook ``file``, executed by this Python in a copy of its folder.

    Args:
        file: the notebook.
        folder: an empty one; the copy goes into ``folder/notebooks``, runs beside it.

    Raises:
        CellExecutionError: a cell failed.
    """
    place = folder / "notebooks"
    if not place.exists():
        shutil.copytree(file.parent, place, ignore=shutil.ignore_patterns(".*"))
    notebook = nbformat.read(place / file.name, as_version=4)
    paths = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "WANDB_MODE": "offline"}
    resources = {"metadata": {"path": str(place)}}
    client = NotebookClient(notebook, timeout=TIMEOUT, kernel_name="python3", resources=resources)
    client.execute(env=environment)
    return notebook


def lighten(notebook: NotebookNode) -> NotebookNode:
    """Return ``notebook`` as it is stored.

    Without what differs from one execution to the next: times, and warnings of libraries, which
    name folders of this machine. Pieces of printed text are joined, and pictures get a palette.
    """
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        kept: list[NotebookNode] = []
        for output in cell.outputs:
            if output.output_type == "stream" and output.name == "stderr":
                continue
            if output.output_type == "stream" and kept and kept[-1].output_type == "stream":
                kept[-1].text += output.text
                continue
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = with_palette(output.data["image/png"])
            kept.append(output)
        cell.outputs = kept
    notebook.metadata.language_info = {"name": "python"}
    return notebook


def with_palette(picture: str) -> str:
    """Return a PNG in base64 with `COLOURS` colours: a third of its size, and hardly to be seen."""
    small = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
        # By other methods small coloured text turns grey.
        few = image.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE)
        few.save(small, "PNG", optimize=True)
    return base64.b64encode(small.getvalue()).decode("ascii")


if __name__ == "__main__":
    sys.exit(main())
