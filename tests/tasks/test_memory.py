"""What a step leaves behind: nothing."""

import gc
import resource
from pathlib import Path

import lightning
import pytest
import torch

from fovea.experiment import build, compose

STEPS = 2000


class Census(lightning.Callback):
    """Counts objects and tensors, and takes the peak of the memory, at three places of a run."""

    def __init__(self):
        self.objects, self.tensors, self.peaks = [], [], []

    def on_train_batch_start(self, trainer, *args):
        # At one and the same place between two logged steps.
        if trainer.global_step in (STEPS // 4 + 5, STEPS // 2 + 5, STEPS - 5):
            gc.collect()
            found = gc.get_objects()
            self.objects.append(len(found))
            self.tensors.append(sum(isinstance(one, torch.Tensor) for one in found))
            self.peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


@pytest.mark.slow
def test_nothing_grows_with_the_number_of_steps(tmp_path):
    cfg = compose(
        [
            "data=digits", "data.batch_size=2", "data.image_size=8", "data.in_memory=true",
            "model=timm", "model.name=test_resnet", "augment=none", "logger=none",
            "trainer.max_epochs=4", "trainer.accelerator=cpu",
            "trainer.devices=1", "trainer.limit_val_batches=2",
            "trainer.limit_train_batches=500", f"paths.outputs={tmp_path}",
        ]
    )  # fmt: skip
    census = Census()
    Path(cfg.paths.run).mkdir(parents=True)
    experiment = build(cfg)
    experiment.trainer.callbacks.append(census)
    experiment.trainer.fit(experiment.task, datamodule=experiment.data)
    assert experiment.trainer.global_step == STEPS
    assert len(census.objects) == 3
    assert census.tensors[2] <= census.tensors[0] + 2
    assert census.objects[2] - census.objects[1] < 900  # not one object a step
    assert census.peaks[2] - census.peaks[0] < 16  # MiB; not 11 kB a step
