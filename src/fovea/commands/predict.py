"""``python src/predict.py``: a trained network on files of your own."""

from __future__ import annotations

import csv
import glob
import json
import logging
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig
from PIL import Image
from tqdm import tqdm

from fovea import console, run_folder
from fovea.data.images import FORMATS
from fovea.errors import FoveaError, did_you_mean, printable
from fovea.evaluation import as_cell
from fovea.inference import Classifier, load

log = logging.getLogger("fovea")

_SHOWN = 40


def run(cfg: DictConfig, overrides: list[str]) -> None:  # noqa: ARG001 - all commands alike
    """Print the ``top_k`` classes of each image, and write predictions.csv and predictions.jsonl.

    A file that can't be read as an image gets a row with the reason, and the command goes on.

    Raises:
        FoveaError: no such checkpoint, no images where ``input`` says, or none that is readable.
    """
    folder = Path(cfg.paths.run)
    given = list(cfg.input) if isinstance(cfg.input, ListConfig) else [cfg.input]
    files = find_images([str(item) for item in given])
    run_folder.check_writable(folder)
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    model = load(cfg.ckpt, accelerator or "cpu" if cfg.device == "auto" else cfg.device)
    rows: list[dict[str, Any]] = []
    for start in tqdm(range(0, len(files), cfg.batch_size), disable=len(files) <= cfg.batch_size):
        rows += predict_files(model, files[start : start + cfg.batch_size], cfg.top_k)
    write(folder, rows, min(cfg.top_k, len(model.class_names)))
    show(rows)
    files_written = [folder / "predictions.csv", folder / "predictions.jsonl"]
    console.print_rows([("written", console.shorten(path)) for path in files_written])
    failed = sum("error" in row for row in rows)
    if failed == len(rows):
        raise FoveaError(f"None of the {failed} files could be read as an image; see the table.")
    if failed:
        log.warning("%d of %d files could not be read as images.", failed, len(rows))


def find_images(given: list[str]) -> list[Path]:
    """Return the files that names, folders and globs in ``given`` stand for, each once, in order.

    Folders are searched to any depth for files with the suffix of an image format; a file named by
    itself is taken whatever its suffix.

    Raises:
        FoveaError: a name that stands for nothing.
    """
    suffixes = {end for end, form in Image.registered_extensions().items() if form in FORMATS}
    found: dict[Path, None] = {}
    for item in given:
        path = Path(item).expanduser()
        if path.is_dir():
            matches = sorted(p for p in path.rglob("*") if p.suffix.lower() in suffixes)
        elif path.is_file():
            matches = [path]
        else:
            names = glob.glob(str(path), recursive=True)
            matches = sorted(p for p in map(Path, names) if p.is_file())
        if not matches:
            near = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
            what = "a folder without images" if path.is_dir() else "no such file, folder or glob"
            raise FoveaError(
                f"input={item}: {what} (looked in {Path.cwd()}).{did_you_mean(path.name, near)}"
            )
        found.update(dict.fromkeys(matches))
    return list(found)


def predict_files(model: Classifier, files: list[Path], top_k: int) -> list[dict[str, Any]]:
    """Return a row for each file: its path, and its classes with probabilities or an error."""
    rows: list[dict[str, Any]] = [{"path": str(path)} for path in files]
    tensors, readable = [], []
    for row, path in zip(rows, files, strict=True):
        try:
            tensors.append(model.transform(path))
            readable.append(row)
        except FoveaError as error:
            row["error"] = getattr(error, "reason", str(error))
    if tensors:
        for row, classes in zip(readable, model.predict_tensors(tensors, top_k), strict=True):
            row["classes"] = [{"class": name, "probability": p} for name, p in classes]
    return rows


def write(folder: Path, rows: list[dict[str, Any]], top_k: int) -> None:
    """Write predictions.jsonl (a row each line) and predictions.csv (class_1, probability_1, …)."""
    with (folder / "predictions.jsonl").open("w", encoding="utf-8", errors="backslashreplace") as f:
        f.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    ranks = range(1, top_k + 1)
    header = ["path", *(f"{n}_{i}" for i in ranks for n in ("class", "probability")), "error"]
    with (folder / "predictions.csv").open(
        "w", newline="", encoding="utf-8", errors="backslashreplace"
    ) as f:
        writer = csv.writer(f)
        writer.writerow(header)
        for row in rows:
            classes = row.get("classes", [])
            cells = [x for c in classes for x in (as_cell(c["class"]), c["probability"])]
            cells += [""] * (2 * top_k - len(cells))
            writer.writerow([as_cell(row["path"]), *cells, as_cell(row.get("error", ""))])


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table of the first rows."""
    names = [printable(row["path"]) for row in rows[:_SHOWN]]
    width = max(map(len, names))
    for name, row in zip(names, rows, strict=False):
        classes = row.get("classes")
        text = (
            "  ".join(f"{c['class']} {c['probability']:.1%}" for c in classes)
            if classes
            else f"not read: {row['error']}"
        )
        log.info("%-*s  %s", width, name, text)
    if len(rows) > _SHOWN:
        log.info("… and %d more, in the files:", len(rows) - _SHOWN)
