"""Hooks of a step that a callback does not use, kept from costing time."""

from __future__ import annotations

from collections.abc import Iterable

from lightning.pytorch.callbacks import Callback

STEP_HOOKS = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)


def skip_idle_hooks(callbacks: Iterable[Callback]) -> None:
    """Let the trainer pass over the step hooks that ``callbacks`` inherit as they are.

    Lightning names, times and calls each hook of each callback in every step, those that do
    nothing as well, which with ten callbacks takes a third of a millisecond. What is not callable
    it passes over (``_call_callback_hooks`` in its ``trainer/call.py``).
    """
    for callback in callbacks:
        for hook in STEP_HOOKS:
            inherited = getattr(type(callback), hook) is getattr(Callback, hook)
            if inherited and hook not in vars(callback):  # LambdaCallback sets them there
                setattr(callback, hook, None)
