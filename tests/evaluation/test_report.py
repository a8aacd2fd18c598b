import csv
import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix, roc_auc_score

from fovea.errors import FoveaError
from fovea.evaluation import Predictions, write_report
from fovea.evaluation.calibration import fit_temperature
from fovea.evaluation.findings import usable_val
from fovea.evaluation.sections import Section

NAN = float("nan")
AWKWARD = (
    "<script>alert(1)</script>",
    "=cmd|'/c calc'!A1",
    "a|b",
    "🐈",
    "שלום",
    "x" * 200,
    "\udcff bytes",
    "new\nline",
    "$1_{",
    '" onload="x',
    "",
    "[l](javascript:x)",
)


class Page(HTMLParser):
    """What a browser makes of a page: its text, its tables, what it would load and where it leads.

    Fails at a tag that is not closed, or closed twice.
    """

    VOID = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self, path):
        super().__init__()
        self.open, self.text, self.images, self.links, self.tables, self.scripts = (
            [] for _ in range(6)
        )
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        assert not [name for name in attrs if name.startswith("on")]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(attrs["src"])
        elif tag == "a":
            self.links.append(attrs["href"])
        elif tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in {"td", "th"}:
            self.tables[-1][-1].append("")
        elif tag == "script":
            assert "src" not in attrs
            self.scripts.append(attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in {"script", "style"}:
            return
        self.text.append(data)
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data

    def rows(self, head):
        """Return the rows below the table whose first row begins with ``head``."""
        for table in self.tables:
            if table[0][: len(head)] == head:
                return table[1:]
        raise AssertionError(f"no table with {head}: {[table[0] for table in self.tables]}")


def predict(n, k, seed=1, names=(), **about):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(k, (n,), generator=generator)
    logits = 2 * torch.randn(n, k, generator=generator)
    logits[torch.arange(n), labels] += 4
    names = names or tuple(f"name {i}" for i in range(k))
    paths = tuple(f"images/{i}.png" for i in range(n))
    return Predictions(torch.arange(n), labels, logits, paths, names, about)


def image(index):
    return torch.full((3 if index % 2 else 1, 16, 16), index % 255, dtype=torch.uint8)


def numbers(files):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(files["metrics"].read_text(), parse_constant=refuse)


def test_a_whole_report(tmp_path):
    predictions = predict(300, 7, split="test", run="run_1", ckpt="best.ckpt", unreadable=["x"])
    val = predict(200, 7, seed=2, split="val")
    stale = tmp_path / "report" / "roc.png"
    stale.parent.mkdir()
    stale.write_text("of an earlier report")
    files = write_report(
        tmp_path / "report",
        predictions,
        val=val,
        images_of=image,
        metrics={"test/loss": 0.5, "test/top5": NAN},
        cost={"parameters": 11_170_000, "latency_ms": 1.25},
        sections=[Section("What was added", pd.DataFrame({"a": [1, NAN]}), text="in words")],
    )
    figures = {
        "classes", "confusion_matrix", "reliability", "accuracy_by_confidence", "mistakes",
        "least_sure_hits",
    }  # fmt: skip
    tables = {"report", "report_markdown", "metrics", "per_class", "predictions"}
    assert set(files) == tables | figures
    assert {path.name for path in (tmp_path / "report").iterdir()} == {
        path.name for path in files.values()
    }
    for name in figures:
        with Image.open(files[name]) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 300

    scores = numbers(files)
    right = predictions.predicted == predictions.labels
    assert scores["top1"] == pytest.approx(right.double().mean().item())
    assert scores["test/loss"] == 0.5
    assert scores["test/top5"] is None
    assert scores["temperature"] == pytest.approx(fit_temperature(val))
    assert scores["about"]["run"] == "run_1"
    low, high = scores["intervals"]["top1"]
    assert low < scores["top1"] < high

    page = Page(files["report"])
    text = "".join(page.text)
    assert "run_1 on test" in text
    assert "1 files could not be read" in text
    assert len(page.images) == len(figures)
    assert all(source.startswith("data:image/png;base64,") for source in page.images)
    top1 = next(row for row in page.rows(["score", "value"]) if row[0] == "top1")
    assert top1[1] == f"{100 * scores['top1']:.2f} %"
    assert top1[2:4] == [f"{100 * low:.2f} %", f"{100 * high:.2f} %"]
    assert any(["parameters", "11,170,000"] in table for table in page.tables)
    assert page.rows(["a"]) == [["1"], ["–"]]

    markdown = files["report_markdown"].read_text(encoding="utf-8")
    for name in figures:
        assert f"]({name}.png)" in markdown
    assert "| ckpt | best.ckpt |" in markdown
    assert "data:" not in markdown


def test_tables_of_classes_and_predictions_say_what_was_predicted(tmp_path):
    predictions = predict(300, 7, split="val")
    files = write_report(tmp_path, predictions)
    rows = list(csv.DictReader(files["predictions"].open(encoding="utf-8")))
    assert len(rows) == 300
    assert rows[5]["path"] == "images/5.png"
    assert rows[5]["label"] == f"name {predictions.labels[5]}"
    assert rows[5]["prediction"] == f"name {predictions.predicted[5]}"
    sure = predictions.logits[5].softmax(dim=0).max().item()
    assert float(rows[5]["probability"]) == pytest.approx(sure, abs=1e-5)
    assert sum(row["correct"] == "True" for row in rows) == int(predictions.correct.sum())
    matrix = confusion_matrix(predictions.labels, predictions.predicted)
    classes = pd.read_csv(files["per_class"])
    assert classes["correct"].tolist() == np.diag(matrix).tolist()
    page = Page(files["report"])
    shown = page.rows(["class", "name", "samples", "accuracy"])
    assert [row[2] for row in shown] == [str(n) for n in matrix.sum(axis=1)]
    assert [row[3] for row in shown] == [
        f"{100 * share:.2f} %" for share in np.diag(matrix) / matrix.sum(axis=1)
    ]
    np.fill_diagonal(matrix, 0)
    pairs = page.rows(["true", "predicted", "count"])
    assert int(pairs[0][2]) == matrix.max()
    # The val split is what would be fitted on: not a warning, but said.
    assert "This is the val split itself" in "".join(page.text)
    assert numbers(files)["warnings"] == [
        "The images were not at hand, so the sheets of pictures are left out."
    ]
    assert "mistakes" not in files


def test_two_classes_have_roc_and_a_threshold_from_val(tmp_path):
    predictions = predict(200, 2, names=("healthy", "ill"), split="test")
    val = predict(300, 2, seed=3, split="val")
    val = Predictions(val.indices, val.labels, val.logits, (), ("healthy", "ill"), val.about)
    files = write_report(tmp_path, predictions, val=val)
    found = numbers(files)["binary"]
    score = predictions.logits.double().softmax(dim=1)[:, 1].numpy()
    truth = predictions.labels.numpy()
    assert found["auroc"] == pytest.approx(roc_auc_score(truth, score))
    called = score >= found["threshold"]
    counts = confusion_matrix(truth, called)
    page = Page(files["report"])
    assert page.rows(["", "called ill", "called healthy"]) == [
        ["truly ill", str(counts[1, 1]), str(counts[1, 0])],
        ["truly healthy", str(counts[0, 1]), str(counts[0, 0])],
    ]
    sensitivity = page.rows(["at the threshold"])[0]
    assert sensitivity[1] == f"{100 * counts[1, 1] / counts[1].sum():.2f} %"
    # On val itself no other threshold has a larger sum of sensitivity and specificity.
    val_score = val.logits.double().softmax(dim=1)[:, 1].numpy()

    def youden(threshold):
        table = confusion_matrix(val.labels, val_score >= threshold)
        return table[1, 1] / table[1].sum() + table[0, 0] / table[0].sum()

    assert youden(found["threshold"]) == pytest.approx(max(map(youden, val_score)))
    assert {"roc", "precision_recall"} <= set(files)


def test_names_can_do_no_harm(tmp_path):
    predictions = predict(60, 12, names=AWKWARD, split=AWKWARD[0], ckpt=AWKWARD[6])
    paths = tuple(f"{AWKWARD[i % 12]}/{AWKWARD[i % 12]}{i}" for i in range(60))
    predictions = Predictions(
        predictions.indices, predictions.labels, predictions.logits, paths, AWKWARD,
        predictions.about,
    )  # fmt: skip
    files = write_report(tmp_path, predictions, images_of=image)
    page = Page(files["report"])
    assert len(page.scripts) == 1  # the sorting of tables
    assert sorted(page.links)[-1] == "per_class.csv"
    assert all(link.startswith("#") for link in page.links if link != "per_class.csv")
    names = [row[1] for row in page.rows(["class", "name"])]
    assert names[:6] == list(AWKWARD[:6])
    assert names[6] == r"\udcff bytes"
    markdown = files["report_markdown"].read_text(encoding="utf-8")
    assert not re.search(r"(?<!\\)<script", markdown)
    assert not re.search(r"(?<!\\)\]\(javascript", markdown)
    line = next(line for line in markdown.splitlines() if line.startswith("| 2 | a"))
    assert line.startswith(r"| 2 | a\|b |")
    rows = list(csv.DictReader(files["per_class"].open(encoding="utf-8")))
    assert rows[1]["name"] == "'=cmd|'/c calc'!A1"
    assert rows[7]["name"] == "new\nline"
    assert len(list(csv.DictReader(files["predictions"].open(encoding="utf-8")))) == 60


def few(labels, logits, **about):
    labels = torch.tensor(labels)
    return Predictions(
        torch.arange(len(labels)), labels, torch.as_tensor(logits, dtype=torch.float32), about=about
    )


STRANGE = {
    "diverged": (few([0, 1, 2], [[NAN] * 3] * 3), ["no numbers (NaN or infinity) for 3 of 3"]),
    "single": (few([1], [[0.0, 1, 2]]), ["There is a single sample"]),
    "one class": (few([0, 0], [[1.0], [2.0]]), ["There is only one class"]),
    "one of two": (few([1, 1], [[0.0, 1]] * 2), ["All samples are of one class, '1'"]),
    "absent": (
        few([0, 1], torch.eye(40)[:2], duplicates=1),
        [
            "38 of 40 classes have no sample: '2', '3', '4', '5', '6' and 33 more",
            "near-duplicate",
            "There are no predictions of the val split",
            "only 2 samples",
        ],
    ),
}


@pytest.mark.parametrize("case", STRANGE)
def test_strange_predictions_get_a_report_that_says_so(tmp_path, case):
    predictions, words = STRANGE[case]
    files = write_report(tmp_path, predictions)
    text = "".join(Page(files["report"]).text)
    for some in words:
        assert any(some in warning for warning in numbers(files)["warnings"])
        assert some in text
        assert some in files["report_markdown"].read_text(encoding="utf-8")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("k", [2, 7])
def test_nan_and_infinite_logits_make_a_report_without_a_warning_of_numpy(tmp_path, k):
    predictions, val = predict(120, k, split="test"), predict(90, k, seed=2)
    for some in (predictions, val):
        labels = some.labels
        some.logits[3] = NAN
        some.logits[4, 1] = torch.inf
        some.logits[5] = -torch.inf
        some.logits[6, labels[6]] = -torch.inf  # the loss is infinite
        some.logits[7, (labels[7] + 1) % k] = -torch.inf
    files = write_report(tmp_path, predictions, val=val, images_of=image)
    found = numbers(files)
    assert found["invalid_logits"] == 3
    assert found["nll"] is None
    assert found["intervals"]["nll"] == [None, None]
    assert found["temperature"] > 0
    page = Page(files["report"])
    assert next(row for row in page.rows(["score"]) if row[0] == "nll")[1:4] == ["inf", "–", "–"]


def test_where_val_allows_no_temperature_and_no_threshold_none_is_given(tmp_path):
    labels, right = torch.arange(60) % 2, torch.eye(2)[torch.arange(60) % 2]
    for word, logits in {"all its samples are right": right, "than guessing": -right}.items():
        val = Predictions(torch.arange(60), labels, logits)
        files = write_report(tmp_path, predict(80, 2, names=("0", "1"), split="test"), val=val)
        found, text = numbers(files), "".join(Page(files["report"]).text)
        assert "No temperature was fitted" in text
        assert word in text
        assert "temperature" not in found
        assert "calibrated" not in found
        assert found["binary"]["threshold"] == pytest.approx(
            0.5 if word == "than guessing" else 0.731, abs=1e-3
        )


def test_a_val_split_that_does_not_fit_is_not_used(tmp_path):
    predictions = few([0, 1, 1], [[2.0, 1], [0, 1], [1, 0]], split="test", fingerprint="f")
    for words, val in {
        "of other classes": few([0, 1], torch.eye(3)[:2]),
        "has the images of this one": few([0, 1], torch.eye(2), fingerprint="f"),
        "no predictions of the val split": few([], torch.zeros(0, 2)),
    }.items():
        used, without = usable_val(val, predictions)
        assert used is None
        assert words in without
    one_sided = few([0, 0], [[2.0, 1], [0, 1]])
    assert usable_val(one_sided, predictions) == (one_sided, "")
    files = write_report(tmp_path, predictions, val=one_sided)
    assert "There is no sample of the class '1'" in "".join(Page(files["report"]).text)
    assert numbers(files)["binary"]["threshold"] == 0.5


def test_nothing_to_report_is_an_error(tmp_path):
    with pytest.raises(FoveaError, match="nothing to report"):
        write_report(tmp_path, few([], torch.zeros(0, 3)))


@pytest.mark.slow
def test_many_classes(tmp_path):
    names = tuple(f"class {i}" for i in range(300))
    files = write_report(
        tmp_path, predict(3000, 300, names=names), val=predict(600, 300, 2, names), images_of=image
    )
    page = Page(files["report"])
    assert len(page.rows(["class", "name"])) == 300
    assert len(page.rows(["true", "predicted"])) == 30
    classes = pd.read_csv(files["per_class"])
    assert sorted(classes["confusion_place"]) == list(range(300))
    assert "250 more rows are in [per_class.csv](per_class.csv)" in (
        files["report_markdown"].read_text(encoding="utf-8")
    )
    with Image.open(files["confusion_matrix"]) as picture:
        assert max(picture.size) < 3000
