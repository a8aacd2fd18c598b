"""The notebooks run from a fresh clone, in any order, and show what they promise."""

import re
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from execute_notebooks import MOST_BYTES, execute, lighten  # noqa: E402

# How many pictures, and what has to be among the printed text and the tables.
PROMISED = {
    "01_first_run": (
        3,
        ["64 images a step", r"test_resnet \(timm\)", "epoch 5/5", r"drawn_7\.png"],
    ),
    "02_explore_runs": (
        3,
        [
            "6 runs",
            "val/top1 std",
            "optimizer.lr +[01]",
            "python src/train.py data=digits",
            "PROJECT",
        ],
    ),
    "03_inside_a_model": (
        7,
        ["'samples': 359", "calibrated", "defocus", "stem..layer4 frozen", "lr of head"],
    ),
}


def shown(notebook):
    """Return the number of pictures, and all text that was printed or shown as a table."""
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    data = [output.get("data", {}) for output in outputs]
    texts = [output.get("text", "") for output in outputs]
    texts += [d.get("text/html", d.get("text/plain", "")) for d in data]
    return sum("image/png" in d for d in data), "\n".join(texts)


def check(name, notebook):
    pictures, text = shown(notebook)
    assert pictures == PROMISED[name][0]
    for pattern in PROMISED[name][1]:
        assert re.search(pattern, text), f"{name} does not show {pattern!r}:\n{text}"


def test_all_notebooks_are_known():
    assert {file.stem for file in (ROOT / "notebooks").glob("*.ipynb")} == set(PROMISED)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROMISED)
def test_runs_from_a_fresh_clone(name, tmp_path):
    notebook = execute(ROOT / "notebooks" / f"{name}.ipynb", tmp_path)
    check(name, notebook)
    check(name, lighten(notebook))
    # Beside the copy are its runs alone.
    assert {path.name for path in tmp_path.iterdir()} == {"notebooks", "outputs"}
    assert {path.name for path in (tmp_path / "outputs").iterdir()} == {"notebooks"}


@pytest.mark.parametrize("name", PROMISED)
def test_what_is_stored_shows_it_and_is_light(name):
    file = ROOT / "notebooks" / f"{name}.ipynb"
    text = file.read_text(encoding="utf-8")
    assert len(text) < MOST_BYTES
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    check(name, notebook)
    assert not any(o.output_type == "error" for c in notebook.cells for o in c.get("outputs", []))
    # Neither folders nor warnings of the machine it was executed on.
    assert not re.search(r"/(home|root|tmp|Users|work)/|site-packages|Warning", shown(notebook)[1])
