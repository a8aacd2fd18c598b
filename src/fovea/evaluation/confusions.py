"""Which classes are taken for which: counts, the worst pairs, an order by similarity."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from fovea.evaluation.predictions import Predictions


def count_confusions(predictions: Predictions) -> NDArray[np.int64]:
    """Return (K, K) counts: row the true class, column the predicted one.

    Rows of the predictions that are not `valid` are in no cell, so the diagonal holds the hits.
    """
    k = predictions.num_classes
    pairs = (predictions.labels * k + predictions.predicted)[predictions.valid]
    return pairs.bincount(minlength=k * k).reshape(k, k).numpy()


def worst_pairs(predictions: Predictions, count: int = 30) -> pd.DataFrame:
    """Return up to ``count`` confusions, the most frequent first.

    Columns: ``true`` and ``predicted`` (names), ``count``, ``share`` (of the true class's samples),
    ``reverse`` (how often it went the other way).
    """
    counts = count_confusions(predictions)
    samples = predictions.labels.bincount(minlength=len(counts)).numpy()
    off = counts.copy()
    np.fill_diagonal(off, 0)
    order = np.argsort(-off, axis=None, kind="stable")[:count]
    rows, columns = np.unravel_index(order, off.shape)
    found = off[rows, columns] > 0
    rows, columns = rows[found], columns[found]
    return pd.DataFrame(
        {
            "true": [predictions.names[row] for row in rows],
            "predicted": [predictions.names[column] for column in columns],
            "count": off[rows, columns],
            "share": off[rows, columns] / samples[rows],
            "reverse": off[columns, rows],
        }
    )


def similarity_order(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (K,) class numbers in an order that puts what is confused side by side.

    The order of the leaves of a hierarchical clustering (average linkage), where two classes are
    the closer the larger the share of each that is taken for the other. Without any confusion the
    order stays as it is.

    Args:
        counts: (K, K), as `count_confusions` returns them.
    """
    share = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    np.fill_diagonal(share, 0)
    if not share.any() or len(counts) < 3:
        return np.arange(len(counts))
    distance = 1 - (share + share.T) / 2
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform(distance, checks=False), method="average", optimal_ordering=True)
    return leaves_list(tree).astype(np.int64)
