"""Which of several runs is better, and what may be claimed of it."""

from fovea.comparison.compare import Comparison, compare
from fovea.comparison.curves import plot_learning_curves_of
from fovea.comparison.pairs import Pair
from fovea.comparison.pareto import pareto_front, plot_pareto
from fovea.comparison.report import write_comparison
from fovea.comparison.tables import (
    agreement_table,
    disagreements_table,
    pairs_table,
    runs_table,
    systems_table,
)
from fovea.comparison.verdict import say_all, say_limits, say_pair

__all__ = [
    "Comparison",
    "Pair",
    "agreement_table",
    "compare",
    "disagreements_table",
    "pairs_table",
    "pareto_front",
    "plot_learning_curves_of",
    "plot_pareto",
    "runs_table",
    "say_all",
    "say_limits",
    "say_pair",
    "systems_table",
    "write_comparison",
]
