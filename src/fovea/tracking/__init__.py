"""Where a run's numbers go: a CSV table, W&B, TensorBoard, the terminal, a record of versions."""

from fovea.tracking.environment import environment_record
from fovea.tracking.metrics_csv import MetricsCSV, last_values
from fovea.tracking.progress import EpochLines, ProgressBar
from fovea.tracking.tensorboard import TensorBoardRun, tensorboard_logger
from fovea.tracking.throughput import Throughput
from fovea.tracking.wandb_access import wandb_mode
from fovea.tracking.wandb_config import wandb_logger
from fovea.tracking.wandb_run import WandbRun

__all__ = [
    "EpochLines",
    "MetricsCSV",
    "ProgressBar",
    "TensorBoardRun",
    "Throughput",
    "WandbRun",
    "environment_record",
    "last_values",
    "tensorboard_logger",
    "wandb_logger",
    "wandb_mode",
]
