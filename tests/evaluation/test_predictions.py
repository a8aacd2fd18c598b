import dataclasses
import json
import os
import zipfile

import numpy as np
import pytest
import torch

from fovea import run_folder
from fovea.errors import FoveaError
from fovea.evaluation import PredictionCollector, Predictions
from made_predictions import made


def test_collector_sorts_drops_padding_and_keeps_each_sample_once() -> None:
    collector = PredictionCollector()
    logits = torch.arange(18.0).reshape(6, 3).to(torch.bfloat16)
    labels = torch.tensor([2, 1, 0, 0, 1, 2])
    collector.update(logits[:3], labels[:3], torch.tensor([7, -1, 3]))
    collector.update(logits[3:], labels[3:], torch.tensor([3, 0, -5]))
    found = collector.compute()
    assert found.indices.tolist() == [0, 3, 7]
    assert found.labels.tolist() == [1, 0, 2]
    assert found.logits.tolist() == [[12, 13, 14], [6, 7, 8], [0, 1, 2]]
    assert found.logits.dtype == torch.float32
    collector.reset()
    collector.update(logits[:1], labels[:1], torch.tensor([4]))
    assert collector.compute().logits.shape == (1, 3)
    assert collector.compute().labels.shape == (1,)


def test_collector_may_see_only_padding() -> None:
    collector = PredictionCollector()
    collector.update(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), torch.tensor([-1, -1]))
    assert collector.compute().logits.shape == (0, 3)


def test_top_k_probabilities_and_ties() -> None:
    logits = torch.tensor([[0.0, 2.0, 2.0], [1.0, 1.0, 1.0]])
    found = Predictions(torch.arange(2), torch.tensor([2, 0]), logits)
    probabilities, classes = found.top_k(2)
    assert classes.tolist() == [[1, 2], [0, 1]]
    e = np.exp(2.0)
    assert probabilities[0].tolist() == pytest.approx([e / (1 + 2 * e)] * 2)
    assert found.correct.tolist() == [False, True]
    assert found.top_k(9)[1].shape == (2, 3)
    torch.testing.assert_close(found.probabilities.sum(1), torch.ones(2))


def test_confidence_tells_apart_what_is_1_in_float32() -> None:
    found = Predictions(
        torch.arange(3), torch.zeros(3).long(), torch.tensor([[20.0, 0], [30.0, 0], [0.0, 0]])
    )
    assert found.probabilities[:2, 0].tolist() == [1.0, 1.0]
    expected = 1 / (1 + np.exp(-np.array([20.0, 30.0, 0.0])))
    np.testing.assert_allclose(found.confidence, expected, rtol=1e-15)
    assert found.confidence[0] < found.confidence[1]
    big = made(5000, 3)  # more than one chunk
    np.testing.assert_allclose(big.confidence, big.logits.double().softmax(1).amax(1))


def test_what_gives_no_probabilities_is_not_valid_and_not_right() -> None:
    inf, nan = torch.inf, torch.nan
    logits = [[nan, 9, 0], [inf, 0, 0], [-inf, -inf, -inf], [inf, inf, 0], [5, -inf, -inf]]
    found = Predictions(torch.arange(5), torch.zeros(5).long(), torch.tensor(logits))
    assert found.valid.tolist() == [False, False, False, False, True]
    assert found.correct.tolist() == found.valid.tolist()
    assert found.ranks.tolist() == [3, 3, 3, 3, 0]
    assert found.confidence.isnan().tolist() == [True, True, True, True, False]


def test_names_to_show_and_selection() -> None:
    plain = Predictions(torch.tensor([4, 9]), torch.tensor([0, 1]), torch.eye(2))
    assert plain.names == ("0", "1")
    assert plain.sample_names == ("4", "9")
    named = dataclasses.replace(
        plain, paths=("a.png", "b.png"), class_names=("cat", "dog"), about={"split": "val"}
    )
    for rows in (torch.tensor([1]), torch.tensor([False, True])):
        found = named.select(rows)
        assert (found.sample_names, found.names) == (("b.png",), ("cat", "dog"))
        assert (found.indices.tolist(), found.labels.tolist()) == ([9], [1])
        assert found.about == {"split": "val"}


