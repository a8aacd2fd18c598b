from lightning import Trainer
from lightning.pytorch.callbacks import Callback, LambdaCallback
from lightning.pytorch.demos.boring_classes import BoringModel

from fovea.tasks.idle_hooks import STEP_HOOKS, skip_idle_hooks


class Counting(Callback):
    """Counts its own hooks, one of them of a step."""

    def __init__(self):
        self.steps = self.epochs = 0

    def on_train_batch_end(self, *args):
        self.steps += 1

    def on_train_epoch_end(self, *args):
        self.epochs += 1


class CountingMore(Counting):
    """Inherits a hook from a callback that has it."""

    def on_before_zero_grad(self, *args):
        self.zeroed = getattr(self, "zeroed", 0) + 1


def test_only_what_does_nothing_is_passed_over(tmp_path):
    steps = []
    own = LambdaCallback(on_before_backward=lambda *args: steps.append(1))
    callbacks = [Callback(), Counting(), CountingMore(), own]
    skip_idle_hooks(callbacks)
    assert all(getattr(callbacks[0], hook) is None for hook in STEP_HOOKS)
    trainer = Trainer(
        default_root_dir=tmp_path, accelerator="cpu", max_epochs=1, limit_train_batches=4,
        limit_val_batches=0, callbacks=callbacks, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(BoringModel())
    assert [(c.steps, c.epochs) for c in callbacks[1:3]] == [(4, 1), (4, 1)]
    assert callbacks[2].zeroed == 4
    assert len(steps) == 4
