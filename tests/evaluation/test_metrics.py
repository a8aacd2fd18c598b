import math
import socket

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from sklearn.metrics import balanced_accuracy_score, log_loss, recall_score, top_k_accuracy_score
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics.functional.classification import multiclass_accuracy

from fovea.evaluation import ClassificationMetrics, PredictionCollector


def sample(n: int, k: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(k, (n,), generator=generator)
    labels[: n // 2] = 0  # imbalance: balanced accuracy must differ from top-1
    logits = torch.randn(n, k, generator=generator)
    logits[:, 0] += 0.7
    logits[torch.arange(n), labels] += 0.9
    return logits, labels, torch.arange(n), cross_entropy(logits, labels, reduction="none")


def test_scores_agree_with_sklearn_and_torchmetrics() -> None:
    logits, labels, indices, losses = sample(503, 11)
    metrics = ClassificationMetrics(11, prefix="val/")
    for rows in torch.arange(503).split(64):
        metrics.update(logits[rows], labels[rows], indices[rows], losses[rows])
    scores = metrics.compute()
    assert set(scores) == {"val/top1", "val/top5", "val/loss", "val/balanced_accuracy"}
    y, p = labels.numpy(), logits.softmax(1).double().numpy()
    p /= p.sum(axis=1, keepdims=True)
    assert scores["val/top1"].item() == pytest.approx(np.mean(p.argmax(1) == y), abs=1e-7)
    assert scores["val/top5"].item() == pytest.approx(top_k_accuracy_score(y, p, k=5), abs=1e-7)
    assert scores["val/loss"].item() == pytest.approx(log_loss(y, p), rel=1e-6)
    balanced = scores["val/balanced_accuracy"].item()
    assert balanced == pytest.approx(balanced_accuracy_score(y, p.argmax(1)), abs=1e-6)
    assert balanced != pytest.approx(scores["val/top1"].item(), abs=0.05)
    torch.testing.assert_close(
        metrics.per_class(), multiclass_accuracy(logits, labels, 11, average="none")
    )
    np.testing.assert_allclose(
        metrics.per_class(), recall_score(y, p.argmax(1), average=None), atol=1e-6
    )
    assert metrics.class_counts().tolist() == labels.bincount(minlength=11).tolist()


def test_padding_and_unreadable_samples_do_not_count() -> None:
    logits, labels, indices, losses = sample(40, 7)
    plain, padded = ClassificationMetrics(7), ClassificationMetrics(7)
    plain.update(logits, labels, indices, losses)
    blank = torch.full((3, 7), torch.nan)
    padded.update(
        torch.cat([blank, logits]),
        torch.cat([torch.zeros(3, dtype=torch.int64), labels]),
        torch.cat([torch.tensor([-1, -2, -9]), indices]),
        torch.cat([torch.tensor([torch.nan, torch.inf, 3.0]), losses]),
    )
    assert padded.compute() == plain.compute()


def test_equal_logits_are_not_a_correct_answer() -> None:
    metrics = ClassificationMetrics(10)
    labels = torch.arange(10)
    metrics.update(torch.zeros(10, 10), labels, labels, torch.full((10,), math.log(10)))
    scores = metrics.compute()
    assert scores["top1"].item() == pytest.approx(0.1)
    assert scores["top5"].item() == pytest.approx(0.5)
    assert scores["loss"].item() == pytest.approx(math.log(10), rel=1e-6)


def test_nan_logits_are_wrong_and_a_nan_loss_shows() -> None:
    metrics = ClassificationMetrics(3)
    logits = torch.tensor([[torch.nan, 0.0, 0.0], [5.0, 0.0, 0.0]])
    labels = torch.zeros(2, dtype=torch.int64)
    metrics.update(logits, labels, torch.arange(2), cross_entropy(logits, labels, reduction="none"))
    assert metrics.compute()["top1"].item() == 0.5
    assert metrics.compute()["loss"].item() == math.inf


def test_top5_is_left_out_where_it_says_nothing_and_absent_classes_do_not_count() -> None:
    metrics = ClassificationMetrics(5)
    labels = torch.tensor([0, 0, 1, 2])
    logits = torch.eye(5)[[0, 1, 1, 2]]
    metrics.update(logits, labels, torch.arange(4), torch.zeros(4))
    scores = metrics.compute()
    assert "top5" not in scores
    assert scores["balanced_accuracy"].item() == pytest.approx((0.5 + 1 + 1) / 3)
    assert metrics.per_class().isnan().tolist() == [False, False, False, True, True]


def test_nothing_counted_is_nan_and_reset_forgets() -> None:
    metrics = ClassificationMetrics(6)
    logits, labels, indices, losses = sample(20, 6)
    metrics.update(logits, labels, indices, losses)
    metrics.reset()
    metrics.update(logits, labels, torch.full((20,), -1), losses)
    assert all(score.isnan() for score in metrics.compute().values())


def test_the_mean_loss_does_not_depend_on_the_order() -> None:
    logits, labels, indices, losses = sample(4000, 10)
    losses = losses * torch.logspace(-6, 9, 4000)
    totals = set()
    for seed in range(3):
        order = torch.randperm(4000, generator=torch.Generator().manual_seed(seed))
        metrics = ClassificationMetrics(10)
        for rows in order.split(37 + seed):
            metrics.update(logits[rows], labels[rows], indices[rows], losses[rows])
        totals.add((metrics.loss_whole.item(), metrics.loss_fraction.item()))
    assert len(totals) == 1
    assert metrics.compute()["loss"].item() == pytest.approx(
        losses.double().mean().item(), rel=1e-6
    )


def test_states_do_not_enter_checkpoints() -> None:
    metrics, collector = ClassificationMetrics(3), PredictionCollector()
    assert not metrics.state_dict()
    assert not collector.state_dict()


def evaluate(rank: int, port: int, folder: str) -> None:
    """Deal 50 samples to the first two of three ranks, then to all, in padded batches of 8."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=3)
    for world in (2, 3):
        group = torch.distributed.new_group(list(range(world)))
        if rank < world:
            torch.save(result_of_rank(rank, world, group), f"{folder}/{world}-{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def result_of_rank(rank: int, world: int, group) -> dict[str, Tensor]:
    logits, labels, indices, losses = sample(50, 9)
    metrics, collector = ClassificationMetrics(9), PredictionCollector()
    for metric in (metrics, *collector.children()):
        metric.process_group = group
    for start in range(0, -(-50 // (8 * world)) * 8 * world, 8 * world):
        rows = torch.arange(start + rank, start + 8 * world, world)
        valid = rows < 50
        at = torch.where(valid, rows, 0)
        index = torch.where(valid, indices[at], -1)
        metrics.update(logits[at], labels[at], index, losses[at])
        collector.update(logits[at], labels[at], index)
    predictions = collector.compute()
    return {
        **metrics.compute(),
        "per_class": metrics.per_class(),
        "counts": metrics.class_counts(),
        "indices": predictions.indices,
        "labels": predictions.labels,
        "logits": predictions.logits,
    }


@pytest.mark.slow
def test_one_two_and_three_ranks_give_identical_results(tmp_path, free_port) -> None:
    mp.spawn(evaluate, (free_port, str(tmp_path)), nprocs=3)
    logits, labels, indices, losses = sample(50, 9)
    metrics = ClassificationMetrics(9)
    metrics.update(logits, labels, indices, losses)
    expected = {
        **metrics.compute(),
        "per_class": metrics.per_class(),
        "counts": labels.bincount(minlength=9),
        "indices": indices,
        "labels": labels,
        "logits": logits,
    }
    for name in ("2-0", "2-1", "3-0", "3-1", "3-2"):
        found = torch.load(tmp_path / f"{name}.pt")
        assert found.keys() == expected.keys()
        for key in expected:
            assert torch.equal(found[key], expected[key]), (name, key)


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
