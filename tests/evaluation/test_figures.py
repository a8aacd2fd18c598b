import math

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from fovea.errors import FoveaError
from fovea.evaluation import (
    Predictions,
    plot_confusion_matrix,
    plot_learning_curves,
    plot_mistakes,
)
from fovea.evaluation.binary import precision_recall_curve, roc_curve
from fovea.evaluation.binary_plots import plot_precision_recall, plot_roc
from fovea.evaluation.calibration import reliability
from fovea.evaluation.class_plot import plot_classes
from fovea.evaluation.confidence_plots import plot_reliability, plot_selective
from fovea.evaluation.mistakes import plot_least_sure_hits
from fovea.evaluation.scores import per_class_table
from fovea.evaluation.selective import coverage_curve, least_sure_hits, worst_mistakes

AWKWARD = ["$1_{", "猫", "a" * 90, "no\nline", "\udcff bytes", ""]


def predict(n: int, k: int, seed: int = 0, names: tuple[str, ...] = ()) -> Predictions:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(k, (n,), generator=generator)
    logits = torch.randn(n, k, generator=generator)
    logits[torch.arange(n), labels] += 2.5
    names = names or tuple((AWKWARD + [f"class {i}" for i in range(k)])[:k])
    paths = tuple(f"folder/{i}.png" for i in range(n))
    return Predictions(torch.arange(n) + 100, labels, logits, paths, names)


