"""Scores, predictions, figures and reports of a classifier."""

from fovea.evaluation.confusion import plot_confusion_matrix
from fovea.evaluation.curves import plot_learning_curves
from fovea.evaluation.metrics import ClassificationMetrics
from fovea.evaluation.mistakes import plot_mistakes
from fovea.evaluation.predictions import PredictionCollector, Predictions
from fovea.evaluation.report import as_cell, write_report

__all__ = [
    "ClassificationMetrics",
    "PredictionCollector",
    "Predictions",
    "as_cell",
    "plot_confusion_matrix",
    "plot_learning_curves",
    "plot_mistakes",
    "write_report",
]
