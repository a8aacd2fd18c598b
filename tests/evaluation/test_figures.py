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
from fovea.evaluation.confusion import count_confusions
from fovea.evaluation.mistakes import worst_mistakes

AWKWARD = ["$1_{", "猫", "a" * 90, "no\nline", "\udcff bytes", ""]


def predict(n: int, k: int, seed: int = 0) -> Predictions:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(k, (n,), generator=generator)
    logits = torch.randn(n, k, generator=generator)
    logits[torch.arange(n), labels] += 2.5
    return Predictions(torch.arange(n) + 100, labels, logits)


def pixels(path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def red_area(path) -> int:
    p = pixels(path)
    return int(((p[..., 0] > 120) & (p[..., 1] < 80) & (p[..., 2] < 80)).sum())


@pytest.mark.parametrize("k", [2, 10, 31, 100, 300])
def test_confusion_matrix_at_many_sizes(tmp_path, k) -> None:
    names = (AWKWARD + [f"class {i}" for i in range(k)])[:k]
    plot_confusion_matrix(predict(400, k), names, tmp_path / "deep" / "matrix.png")
    found = pixels(tmp_path / "deep" / "matrix.png")
    blue = (found[..., 2] > 150) & (found[..., 0] < 90)
    assert blue.sum() > 50
    assert found.shape[1] < 3000


def test_confusion_counts_have_true_classes_in_rows() -> None:
    found = Predictions(torch.arange(3), torch.tensor([0, 0, 2]), torch.eye(3)[[1, 0, 2]])
    assert count_confusions(found).tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]


def test_confusions_are_red_and_their_absence_is_not(tmp_path) -> None:
    labels = torch.arange(200) % 4
    right = Predictions(torch.arange(200), labels, torch.eye(4)[labels])
    wrong = Predictions(
        torch.arange(200), labels, torch.eye(4)[torch.where(labels == 1, 3, labels)]
    )
    for name, predictions in (("right", right), ("wrong", wrong)):
        plot_confusion_matrix(predictions, list("abcd"), tmp_path / f"{name}.png")
    assert red_area(tmp_path / "right.png") == 0
    assert red_area(tmp_path / "wrong.png") > 5000


def test_worst_mistakes_are_the_most_confident_wrong_ones() -> None:
    logits = torch.tensor([[9.0, 0], [2, 0], [0, 5], [0, 1], [3, 0]])
    found = Predictions(torch.arange(5) * 10, torch.tensor([0, 1, 0, 0, 1]), logits)
    assert worst_mistakes(found, 3).tolist() == [2, 4, 1]


def test_mistakes_show_the_right_pictures_whatever_their_shape(tmp_path) -> None:
    asked: list[int] = []
    shapes = [(1, 8, 8), (3, 500, 40), (3, 1, 900), (1, 2000, 1), (3, 224, 224)]

    def image(index: int) -> Tensor:
        asked.append(index)
        if len(asked) == 3:
            raise OSError("the file has gone")
        return torch.full(shapes[index % 5], 200, dtype=torch.uint8)

    predictions = predict(150, 6)
    plot_mistakes(predictions, image, lambda i: f"folder/{i}.png", AWKWARD, tmp_path / "m.png", 12)
    expected = predictions.indices[worst_mistakes(predictions, 12)].tolist()
    assert asked == expected
    assert len(expected) == 12
    assert pixels(tmp_path / "m.png").shape[0] > 500


def test_no_mistakes_make_a_sheet_that_says_so(tmp_path) -> None:
    labels = torch.arange(4)
    perfect = Predictions(labels, labels, torch.eye(4))
    plot_mistakes(perfect, lambda i: torch.zeros(1, 2, 2), str, list("abcd"), tmp_path / "m.png")
    assert (pixels(tmp_path / "m.png") < 100).any()


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
    plot_confusion_matrix(predict(30, 3), list("abc"), tmp_path / "m.png")
    assert dict(matplotlib.rcParams) == before
