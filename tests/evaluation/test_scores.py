import numpy as np
import pytest
import torch
from sklearn import metrics as reference
from torchmetrics.functional.classification import multiclass_auroc

from fovea.errors import FoveaError
from fovea.evaluation import ClassificationMetrics, PredictionCollector, Predictions
from fovea.evaluation.auroc import macro_auroc_interval, one_vs_rest_auroc
from fovea.evaluation.intervals import normal_quantile, wilson
from fovea.evaluation.scores import per_class_table, score_intervals, summarize
from made_predictions import made, take

SIZES = [(300, 2, False), (300, 2, True), (500, 10, False), (500, 10, True), (800, 100, True)]


def numbers(predictions: Predictions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    logits = predictions.logits.double()
    return predictions.labels.numpy(), logits.softmax(1).numpy(), logits.numpy()


@pytest.mark.parametrize(("n", "k", "ties"), SIZES)
def test_scores_agree_with_sklearn(n, k, ties):
    predictions = made(n, k, ties=ties)
    scores = summarize(predictions)
    y, p, logits = numbers(predictions)
    guess = p.argmax(1)
    expected = {
        "samples": n,
        "invalid_logits": 0,
        "top1": reference.accuracy_score(y, guess),
        "balanced_accuracy": reference.balanced_accuracy_score(y, guess),
        "macro_precision": reference.precision_score(y, guess, average="macro", zero_division=0),
        "macro_f1": reference.f1_score(y, guess, average="macro"),
        "weighted_precision": reference.precision_score(
            y, guess, average="weighted", zero_division=0
        ),
        "weighted_f1": reference.f1_score(y, guess, average="weighted"),
        "nll": reference.log_loss(y, p),
        "brier": reference.brier_score_loss(y, p, scale_by_half=False, labels=range(k)),
        "macro_auroc": reference.roc_auc_score(y, p if k > 2 else p[:, 1], multi_class="ovr"),
    }
    assert {name: scores[name] for name in expected} == pytest.approx(expected, abs=1e-10)
    # The rank of the label, one by one: larger logits, and equal ones of smaller classes.
    orders = np.argsort(-logits, axis=1, kind="stable").tolist()
    ranks = [order.index(label) for order, label in zip(orders, y, strict=True)]
    assert scores["top1_error"] == pytest.approx(np.mean([rank > 0 for rank in ranks]))
    if k > 5:
        assert scores["top5"] == pytest.approx(np.mean([rank < 5 for rank in ranks]))
        assert scores["top5_error"] == pytest.approx(1 - scores["top5"])
    else:
        assert "top5" not in scores


@pytest.mark.parametrize(("n", "k", "ties"), SIZES)
def test_each_class_agrees_with_sklearn_and_torchmetrics(n, k, ties):
    predictions = made(n, k, ties=ties)
    table = per_class_table(predictions)
    y, p, _ = numbers(predictions)
    precision, recall, f1, support = reference.precision_recall_fscore_support(
        y, p.argmax(1), labels=range(k), zero_division=np.nan
    )
    never = ~np.isin(np.arange(k), p.argmax(1))
    np.testing.assert_allclose(table["precision"], np.where(never, np.nan, precision))
    np.testing.assert_allclose(table["recall"], recall)
    np.testing.assert_allclose(table["f1"], np.where(never, 0, f1))
    assert table["samples"].tolist() == support.tolist()
    auroc = [reference.roc_auc_score(y == number, p[:, number]) for number in range(k)]
    np.testing.assert_allclose(table["auroc"], auroc, atol=1e-12)
    areas = multiclass_auroc(torch.from_numpy(p), predictions.labels, k, average="none")
    np.testing.assert_allclose(table["auroc"], areas, atol=1e-6)
    low, high = wilson(table["correct"], table["samples"])
    np.testing.assert_allclose(table["recall_low"], low)
    np.testing.assert_allclose(table["recall_high"], high)
    wrong = p.argmax(1)[(y == 0) & (p.argmax(1) != 0)]
    assert table["confused"][0] == np.bincount(wrong).max()
    assert table["most_confused_with"][0] == str(np.bincount(wrong).argmax())


def test_intervals_are_those_of_scoring_every_resample():
    predictions = made(150, 4)
    predictions.logits[7] = torch.nan
    found = score_intervals(predictions, seed=4, resamples=40)
    assert set(found) <= set(summarize(predictions))
    rng = np.random.default_rng(4)
    drawn = [summarize(take(predictions, rng.integers(150, size=150))) for _ in range(40)]
    for name in ("nll", "brier", "aurc", "balanced_accuracy", "macro_precision", "macro_f1",
                 "weighted_precision", "weighted_f1"):  # fmt: skip
        values = [scores[name] for scores in drawn]
        expected = (
            np.quantile(values, [0.025, 0.975]) - np.mean(values) + summarize(predictions)[name]
        )
        assert found[name] == pytest.approx(tuple(expected), rel=1e-9), name
    right = int(predictions.correct.sum())
    assert found["top1"] == wilson(right, 150)
    assert found["top1_error"] == pytest.approx(
        (1 - found["top1"][1], 1 - found["top1"][0]), abs=1e-12
    )


def test_an_interval_lies_about_its_score_where_classes_have_few_samples():
    labels = torch.arange(1000) % 100
    logits = torch.randn(1000, 100, generator=torch.Generator().manual_seed(0))
    logits[torch.arange(1000), labels] += 3
    predictions = Predictions(torch.arange(1000), labels, logits)
    scores = summarize(predictions)
    for name, (low, high) in score_intervals(predictions, resamples=200).items():
        place = (scores[name] - low) / (high - low)
        # Plain percentiles: 0.19 for weighted_precision, 0.78 for macro_f1.
        assert 0.35 < place < 0.65, name


def test_no_interval_leaves_the_range_of_its_score():
    predictions = made(300, 3, strength=9.0)
    predictions.logits[0] = predictions.logits[0].flip(0)  # the only mistake
    assert predictions.correct.sum() == 299
    found = score_intervals(predictions, resamples=200)
    for name, (low, high) in found.items():
        assert 0 <= low < high <= (np.inf if name == "nll" else 1), name
    assert found["macro_f1"][1] == 1


def test_auroc_interval_of_two_classes_is_delongs():
    predictions = made(90, 2, ties=True)
    y, p, _ = numbers(predictions)
    ups, downs = p[y == 1, 1], p[y == 0, 1]
    kernel = (ups[:, None] > downs) + 0.5 * (ups[:, None] == downs)
    error = np.sqrt(kernel.mean(1).var(ddof=1) / len(ups) + kernel.mean(0).var(ddof=1) / len(downs))
    low, high = macro_auroc_interval(predictions)
    area = kernel.mean()
    half = normal_quantile(0.95) * error / (area * (1 - area))
    assert np.log(low / (1 - low)) == pytest.approx(np.log(area / (1 - area)) - half)
    assert np.log(high / (1 - high)) == pytest.approx(np.log(area / (1 - area)) + half)


def test_auroc_interval_of_many_classes_is_as_wide_as_the_bootstraps():
    predictions = made(600, 6, strength=1.0)
    low, high = macro_auroc_interval(predictions)
    rng = np.random.default_rng(0)
    drawn = [
        np.nanmean(one_vs_rest_auroc(take(predictions, rng.integers(600, size=600))))
        for _ in range(400)
    ]
    expected = np.quantile(drawn, [0.025, 0.975])
    assert high - low == pytest.approx(expected[1] - expected[0], rel=0.12)
    assert (low, high) == pytest.approx(tuple(expected), abs=0.004)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_scores_are_the_same_in_whatever_order_samples_came(world):
    predictions = made(203, 7)
    collectors = PredictionCollector()
    order = torch.randperm(203, generator=torch.Generator().manual_seed(world))
    for rank in range(world):  # as gathered: the samples of one rank after those of another
        for rows in order[rank::world].split(16):
            rows = torch.cat([rows, rows[:1]])  # one comes twice
            collectors.update(predictions.logits[rows], predictions.labels[rows], rows)
    found = collectors.compute()
    assert torch.equal(found.logits, predictions.logits)
    assert summarize(found) == summarize(predictions)
    assert score_intervals(found, resamples=20) == score_intervals(predictions, resamples=20)
    assert per_class_table(found).equals(per_class_table(predictions))


@pytest.mark.parametrize(
    "broken", [[torch.nan, 9, 0], [torch.inf, 0, 0], [-torch.inf] * 3, [torch.inf, torch.nan, 0]]
)
def test_a_row_without_probabilities_is_counted_and_wrong(broken):
    good = made(60, 3)
    row = torch.tensor([broken])
    logits, labels = torch.cat([row, good.logits]), torch.cat([torch.zeros(1).long(), good.labels])
    found = summarize(Predictions(torch.arange(61), labels, logits))
    expected = summarize(good)
    assert found["invalid_logits"] == 1
    assert found["top1"] == pytest.approx(expected["top1"] * 60 / 61)
    for name in ("nll", "brier", "calibration_error", "macro_auroc"):
        assert found[name] == pytest.approx(expected[name], rel=1e-12), name
    table = per_class_table(Predictions(torch.arange(61), labels, logits))
    assert table["samples"].sum() == 61
    assert table["correct"].sum() == int(good.correct.sum())
    logged = ClassificationMetrics(3)
    logged.update(logits, labels, torch.arange(61), torch.zeros(61))
    assert logged.compute()["top1"].item() == pytest.approx(found["top1"])


def test_a_class_that_was_ruled_out_is_no_fault():
    plain = made(80, 4)
    keep = plain.labels != 3
    logits = plain.logits[keep].clone()
    logits[:, 3] = -torch.inf
    masked = Predictions(torch.arange(len(logits)), plain.labels[keep], logits)
    three = Predictions(torch.arange(len(logits)), plain.labels[keep], logits[:, :3])
    found, expected = summarize(masked), summarize(three)
    assert found == pytest.approx(expected)
    assert found["invalid_logits"] == 0


def test_no_probabilities_at_all():
    found = Predictions(torch.arange(4), torch.arange(4) % 3, torch.full((4, 3), torch.nan))
    scores, intervals = summarize(found), score_intervals(found)
    assert scores["top1"] == 0
    assert scores["invalid_logits"] == 4
    assert np.isnan([scores[name] for name in ("nll", "brier", "macro_auroc")]).all()
    assert np.isnan([scores["calibration_error"], *intervals["nll"]]).all()
    assert intervals["top1"] == wilson(0, 4)


def test_one_sample_and_one_class():
    one = Predictions(torch.tensor([5]), torch.tensor([1]), torch.tensor([[0.0, 1.0]]))
    scores, intervals = summarize(one), score_intervals(one)
    assert scores["top1"] == scores["balanced_accuracy"] == scores["macro_f1"] == 1
    assert scores["nll"] == pytest.approx(np.log1p(np.exp(-1)))
    assert scores["aurc"] == 0
    assert np.isnan(scores["macro_auroc"])
    assert intervals["top1"] == wilson(1, 1)
    assert np.isnan([*intervals["nll"], *intervals["balanced_accuracy"]]).all()
    alone = Predictions(torch.arange(3), torch.zeros(3).long(), torch.zeros(3, 1))
    assert summarize(alone)["top1"] == 1
    assert len(per_class_table(alone)) == 1


def test_empty_classes_do_not_count_and_have_empty_cells():
    found = Predictions(torch.arange(2), torch.tensor([0, 1]), torch.eye(4)[[0, 0]])
    table = per_class_table(found)
    assert table["recall"].isna().tolist() == [False, False, True, True]
    assert table["precision"].isna().tolist() == [False, True, True, True]
    assert table["auroc"].isna().tolist() == [False, False, True, True]
    assert summarize(found)["balanced_accuracy"] == 0.5
    assert summarize(found)["macro_precision"] == 0.25


def test_no_sample_is_told():
    none = Predictions(torch.zeros(0).long(), torch.zeros(0).long(), torch.zeros(0, 3))
    for function in (summarize, score_intervals):
        with pytest.raises(FoveaError, match="no predictions"):
            function(none)
