"""Trained networks judged: predictions on a split, ensembles, cost, reports.

`predict_split` is the one way in which anything of fovea has a network predict a whole split.
"""

from fovea.judging.classes import match_classes, restrict_head
from fovea.judging.cost import count_cost, count_flops, measure_cost
from fovea.judging.ensemble import average, scores
from fovea.judging.predicting import logged_metrics, predict_split, weights_fingerprint

__all__ = [
    "average",
    "count_cost",
    "count_flops",
    "logged_metrics",
    "match_classes",
    "measure_cost",
    "predict_split",
    "restrict_head",
    "scores",
    "weights_fingerprint",
]
