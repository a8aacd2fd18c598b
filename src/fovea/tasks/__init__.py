"""What is learned: the Lightning modules that join a backbone, a head, a loss and metrics."""

from fovea.tasks.base import Task
from fovea.tasks.classification import ClassificationTask
from fovea.tasks.early_stopping import EarlyStopping
from fovea.tasks.nonfinite import NonFiniteGuard
from fovea.tasks.spikes import LossSpikes

__all__ = ["ClassificationTask", "EarlyStopping", "LossSpikes", "NonFiniteGuard", "Task"]
