"""Tables for programs: CSV files that a spreadsheet opens without running what is in them."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from fovea.errors import printable
from fovea.evaluation.predictions import Predictions


def as_cell(text: str) -> str:
    """Return ``text`` for a cell of a table, with ``'`` in front of what a spreadsheet would run.

    A class called ``=HYPERLINK(…)`` is a formula to it. Numbers such as "-1" stay as they are.

    Source: OWASP, "CSV Injection".
    """
    if not text.startswith(("=", "+", "-", "@", "\t", "\r")):
        return text
    return text if re.fullmatch(r"[+-]?\d+(\.\d+)?", text) else f"'{text}"


def write_csv(table: pd.DataFrame, path: Path | str) -> Path:
    r"""Write ``table`` without its index to ``path``, and return that.

    Control characters, and bytes that are no text, are written as ``\r`` and ``\udcff``: a
    carriage return would begin a row, whose first cell nobody has looked at.
    """
    cells = table.copy()
    for name in table.select_dtypes(exclude=["number", "bool"]):
        cells[name] = [
            printable(as_cell(value)) if isinstance(value, str) else value
            for value in table[name].tolist()
        ]
    cells.columns = [printable(as_cell(str(name))) for name in table.columns]
    cells.to_csv(path, index=False)
    return Path(path)


def predictions_table(predictions: Predictions) -> pd.DataFrame:
    """Return a row a sample: ``path, label, prediction, probability, correct``, classes by name.

    Without paths their place is taken by the indices. A row that is not ``valid`` has no prediction
    and no probability.
    """
    names = predictions.names
    guesses = predictions.predicted.where(predictions.valid, -1).tolist()
    return pd.DataFrame(
        {
            "path": predictions.sample_names,
            "label": [names[label] for label in predictions.labels.tolist()],
            "prediction": [names[guess] if guess >= 0 else "" for guess in guesses],
            "probability": predictions.confidence.numpy().round(6),
            "correct": predictions.correct.numpy(),
        }
    )
