"""How alike classifiers decide: which classes they name, and where they err."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """(M, M) each, of M runs on the same samples; symmetric, NaN where a ratio is undefined.

    Attributes:
        equal: share of samples for which both name the same class.
        kappa: Cohen's kappa of the classes they name: 0 as if by chance, 1 the same everywhere.
        error_consistency: the same of right and wrong: 0 as two independent classifiers of their
            accuracies would coincide.
    """

    equal: Floats
    kappa: Floats
    error_consistency: Floats


def measure_agreement(
    predicted: NDArray[np.int64], correct: NDArray[np.bool_], num_classes: int
) -> Agreement:
    """Return how far M runs agree on N samples.

    Sources: Cohen 1960, "A Coefficient of Agreement for Nominal Scales"; Geirhos et al. 2020,
    "Beyond accuracy: quantifying trial-by-trial behaviour of CNNs and humans by measuring error
    consistency", sec. 2.

    Args:
        predicted: (N, M) class numbers in [0, K).
        correct: (N, M).
        num_classes: K.
    """
    shares = np.stack(
        [np.bincount(column, minlength=num_classes) / len(column) for column in predicted.T]
    )
    equal = _share_equal(predicted)
    accuracy = correct.mean(axis=0)
    both_by_chance = np.outer(accuracy, accuracy) + np.outer(1 - accuracy, 1 - accuracy)
    return Agreement(
        equal=equal,
        kappa=_beyond_chance(equal, shares @ shares.T),
        error_consistency=_beyond_chance(_share_equal(correct), both_by_chance),
    )


def _share_equal(columns: NDArray[np.int64] | NDArray[np.bool_]) -> Floats:
    return np.stack([(columns == column[:, None]).mean(axis=0) for column in columns.T])


def _beyond_chance(observed: Floats, by_chance: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        kappa = (observed - by_chance) / (1 - by_chance)
    return np.where(by_chance < 1 - 1e-12, kappa, np.nan)
