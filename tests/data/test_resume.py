"""A run cut anywhere and resumed equals, bit for bit, the run that was never cut."""

import warnings

import lightning
import pytest
import torch

from fovea.data import Augment, DigitsDataModule

EPOCHS = 3


class Net(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Linear(64, 10)
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append((self.current_epoch, batch_idx, batch.indices.tolist()))
        logits = self.net(batch.images.flatten(1))
        return torch.nn.functional.cross_entropy(logits, batch.targets)

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)


class SaveEverywhere(lightning.Callback):
    def __init__(self, folder):
        self.folder = folder

    def save(self, trainer, name):
        if not trainer.sanity_checking:
            trainer.save_checkpoint(self.folder / f"{name}{trainer.current_epoch}.ckpt")

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.save(trainer, f"batch{batch_idx}_")

    def on_validation_end(self, trainer, module):
        self.save(trainer, "val")

    def on_train_epoch_end(self, trainer, module):
        self.save(trainer, "epoch")


def run(workers, accumulate, checkpoint=None, callbacks=()):
    data = DigitsDataModule(
        batch_size=64, hflip=False, val_fraction=0.16, test_fraction=0.2, fraction=0.3,
        num_workers=workers, in_memory="auto" if workers == 0 else False,
        augment=Augment(mixup=0.2, cutmix=1.0, erase=0.2),
    )  # fmt: skip
    net = Net()
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=EPOCHS, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, use_distributed_sampler=False,
        accumulate_grad_batches=accumulate, callbacks=list(callbacks),
    )  # fmt: skip
    trainer.fit(net, datamodule=data, ckpt_path=checkpoint)
    return net


@pytest.fixture(scope="module", params=[1, 2])
def uncut(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    net = run(0, request.param, callbacks=[SaveEverywhere(folder)])
    assert len(net.seen) == EPOCHS * 5 * request.param
    return net, folder, request.param


CUTS = {
    "inside an epoch": "batch3_1",
    "after the first step of an epoch": "batch1_0",
    "at the last batch of an epoch": "batch{last}_1",
    "after validation": "val1",
    "at the end of the first epoch": "epoch0",
    "at the end of another epoch": "epoch1",
    "in the last epoch": "batch1_2",
}


@pytest.mark.parametrize(
    ("cut", "workers"),
    [*((cut, 0) for cut in CUTS), ("inside an epoch", 2), ("after validation", 2)],
)
def test_resumed_runs_equal_uncut_ones(uncut, cut, workers):
    net, folder, accumulate = uncut
    path = folder / (CUTS[cut].format(last=5 * accumulate - 1) + ".ckpt")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        resumed = run(workers, accumulate, path)
    assert not [w for w in caught if "not resumable" in str(w.message)]
    assert 0 < len(resumed.seen) < len(net.seen)
    assert resumed.seen == net.seen[-len(resumed.seen) :]
    for mine, theirs in zip(resumed.parameters(), net.parameters(), strict=True):
        assert torch.equal(mine, theirs)
