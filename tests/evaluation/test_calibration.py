import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from statsmodels.stats.proportion import proportion_confint
from torch.nn.functional import cross_entropy
from torchmetrics.functional.classification import multiclass_calibration_error

from fovea.errors import FoveaError
from fovea.evaluation import Predictions
from fovea.evaluation.calibration import (
    calibration_error,
    fit_temperature,
    max_calibration_error,
    reliability,
    with_temperature,
)
from fovea.evaluation.scores import summarize
from made_predictions import made


@pytest.mark.parametrize("k", [2, 10, 100])
@pytest.mark.parametrize("ties", [False, True])
def test_calibration_errors_agree_with_torchmetrics(k, ties):
    predictions = made(700, k, ties=ties)
    table = reliability(predictions)
    p = predictions.logits.double().softmax(1)
    expected = {
        norm: multiclass_calibration_error(p, predictions.labels, k, n_bins=15, norm=norm).item()
        for norm in ("l1", "max")
    }
    assert calibration_error(table) == pytest.approx(expected["l1"], abs=1e-6)  # float32
    assert max_calibration_error(table) == pytest.approx(expected["max"], abs=1e-6)
    assert summarize(predictions)["calibration_error"] == calibration_error(table)


def test_reliability_by_hand():
    # 0.6, 0.8, 0.8, 1.0 in five bins; an upper edge belongs to the bin below it.
    p = torch.tensor([[0.6, 0.4], [0.8, 0.2], [0.2, 0.8], [1.0, 0.0]], dtype=torch.float64)
    found = Predictions(torch.arange(4), torch.tensor([0, 0, 0, 0]), torch.zeros(4, 2))
    found.__dict__["confidence"] = p.amax(1)
    found.__dict__["ranks"] = torch.tensor([0, 0, 1, 0])
    table = reliability(found, bins=5)
    assert table["samples"].tolist() == [0, 0, 1, 2, 1]
    assert table["accuracy"].tolist()[2:] == [1.0, 0.5, 1.0]
    assert table["confidence"].tolist()[2:] == pytest.approx([0.6, 0.8, 1.0])
    assert table["accuracy"].isna().tolist() == [True, True, False, False, False]
    bounds = proportion_confint(1, 2, method="wilson")
    assert (table["accuracy_low"][3], table["accuracy_high"][3]) == pytest.approx(bounds)
    assert calibration_error(table) == pytest.approx((0.4 + 2 * 0.3 + 0) / 4)
    assert max_calibration_error(table) == pytest.approx(0.4)


def test_adaptive_bins_hold_as_many_samples_each():
    predictions = made(150, 5)
    table = reliability(predictions, adaptive=True)
    assert table["samples"].tolist() == [10] * 15
    order = predictions.confidence.argsort()
    gaps = [
        abs(predictions.confidence[rows].mean() - predictions.correct[rows].double().mean())
        for rows in order.split(10)
    ]
    assert calibration_error(table) == pytest.approx(float(torch.stack(gaps).mean()))


def test_equal_confidences_share_an_adaptive_bin():
    same = Predictions(torch.arange(40), torch.arange(40) % 4, torch.eye(4)[[0] * 40])
    table = reliability(same, adaptive=True)
    assert sorted(table["samples"])[-2:] == [0, 40]
    confidence = np.e / (np.e + 3)
    assert calibration_error(table) == pytest.approx(confidence - 0.25)


@pytest.mark.parametrize("k", [2, 10, 100])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 40.0])
def test_temperature_has_the_least_nll(k, scale):
    val = made(400, k)
    val.logits.mul_(scale)

    def nll(log_temperature: float) -> float:
        logits = val.logits.double() / np.exp(log_temperature)
        return cross_entropy(logits, val.labels).item()

    around = np.log(scale)
    best = minimize_scalar(nll, bounds=(around - 4, around + 4), options={"xatol": 1e-9})
    found = fit_temperature(val)
    assert found == pytest.approx(np.exp(best.x), rel=1e-5)
    before, after = summarize(val), summarize(with_temperature(val, found))
    assert after["nll"] == pytest.approx(best.fun, rel=1e-6)
    assert after["nll"] <= before["nll"]
    assert after["top1"] == before["top1"]


def test_temperature_where_there_is_none():
    labels = torch.arange(30) % 3
    right, wrong = torch.eye(3)[labels], -torch.eye(3)[labels]
    for logits in (right, wrong, torch.zeros(30, 3), torch.full((30, 3), torch.nan)):
        assert fit_temperature(Predictions(torch.arange(30), labels, logits)) is None
    one = Predictions(torch.arange(1), torch.arange(1), torch.tensor([[0.0, 1.0]]))
    assert fit_temperature(one) is None
    none = Predictions(torch.zeros(0).long(), torch.zeros(0).long(), torch.zeros(0, 3))
    with pytest.raises(FoveaError, match="no predictions"):
        fit_temperature(none)


def test_temperature_leaves_out_rows_and_classes_that_have_no_probability():
    val = made(200, 4)
    expected = fit_temperature(val)
    more = torch.tensor([[torch.nan, 0, 0, 0], [-torch.inf, 0, 1, 2], [torch.inf, 0, 0, 0]])
    ruled_out = torch.cat([val.logits, torch.full((200, 1), -torch.inf)], dim=1)
    more = torch.cat([more, torch.zeros(3, 1)], dim=1)
    found = Predictions(
        torch.arange(203),
        torch.cat([val.labels, torch.zeros(3).long()]),
        torch.cat([ruled_out, more]),
    )
    assert fit_temperature(found) == pytest.approx(expected, rel=1e-6)


def test_one_sure_mistake_among_sure_hits_is_a_finite_temperature():
    labels = torch.arange(100) % 2
    logits = 1000 * torch.eye(2)[labels]
    labels[0] = 1 - labels[0]
    found = fit_temperature(Predictions(torch.arange(100), labels, logits))
    assert found == pytest.approx(1000 / np.log(99), rel=1e-5)  # the NLL of 99 % is the least


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_no_temperature(temperature):
    with pytest.raises(ValueError, match="temperature="):
        with_temperature(made(20, 3), temperature)