def test_fields_that_do_not_agree_are_refused() -> None:
    two = torch.arange(2)
    for wrong in (
        {"labels": torch.arange(3)}, {"indices": torch.zeros(2, 1)}, {"paths": ("a",)},
        {"class_names": ("a", "b")},
    ):  # fmt: skip
        fields = {"indices": two, "labels": two, "logits": torch.zeros(2, 3), **wrong}
        with pytest.raises(ValueError, match="for 2 "):
            Predictions(**fields)


def same(found: Predictions, expected: Predictions) -> bool:
    return all(
        torch.equal(getattr(found, name), getattr(expected, name))
        and getattr(found, name).dtype == getattr(expected, name).dtype
        for name in ("indices", "labels", "logits")
    ) and all(
        getattr(found, name) == getattr(expected, name)
        for name in ("paths", "class_names", "about")
    )


def test_save_and_load_round_trip(tmp_path) -> None:
    saved = Predictions(
        torch.arange(5),
        torch.arange(5) % 2,
        torch.randn(5, 2),
        paths=("a/ü.png", "b/\udcff.png", "", "d\n", "e"),
        class_names=("猫", "dog"),
        about={"split": "test", "views": None, "severities": [1, 2], "nested": {"x": 1.5}},
    )
    path = tmp_path / "new" / "test"  # no folder yet, and no suffix
    saved.save(path)
    assert same(Predictions.load(path), saved)
    assert [file.name for file in path.parent.iterdir()] == ["test"]
    none = Predictions(torch.zeros(0).long(), torch.zeros(0).long(), torch.zeros(0, 3))
    none.save(path)
    assert same(Predictions.load(path), none)


def test_a_file_of_three_arrays_still_loads(tmp_path) -> None:
    expected = made(9, 3)
    arrays = {name: getattr(expected, name).numpy() for name in ("indices", "labels", "logits")}
    np.savez_compressed(tmp_path / "old.npz", **arrays)
    assert same(Predictions.load(tmp_path / "old.npz"), expected)


