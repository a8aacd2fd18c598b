"""Real processes: what several ranks see together is what one sees alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPT = """
import json, sys
import lightning, torch
from fovea.data import FolderDataModule

root, out, devices, accumulate = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])


class Net(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(3, 2)
        self.train_seen, self.eval_seen = [], []

    def training_step(self, batch, batch_idx):
        self.train_seen.append([batch.indices.tolist(), batch.labels.tolist()])
        return self.net(batch.images.mean((2, 3))).sum()

    def validation_step(self, batch, batch_idx):
        pass

    def test_step(self, batch, batch_idx):
        self.eval_seen.append(batch.indices.tolist())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


data = FolderDataModule(
    root, batch_size=12, num_workers=0, image_size=8, on_bad_image="skip", repeats=2
)
net = Net()
trainer = lightning.Trainer(
    accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto",
    accumulate_grad_batches=accumulate, max_epochs=2, logger=False, enable_checkpointing=False,
    enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
)
trainer.fit(net, datamodule=data)
data.test_split = "val"
trainer.test(net, datamodule=data, verbose=False)
record = {
    "train": net.train_seen, "eval": net.eval_seen, "bad": data.bad_images(),
    "steps": trainer.fit_loop.epoch_loop._batches_that_stepped,
}
with open(f"{out}/{trainer.global_rank}.json", "w") as file:
    json.dump(record, file)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for split, count in {"train": 20, "val": 13}.items():
        for name in "ab":
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                colour = tuple(np.random.default_rng(i).integers(0, 256, 3).tolist())
                Image.new("RGB", (9, 9), colour).save(folder / split / name / f"{i:02d}.png")
    for bad in ("train/a/03.png", "train/b/07.png", "val/b/01.png"):
        (folder / bad).write_bytes(b"")
    return folder


def run(root, out, devices, accumulate):
    out.mkdir()
    (out / "script.py").write_text(SCRIPT)
    source = str(Path(__file__).parents[2] / "src")
    done = subprocess.run(
        [sys.executable, *map(str, (out / "script.py", root, out, devices, accumulate))],
        env={**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(devices)]


def steps_of(ranks, accumulate):
    """What each optimiser step saw: (index, label) pairs over ranks and micro-batches."""
    number = len(ranks[0]["train"]) // accumulate
    return [
        sorted(
            pair
            for rank in ranks
            for indices, labels in rank["train"][step * accumulate : (step + 1) * accumulate]
            for pair in zip(indices, labels, strict=True)
        )
        for step in range(number)
    ]


@pytest.mark.slow
def test_ranks_together_see_what_one_process_sees(root, tmp_path):
    alone = run(root, tmp_path / "one", 1, 1)
    assert len(steps_of(alone, 1)) == 2 * (40 // 12)
    bad = [str(root / path) for path in ("train/a/03.png", "train/b/07.png", "val/b/01.png")]
    met = sorted(path for path, _ in alone[0]["bad"])
    assert set(met) <= set(bad)
    assert bad[2] in met
    ranks = run(root, tmp_path / "three", 3, 2)
    assert steps_of(ranks, 2) == steps_of(alone, 1)
    assert len({len(rank["eval"]) for rank in ranks}) == 1
    evaluated = sorted(i for r in ranks for batch in r["eval"] for i in batch if i != -1)
    assert evaluated == sorted([i for i in range(26) if i != 14] + [-2 - 14])
    assert all(sorted(path for path, _ in rank["bad"]) == met for rank in ranks)
