"""What is learned: the Lightning modules that join a backbone, a head, a loss and metrics."""

from fovea.tasks.base import Task
from fovea.tasks.classification import ClassificationTask

__all__ = ["ClassificationTask", "Task"]
