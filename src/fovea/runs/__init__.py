"""Logged runs read back as tables: from their folders with no network, or from W&B when asked.

::

    runs = fovea.runs.load("outputs")                  # one row a run
    fovea.runs.history(runs[runs["kind"] == "train"])  # all their curves
    fovea.runs.group(runs, over="seed")                # mean, std and n of each metric
    fovea.runs.diff(runs.iloc[0], runs.iloc[1])        # what differs between two
    fovea.runs.load_wandb("entity/project")            # the same columns
"""

from fovea.runs.curves import history
from fovea.runs.differences import diff
from fovea.runs.grouping import group
from fovea.runs.online import history_wandb, load_wandb
from fovea.runs.table import load

__all__ = ["diff", "group", "history", "history_wandb", "load", "load_wandb"]
