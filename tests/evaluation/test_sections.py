"""Overviews: one row a model, links to their reports, and what else is to be shown."""

import csv

import pandas as pd
import pytest
from PIL import Image

from fovea.evaluation.sections import Section, write_overview
from fovea.evaluation.tables import as_cell, write_csv
from fovea.pages.tables import Cell, page_table

NAN = float("nan")


def test_an_overview(tmp_path):
    figure = tmp_path / "over view" / "plots" / "costs.png"
    figure.parent.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(figure)
    rows = [
        {"model": "a|b", "top1": 0.91239, "parameters": 11_170_000, "note": None},
        {"model": "<b>", "top1": NAN, "parameters": 5, "note": "=1+1"},
    ]
    files = write_overview(
        tmp_path / "over view",
        rows,
        "Two models",
        text="first\n\nsecond",
        folders=["a #1", None],
        formats={"top1": ".1%"},
        sections=[
            Section("Corruptions", pd.DataFrame({"severity": [1, 2]}), text="mCE"),
            Section("Costs", figure=figure),
        ],
        warnings=["<b> failed"],
    )
    html = files["report"].read_text(encoding="utf-8")
    assert '<a href="a%20%231/report.html">a|b</a>' in html
    assert "<b>" not in html
    assert '<td class="number" data-value="0.91239">91.2 %</td>' in html
    assert "<p>first</p>" in html
    assert "<p>second</p>" in html
    assert html.index("Corruptions</h2>") < html.index("Costs</h2>")
    assert html.count("data:image/png;base64,") == 1
    markdown = files["report_markdown"].read_text(encoding="utf-8")
    assert "| [a\\|b](a%20%231/report.md) | 91.2 % | 11,170,000 | – |" in markdown
    assert "| \\<b\\> | – | 5 | =1+1 |" in markdown
    assert "![costs](plots/costs.png)" in markdown
    table = list(csv.DictReader(files["table"].open(encoding="utf-8")))
    assert [row["note"] for row in table] == ["", "'=1+1"]


def test_an_overview_of_nothing(tmp_path):
    files = write_overview(tmp_path, [], "No models")
    assert "No models" in files["report"].read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("value", "spec", "text"),
    [
        (0.123456, None, "0.1235"),
        (1.8e9, None, "1,800,000,000"),
        (1234, None, "1,234"),
        (0.5, ".0%", "50 %"),
        (True, None, "yes"),
        (float("inf"), None, "inf"),
        (NAN, ".1%", "–"),
        (None, None, "–"),
        (pd.NaT, None, "–"),
        ("\x1b[31mred", None, r"\x1b[31mred"),
        (Cell("shown", 3.0), None, "shown"),
    ],
)
def test_how_a_cell_is_written(value, spec, text):
    table = page_table(pd.DataFrame({"a": pd.Series([value], dtype=object)}), {"a": spec or ""})
    assert table.rows[0][0].text == text


def test_a_column_of_numbers_with_gaps_is_one_of_numbers():
    frame = pd.DataFrame({"a": [1.5, NAN], "b": ["x", None], "c": [None, None]}, dtype=object)
    assert page_table(frame).numeric == [True, False, False]


@pytest.mark.parametrize("text", ["=1", "+x", "-x", "@x", "\tx", "\rx"])
def test_a_spreadsheet_does_not_run_a_cell(text, tmp_path):
    assert as_cell(text) == f"'{text}"
    path = write_csv(pd.DataFrame({text: ["-1.5", text, "plain", None]}), tmp_path / "t.csv")
    cells = [row[0] for row in csv.reader(path.open(newline="", encoding="utf-8")) if row]
    written = f"'{text}".replace("\r", r"\r")
    assert cells[:4] == [written, "-1.5", written, "plain"]