def pixels(path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def red_area(path) -> int:
    p = pixels(path)
    return int(((p[..., 0] > 120) & (p[..., 1] < 80) & (p[..., 2] < 80)).sum())


@pytest.mark.parametrize("k", [2, 10, 100])
def test_confusion_matrix_at_many_sizes(tmp_path, k) -> None:
    plot_confusion_matrix(predict(400, k), tmp_path / "deep" / "matrix.png")
    found = pixels(tmp_path / "deep" / "matrix.png")
    blue = (found[..., 2] > 150) & (found[..., 0] < 90)
    assert blue.sum() > 50
    assert found.shape[1] < 3000


def test_confusions_are_red_and_their_absence_is_not(tmp_path) -> None:
    labels = torch.arange(200) % 4
    right = Predictions(torch.arange(200), labels, torch.eye(4)[labels])
    wrong = Predictions(
        torch.arange(200), labels, torch.eye(4)[torch.where(labels == 1, 3, labels)]
    )
    for name, predictions in (("right", right), ("wrong", wrong)):
        plot_confusion_matrix(predictions, tmp_path / f"{name}.png")
    assert red_area(tmp_path / "right.png") == 0
    assert red_area(tmp_path / "wrong.png") > 5000


def test_a_cell_of_several_classes_has_their_mean_colour(tmp_path) -> None:
    # Every class is taken for the next one, in pairs: beyond 250 classes a cell holds two of them.
    k = 252
    labels = torch.arange(k)
    guess = torch.cat([labels[: k // 2] ^ 1, labels[k // 2 :]])
    logits = torch.eye(k)[guess] * 9
    predictions = Predictions(labels, labels, logits, class_names=tuple(map(str, range(k))))
    plot_confusion_matrix(predictions, tmp_path / "m.png", np.arange(k))
    found = pixels(tmp_path / "m.png")
    matrix = found[:, : int(0.6 * found.shape[1])]  # the rest lists the confusions
    red = (matrix[..., 0] > 120) & (matrix[..., 1] < 80) & (matrix[..., 2] < 80)
    assert red.sum() == 0  # a pair is one cell, on the diagonal
    blue = (matrix[..., 2] > 120) & (matrix[..., 0] < 100)
    rows = np.flatnonzero(blue.any(axis=1))
    assert rows.min() > 0.4 * len(found)  # only the second half is recognised


@pytest.mark.parametrize(("sheet", "choose"), [
    (plot_mistakes, worst_mistakes),
    (plot_least_sure_hits, least_sure_hits),
])  # fmt: skip
def test_sheets_show_the_right_pictures_whatever_their_shape(tmp_path, sheet, choose) -> None:
    asked: list[int] = []
    shapes = [(1, 8, 8), (3, 500, 40), (3, 1, 900), (1, 2000, 1), (3, 2000, 1500)]

    def image(index: int) -> Tensor:
        asked.append(index)
        if len(asked) == 3:
            raise OSError("the file has gone")
        red = torch.full(shapes[index % 5], 200, dtype=torch.uint8)
        red[1:] = 0
        return red

    predictions = predict(150, 6)
    sheet(predictions, image, tmp_path / "m.png", 12)
    expected = predictions.indices[choose(predictions, 12)].tolist()
    assert asked == expected
    assert len(expected) == 12
    shown = pixels(tmp_path / "m.png")
    assert shown.shape[0] > 500
    painted = ((shown[..., 0] == 200) & (shown[..., 1] == 0)).sum()
    squares = sum(shapes[i % 5] == (3, 2000, 1500) for n, i in enumerate(expected) if n != 2)
    assert painted >= squares * 200 * 150


def test_no_mistakes_make_a_sheet_that_says_so(tmp_path) -> None:
    labels = torch.arange(4)
    perfect = Predictions(labels, labels, torch.eye(4))
    plot_mistakes(perfect, lambda i: torch.zeros(1, 2, 2), tmp_path / "m.png")
    assert (pixels(tmp_path / "m.png") < 100).any()


@pytest.mark.parametrize("k", [1, 10, 60])
def test_every_class_has_its_accuracy(tmp_path, k) -> None:
    table = per_class_table(predict(20 * k, k))
    if k > 1:
        table.loc[0, ["samples", "recall"]] = [0, float("nan")]
    plot_classes(table, 0.8, tmp_path / "classes.png")
    shown = pixels(tmp_path / "classes.png")
    assert ((shown[..., 2] > 140) & (shown[..., 0] < 90)).sum() > 30 * min(k, 10)


def test_over_confidence_is_red_in_the_reliability_diagram(tmp_path) -> None:
    sure = torch.tensor([[4.0, 0]]).repeat(100, 1)
    right = torch.zeros(100, dtype=torch.int64)
    half = torch.arange(100) % 2
    pale = {}
    for name, labels in (("right", right), ("half", half)):
        bins = reliability(Predictions(torch.arange(100), labels, sure))
        plot_reliability({name: bins}, tmp_path / f"{name}.png")
        shown = pixels(tmp_path / f"{name}.png")
        pale[name] = ((shown[..., 0] > 200) & (shown[..., 1] < 190)).sum()
    assert pale["right"] == 0
    assert pale["half"] > 2000


def test_curves_of_confidence_and_of_two_classes(tmp_path) -> None:
    predictions = predict(80, 2, names=("no", "yes"))
    curve = coverage_curve(predictions)
    plot_selective(curve, curve.tail(1), tmp_path / "selective.png")
    plot_roc(roc_curve(predictions), 0.9, tmp_path / "roc.png", [(0.1, 0.9, "here")])
    plot_precision_recall(precision_recall_curve(predictions), 0.9, 0.5, tmp_path / "pr.png")
    for name in ("selective", "roc", "pr"):
        shown = pixels(tmp_path / f"{name}.png")
        assert ((shown[..., 2] > 140) & (shown[..., 0] < 90)).sum() > 300
    assert red_area(tmp_path / "roc.png") > 50
    assert red_area(tmp_path / "pr.png") == 0


def write_metrics(path, epochs: int, per_epoch: int) -> None:
    lines = ["epoch,step,train/loss,lr,val/loss,val/top1,note"]
    for step in range(epochs * per_epoch):
        epoch, last = divmod(step, per_epoch)
        value = 2 * math.exp(-step / (epochs * per_epoch) * 5)
        scores = f"{value + 0.1},{1 - value / 2}" if last == per_epoch - 1 else ","
        lines.append(f"{epoch},{step},{value},{0.1},{scores},")
    lines.append(f"{epochs},{epochs * per_epoch},,,0.2,0.9,")  # evaluation after the training
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(("epochs", "per_epoch"), [(1, 1), (1, 7), (3, 4), (40, 30)])
def test_learning_curves(tmp_path, epochs, per_epoch) -> None:
    write_metrics(tmp_path / "metrics.csv", epochs, per_epoch)
    plot_learning_curves(tmp_path / "metrics.csv", tmp_path / "figures" / "curves.png")
    assert (pixels(tmp_path / "figures" / "curves.png") < 128).any()


def test_learning_curves_of_a_run_that_logged_nothing(tmp_path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,step\n")
    plot_learning_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").is_file()


@pytest.mark.parametrize("text", [None, "", "a,b\n1,2\n"])
def test_learning_curves_need_a_table(tmp_path, text) -> None:
    if text is not None:
        (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(FoveaError, match=r"metrics\.csv"):
        plot_learning_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")


def test_figures_leave_no_global_state(tmp_path) -> None:
    before = dict(matplotlib.rcParams)
    plot_confusion_matrix(predict(30, 3), tmp_path / "m.png")
    assert dict(matplotlib.rcParams) == before
