"""The train command with faults built in: ``FAULT="<what> rank=<r> steps=<n>,<n>; <what> …"``.

What: ``nan_loss``, ``raise``, ``exit`` or ``kill``, at these optimiser steps of this rank (of all,
without ``rank=``).
"""

import logging
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from fovea import cli, console
from fovea.tasks import ClassificationTask

FAULTS = [fault.split() for fault in os.environ["FAULT"].split(";")]
start_logging = console.start_logging
training_loss = ClassificationTask.training_loss


def faulty_loss(task, batch):
    loss = training_loss(task, batch)
    for what, *settings in FAULTS:
        setting = dict(setting.split("=") for setting in settings)
        here = setting.get("rank") in {None, str(task.global_rank)}
        if here and str(task.trainer.global_step) in setting.get("steps", "").split(","):
            loss = strike(what, loss)
    return loss


def strike(what, loss):
    if what == "raise":
        raise ValueError("the fault that was asked for")
    if what == "exit":
        os._exit(3)
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    return loss * float("nan")


def start_all_logging(*arguments):
    # Hydra silences the loggers that are there before it, as they are not when `train.py` runs.
    for logger in logging.Logger.manager.loggerDict.values():
        logger.disabled = False
    start_logging(*arguments)


console.start_logging = start_all_logging
ClassificationTask.training_loss = faulty_loss

if __name__ == "__main__":
    cli.train()
