"""Mean corruption error by hand, tables and pictures, accuracy with several right labels."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from statsmodels.stats.proportion import proportion_confint

from fovea.data.corruptions import CORRUPTIONS, GROUPS, SEVERITIES
from fovea.evaluation import Predictions
from fovea.evaluation.corruption_error import (
    ALEXNET_ERRORS,
    corruption_scores,
    corruption_table,
    measured_row,
)
from fovea.evaluation.corruption_report import write_corruptions
from fovea.evaluation.real_accuracy import real_accuracy

GROUP_OF = {name: group for group, names in GROUPS.items() for name in names}


def predictions(predicted, labels, num_classes=4):
    logits = torch.nn.functional.one_hot(torch.tensor(predicted), num_classes).float()
    return Predictions(torch.arange(len(labels)), torch.tensor(labels), logits)


def table(error_of, models=("net",), names=CORRUPTIONS, severities=SEVERITIES, unlike=""):
    rows = [
        {"model": model, "group": GROUP_OF.get(name, "clean"), "corruption": name, "severity": s,
         "samples": 100, "error": error_of(model, name, s), "top1": 1 - error_of(model, name, s)}
        for model in models
        for name, s in [("clean", 0), *((n, s) for n in names for s in severities)]
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(unlike_imagenet_c=unlike, made_here=True)


def test_mce_is_the_formula_of_the_paper():
    def error(model, name, severity):
        return 0.02 * CORRUPTIONS.index(name) + 0.1 * severity if name != "clean" else 0.25

    found = corruption_table(table(error)).iloc[0]
    by_hand = []
    for name in CORRUPTIONS:  # CE_c = sum_s E_sc / sum_s E_sc of AlexNet, in section 4.1
        ours = sum(error("net", name, s) for s in (1, 2, 3, 4, 5))
        by_hand.append(ours / (5 * ALEXNET_ERRORS[name]))
        assert found[name] == pytest.approx(by_hand[-1])
    assert found["mce"] == pytest.approx(sum(by_hand) / 15)
    assert found["clean_error"] == 0.25


def test_alexnet_itself_has_an_mce_of_1():
    assert list(ALEXNET_ERRORS) == list(CORRUPTIONS)
    measured = table(lambda _, name, s: ALEXNET_ERRORS.get(name, 0.435) + (s - 3) * 0.01)
    assert corruption_table(measured).iloc[0]["mce"] == pytest.approx(1)


def test_without_all_that_an_mce_takes_errors_are_not_divided():
    def error(model, name, severity):
        return 0.1 * severity

    some = corruption_table(table(error, names=("fog", "snow")))
    assert list(some) == ["model", "clean_error", "mean_ce", "fog", "snow"]
    assert some["fog"][0] == pytest.approx(0.3 / ALEXNET_ERRORS["fog"])
    for measured in (table(error, severities=(1, 3)), table(error, unlike="a word")):
        found = corruption_table(measured).iloc[0]
        expected = measured.loc[measured["corruption"] != "clean", "error"].mean()
        assert found["mean_error"] == pytest.approx(expected)
        assert "mce" not in found
        assert found["fog"] == pytest.approx(expected)


def test_no_mce_where_severities_differ_between_corruptions(tmp_path):
    measured = table(lambda _, name, s: 0.1 * s)
    kept = (measured["corruption"] == "gaussian_noise") | (measured["severity"] < 2)
    found = corruption_table(measured[kept]).iloc[0]
    assert "mce" not in found
    assert found["gaussian_noise"] == pytest.approx(0.3)
    assert found["mean_error"] == pytest.approx((0.3 + 14 * 0.1) / 15)
    text = write_corruptions(tmp_path, measured[kept])[0].text
    assert "severities differ between corruptions" in text


def test_models_are_compared_on_what_all_of_them_have(tmp_path):
    measured = table(lambda model, name, s: 0.1 * s, ("a", "b"), ("fog", "snow"))
    lacks = (
        (measured["model"] == "b") & (measured["corruption"] == "fog") & measured["severity"].gt(3)
    )
    found = corruption_table(measured[~lacks]).set_index("model")
    assert found["fog"].tolist() == pytest.approx([0.2, 0.2])  # of severities 1 to 3
    assert found["mean_error"].tolist() == pytest.approx([0.25, 0.25])
    assert "Not every model has" in write_corruptions(tmp_path, measured[~lacks])[0].text
    alone = measured[(measured["model"] == "a") | (measured["corruption"] == "clean")]
    nothing = corruption_table(alone)  # nothing in common: no mean, and no crash
    assert nothing["mean_error"].isna().all()
    write_corruptions(tmp_path, alone)


def test_scores_of_one_model_by_name():
    scores = corruption_scores(table(lambda _, name, s: 0.1 * s, unlike="a word"))
    assert scores["mean_corruption_error"] == pytest.approx(0.3)
    assert scores["error_fog"] == pytest.approx(0.3)
    scores = corruption_scores(table(lambda _, name, s: ALEXNET_ERRORS.get(name, 0)))
    assert scores["mce"] == pytest.approx(1)
    assert scores["error_fog"] == pytest.approx(ALEXNET_ERRORS["fog"])


def test_rows_count_and_have_wilsons_interval():
    row = measured_row(predictions([0, 1, 2, 3], [0, 1, 2, 0]), "net", "noise", "shot_noise", 2)
    assert (row["samples"], row["top1"], row["error"]) == (4, 0.75, 0.25)
    bounds = proportion_confint(3, 4, method="wilson")
    assert (row["top1_low"], row["top1_high"]) == pytest.approx(bounds)


@pytest.mark.parametrize("models", [("net",), ("b", "a")])
def test_files_and_sections(tmp_path, models):
    measured = table(lambda m, name, s: min(0.9, 0.1 + 0.1 * s + (m == "a") * 0.05), models)
    sections = write_corruptions(tmp_path, measured)
    back = pd.read_csv(tmp_path / "corruptions.csv")
    assert back["model"].tolist() == list(models)
    assert list(back)[:3] == ["model", "clean_error", "mce"]
    assert list(back)[3:] == list(CORRUPTIONS)
    assert len(pd.read_csv(tmp_path / "corruptions_by_severity.csv")) == 76 * len(models)
    assert list(sections[0].table)[3:6] == ["noise: gaussian", "noise: shot", "noise: impulse"]
    assert "the mCE is their mean" in sections[0].text
    assert "made on the fly" in sections[0].text
    pixels = np.array(Image.open(sections[1].figure).convert("RGB"))
    assert pixels.std() > 10  # something is drawn


def test_what_the_section_says_where_there_is_no_mce(tmp_path):
    measured = table(lambda *_: 0.5, severities=(1, 3), unlike="these images are not ImageNet's")
    measured["made_here"] = False
    text = write_corruptions(tmp_path, measured)[0].text
    assert "severities 1, 3" in text
    assert "these images are not ImageNet's" in text
    assert "on the fly" not in text


def test_real_accuracy_by_hand():
    found = predictions([0, 1, 2, 3, 3], [0, 0, 0, 0, 0])
    right = [{0}, {2, 1}, {0}, set(), {3}]
    scores = real_accuracy(found, right)
    assert scores["real_samples"] == 4  # the fourth has no label
    assert scores["real_top1"] == 0.75
    found.logits[4] = torch.nan  # counts as wrong
    assert real_accuracy(found.select(torch.arange(5)), right)["real_top1"] == 0.5
    assert np.isnan(real_accuracy(found, [set()] * 5)["real_top1"])