def test_float16_changes_neither_the_prediction_nor_what_is_valid(tmp_path) -> None:
    inf, nan = torch.inf, torch.nan
    extremes = torch.tensor(
        [
            [1e6, 1e6 + 1, -1e30],  # beyond the range of float16
            [1.0, 1.0 + 1e-7, 0.0],  # nearer than float16 can tell
            [-3e38, 3e38, 0.0],
            [-inf, 2.0, -1e5],
            [0.0, 0.0, 0.0],
            [nan, 1.0, 0.0],
            [inf, 1.0, 0.0],
            [-inf, -inf, -inf],
        ]
    )
    logits = torch.cat([extremes, 40 * torch.randn(500, 3, generator=torch.manual_seed(0))])
    saved = Predictions(torch.arange(508), torch.arange(508) % 3, logits)
    saved.save(tmp_path / "half.npz", dtype="float16")
    with np.load(tmp_path / "half.npz") as arrays:
        assert arrays["logits"].dtype == np.float16
    found = Predictions.load(tmp_path / "half.npz")
    assert found.logits.dtype == torch.float32
    assert torch.equal(found.valid, saved.valid)
    assert torch.equal(found.correct, saved.correct)
    assert torch.equal(found.predicted[found.valid], saved.predicted[found.valid])
    assert found.logits[3, 0] == -inf
    assert found.logits[3, 2] == torch.finfo(torch.float16).min
    close = found.probabilities[found.valid] - saved.probabilities[found.valid]
    assert close.abs().max() < 2e-3
    with pytest.raises(ValueError, match="float64"):
        saved.save(tmp_path / "x.npz", dtype="float64")


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path, monkeypatch) -> None:
    path = tmp_path / "val.npz"
    made(9, 3).save(path)
    before = path.read_bytes()
    with pytest.raises(TypeError):  # found out when the arrays are written already
        dataclasses.replace(made(8, 3), about={"model": torch.nn.Linear(1, 1)}).save(path)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="No space"):
        made(8, 3).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_load_refuses_what_is_not_a_file_of_predictions(tmp_path) -> None:
    with pytest.raises(FoveaError, match="no file of predictions"):
        Predictions.load(tmp_path / "absent.npz")
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "folder.npz").mkdir()
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    np.savez(
        tmp_path / "pickle.npz", **dict.fromkeys(("indices", "labels", "logits"), np.array([{}]))
    )
    np.save(tmp_path / "plain.npy", np.zeros(3))
    torch.save({"state_dict": {}}, tmp_path / "best.ckpt")
    made(50, 9).save(tmp_path / "whole.npz")
    whole = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "truncated.npz").write_bytes(whole[: len(whole) // 2])
    at = whole.index(b"NUMPY", whole.index(b"logits.npy")) + 200
    damaged = whole[:at] + bytes(byte ^ 255 for byte in whole[at : at + 4]) + whole[at + 4 :]
    (tmp_path / "damaged.npz").write_bytes(damaged)
    for name in ("text.npz", "empty.npz", "folder.npz", "other.npz", "pickle.npz", "plain.npy",
                 "best.ckpt", "truncated.npz", "damaged.npz"):  # fmt: skip
        with pytest.raises(FoveaError, match="not a file of predictions"):
            Predictions.load(tmp_path / name)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"labels": np.array([0, 3])}, "labels from 0 to 3 for 3 classes"),
        ({"labels": np.array([-1, 0])}, "labels from -1"),
        ({"labels": np.array([0.0, 1.0])}, "integers, not"),
        ({"indices": np.zeros((2, 1), np.int64)}, "indices has to be"),
        ({"indices": np.arange(5)}, "5"),
        ({"logits": np.zeros(2)}, r"logits has to be \(N, K\)"),
        ({"logits": np.zeros((2, 0))}, "logits has to be"),
        ({"logits": np.zeros((2, 3), np.int64)}, "logits has to be"),
        ({"about.json": '{"paths": ["a"]}'}, "1 paths"),
        ({"about.json": '{"class_names": ["a", "b"]}'}, "2 class names"),
        ({"about.json": "[]"}, "list"),
        ({"about.json": "{"}, "property name"),
        ({"about.json": '{"class_names": "abc"}'}, "class_names in .* a list, not str"),
        ({"about.json": '{"class_names": [1, null, 3]}'}, "a list of text, with no null"),
        ({"about.json": '{"paths": {"a": 1}}'}, "paths in .* a list, not dict"),
        ({"about.json": '{"about": ["ab"]}'}, "about in .* an object, not list"),
        ({"about.json": '{"about": {"metrics": 3}}'}, "metrics in .* an object, not int"),
        ({"about.json": '{"about": {"split": "../../val"}}'}, "split in .* a name"),
    ],
)
def test_arrays_that_make_no_sense_are_told(tmp_path, wrong, word) -> None:
    fields = {"indices": np.arange(2), "labels": np.arange(2), "logits": np.zeros((2, 3)), **wrong}
    text = fields.pop("about.json", "{}")
    np.savez(tmp_path / "p.npz", **fields)
    with zipfile.ZipFile(tmp_path / "p.npz", "a") as archive:
        archive.writestr("about.json", text)
    with pytest.raises(FoveaError, match=word):
        Predictions.load(tmp_path / "p.npz")


def test_what_else_a_file_may_say_is_made_plain(tmp_path) -> None:
    np.savez(tmp_path / "p.npz", indices=[0, 1], labels=[0, 1], logits=np.zeros((2, 2)))
    metrics = {"test/top1": 0.5, "test/loss": float("nan"), "note": "good", "right": True}
    text = {"class_names": [0, 1], "paths": [7, "b"], "about": {"metrics": metrics}}
    with zipfile.ZipFile(tmp_path / "p.npz", "a") as archive:
        archive.writestr("about.json", json.dumps(text))
    found = Predictions.load(tmp_path / "p.npz")
    assert found.class_names == ("0", "1")
    assert found.paths == ("7", "b")
    assert list(found.about["metrics"]) == ["test/top1", "test/loss"]


def test_where_a_runs_predictions_are(tmp_path) -> None:
    run = tmp_path / "run_1"
    with pytest.raises(FoveaError, match="no such run folder or file"):
        run_folder.predictions(run, "val")
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(FoveaError, match=r"no predictions on 'val'\. .*ckpt=.*run_1 split=val"):
        run_folder.predictions(run, "val")
    made(9, 3).save(run / "predictions" / "val.npz")
    found = run_folder.predictions(run, "val")
    assert found == run / "predictions" / "val.npz"
    assert run_folder.predictions(str(found), "test") == found
    with pytest.raises(FoveaError, match=r"no predictions on 'test', only on val\."):
        run_folder.predictions(run, "test")
    with pytest.raises(FoveaError, match="Did you mean 'run_1'"):
        run_folder.predictions(tmp_path / "run_2", "val")
