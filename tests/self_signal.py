"""A callback that sends its own process a signal, so that tests hit a moment exactly."""

import os
import signal
from pathlib import Path

from lightning.pytorch.callbacks import Callback


class SelfSignal(Callback):
    """Sends ``name`` once, to one rank, in a hook, when so many optimiser steps are made.

    Args:
        name: such as SIGTERM.
        hook: a hook of Lightning's callbacks.
        step: optimiser steps.
        rank: that gets it.
        once: a file that is made when it was sent; nothing is sent where it exists.
    """

    def __init__(self, name, hook, step, rank=0, once="sent"):
        self.once = Path(once)
        setattr(self, hook, self._send)
        self.name, self.step, self.rank = name, step, rank

    def _send(self, trainer, pl_module, *_):
        here = trainer.global_step == self.step and trainer.global_rank == self.rank
        if here and not self.once.exists():
            self.once.write_text(self.name)
            os.kill(os.getpid(), signal.Signals[self.name])
