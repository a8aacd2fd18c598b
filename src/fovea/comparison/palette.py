"""Colours and places of many systems in one picture, so that two and twenty can be told apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from fovea.evaluation.figures import FAINT

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Told apart by the colour-blind too. Source: Okabe and Ito 2008, "Color Universal Design"."""


def colour(scores: Sequence[float]) -> list[str]:
    """Return a colour for each system: where they are more than 7, the best 7 have one, rest grey.

    Args:
        scores: higher is better; NaN is worst.
    """
    order = np.argsort(-np.nan_to_num(np.asarray(scores, dtype=float), nan=-np.inf), kind="stable")
    coloured = sorted(order[: len(_COLOURS)])
    by_number = dict(zip(coloured, _COLOURS, strict=False))
    return [by_number.get(number, FAINT) for number in range(len(scores))]


def spread(places: Sequence[float], gap: float) -> NDArray[np.float64]:
    """Return ``places`` moved as little as need be for each to be ``gap`` or more from the next.

    They stay within [0, 1] if that has room for them. Least squares under these conditions is an
    isotonic regression of the places less their ranks, clipped.
    """
    given = np.asarray(places, dtype=np.float64)
    order = np.argsort(given, kind="stable")
    steps = gap * np.arange(len(given))
    fitted = isotonic_regression(given[order] - steps).x
    moved = np.empty_like(given)
    moved[order] = np.clip(fitted, 0, max(0, 1 - gap * (len(given) - 1))) + steps
    return moved


def label_ends(
    axes: Axes,
    ends: Sequence[tuple[float, float]],
    labels: Sequence[str],
    colours: Sequence[str],
    height: float,
    size: float = 8,
) -> None:
    """Write each label right of the panel, as high as its line ends; the limits are final.

    Args:
        axes: of the panel.
        ends: (x, y) of the end of each line.
        labels: one a line.
        colours: one a line.
        height: of the panel, in inches.
        size: of the letters, in points.
    """
    to_share = axes.transData + axes.transAxes.inverted()
    heights = [to_share.transform(end)[1] for end in ends]
    places = spread(heights, 1.2 * size / 72 / height)
    for end, place, text, ink in zip(ends, places, labels, colours, strict=True):
        axes.annotate(
            text,
            end,
            xytext=(1.04, place),
            textcoords="axes fraction",
            va="center",
            fontsize=size,
            color=ink,
            arrowprops={
                "arrowstyle": "-",
                "color": ink,
                "lw": 0.5,
                "alpha": 0.5,
                "relpos": (0, 0.5),
            },
            annotation_clip=False,
        )
