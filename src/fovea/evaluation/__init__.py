"""Scores, predictions, figures and reports of a classifier."""

from fovea.evaluation.calibration import fit_temperature, with_temperature
from fovea.evaluation.confusion import plot_confusion_matrix
from fovea.evaluation.curves import plot_learning_curves
from fovea.evaluation.metrics import ClassificationMetrics
from fovea.evaluation.mistakes import plot_mistakes
from fovea.evaluation.predictions import PredictionCollector, Predictions
from fovea.evaluation.report import write_report
from fovea.evaluation.scores import per_class_table, score_intervals, summarize
from fovea.evaluation.tables import as_cell

__all__ = [
    "ClassificationMetrics",
    "PredictionCollector",
    "Predictions",
    "as_cell",
    "fit_temperature",
    "per_class_table",
    "plot_confusion_matrix",
    "plot_learning_curves",
    "plot_mistakes",
    "score_intervals",
    "summarize",
    "with_temperature",
    "write_report",
]
