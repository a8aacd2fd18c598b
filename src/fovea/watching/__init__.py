"""What a run shows of itself while it goes on: what the network sees, and how it learns."""

from fovea.watching.image_sheets import ImageSheets
from fovea.watching.learning_curves import LearningCurves
from fovea.watching.showing import show_figures, show_results, show_tables

__all__ = ["ImageSheets", "LearningCurves", "show_figures", "show_results", "show_tables"]
