import numpy as np
import pytest
import torch

from fovea.errors import FoveaError
from fovea.evaluation import PredictionCollector, Predictions


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


def test_save_and_load_round_trip(tmp_path) -> None:
    saved = Predictions(torch.arange(5), torch.arange(5) % 2, torch.randn(5, 2))
    saved.save(tmp_path / "predictions.npz")
    loaded = Predictions.load(tmp_path / "predictions.npz")
    assert torch.equal(loaded.indices, saved.indices)
    assert torch.equal(loaded.labels, saved.labels)
    assert torch.equal(loaded.logits, saved.logits)


def test_load_refuses_what_is_not_a_file_of_predictions(tmp_path) -> None:
    with pytest.raises(FoveaError, match="no file of predictions"):
        Predictions.load(tmp_path / "absent.npz")
    (tmp_path / "text.npz").write_text("hello")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    np.savez(
        tmp_path / "pickle.npz", **dict.fromkeys(("indices", "labels", "logits"), np.array([{}]))
    )
    np.save(tmp_path / "plain.npy", np.zeros(3))
    for name in ("text.npz", "other.npz", "pickle.npz", "plain.npy"):
        with pytest.raises(FoveaError, match="not a file of predictions"):
            Predictions.load(tmp_path / name)
