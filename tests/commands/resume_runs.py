"""Trains, goes on from checkpoints made in the middle, and prints what differs in the end as JSON.

``python resume_runs.py OUT CASE``: the commands are forked from this process, which imports torch
once (see scripts/drill_jobs.py). The uncut run keeps a checkpoint of every step.
"""

import json
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import torch
from drill_compare import differences, table
from drill_jobs import start

COMMON = (
    "data=digits", "data.limit_per_class=10", "data.batch_size=24", "trainer.max_epochs=3",
    "trainer.log_every_n_steps=1", "logger=none", "checkpoint.every_n_steps=1",
    "checkpoint.keep=99", "model=timm",
)  # fmt: skip
EVERYTHING = (
    *COMMON, "model.name=test_resnet", "model.head.dropout=0.3", "augment=mixup_cutmix",
    "freeze=gradual", "callbacks=[default,ema,early_stopping]", "trainer=cpu",
    "trainer.accumulate_grad_batches=2", "data.in_memory=false", "data.num_workers=3",
)  # fmt: skip
# No statistics of a device's share of the batch, no draws of its own: only rounding may differ.
RANKS = (
    *COMMON, "trainer.max_epochs=2", "model.name=test_vit", "augment=none", "optimizer=sgd",
    "optimizer.lr=0.01", "trainer=ddp_cpu", "trainer.devices=3", "data.val_fraction=0.05",
)  # fmt: skip
# Its length ends within an epoch, in which the first convolution freezes.
SPEEDRUN = (
    "experiment=cifar10_speedrun", *COMMON[:5], "data.hflip=true", "data.val_fraction=0.1",
    *COMMON[5:8], "model.widths=[8,8,8]", "trainer=cpu", "trainer.max_epochs=4",
    "trainer.max_steps=14", "optimizer.lr=0.03", "test=false",
)  # fmt: skip


def run(words, folder, ranks=1):
    """Run the command to its end; return its only run folder."""
    job = start([*words, f"paths.outputs={folder}"], folder, ranks)
    assert job.wait(900) == 0, job.log.read_text()
    (made,) = folder.glob("*/")
    return made


def cut(uncut, folder, step):
    """Return a copy of a run as a kill after ``step`` would have left it, and a bit worse."""
    made = folder / uncut.name
    shutil.copytree(uncut, made, ignore=shutil.ignore_patterns("*.ckpt", "report", "summary.json"))
    for file in (uncut / "checkpoints").glob("*.ckpt"):
        saved = torch.load(file, weights_only=True)["global_step"]
        if file.stem == "best" and saved <= step:
            shutil.copy(file, made / "checkpoints")
        elif file.stem != "best" and saved == step:
            shutil.copy(file, made / "checkpoints" / "last.ckpt")
    with (made / "metrics.csv").open("a") as text:
        text.write("2,9,0.12")  # half a line
    return made


def go_on(uncut, folder, step, *words, ranks=1):
    made = cut(uncut, folder, step)
    return run([f"resume={made}", *words], folder, ranks)


def everything(out):
    """Cut in each epoch, which is a phase of the freeze schedule, and where one begins."""
    uncut = run(EVERYTHING, out / "uncut")
    per_epoch = len(table(uncut)) // 3
    cuts = {1: 3, per_epoch: 0, 2 * per_epoch + 1: 1}
    found = {}
    for step, workers in cuts.items():
        resumed = go_on(uncut, out / str(step), step, f"data.num_workers={workers}")
        found[f"step {step} of {3 * per_epoch}"] = differences(uncut, resumed)
    return found


def speedrun(out):
    """Cut between two updates of the average, and in the epoch that is cut short."""
    uncut = run(SPEEDRUN, out / "uncut")
    steps = len(table(uncut))
    assert steps > 13, "a row a step"
    return {step: differences(uncut, go_on(uncut, out / str(step), step)) for step in (7, 13)}


def furthest(one, two):
    """Return the largest difference of weights and of logged numbers; rows must be the same."""
    a, b = (
        torch.load(r / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for r in (one, two)
    )
    apart = max(float((a[name] - b[name]).abs().max()) for name in a)
    for row, other in zip(table(one), table(two), strict=True):
        assert [k for k, v in row.items() if v] == [k for k, v in other.items() if v]
        apart = max(apart, *(abs(float(v) - float(other[k])) for k, v in row.items() if v))
    return apart


def ranks(out):
    """Three ranks to three, and to one that accumulates, and from that to two."""
    # Of three numbers, unlike of two, the order in which they are added up matters.
    three = run(RANKS, out / "three", ranks=3)
    step = len(table(three)) // 2 + 1  # in the second epoch
    found = {"3 to 3": differences(three, go_on(three, out / "33", step, ranks=3))}
    alone = ("trainer=cpu", "trainer.accumulate_grad_batches=2")
    one = go_on(three, out / "31", step, *alone)
    found["3 to 1 x 2"] = furthest(three, one)
    both = ("trainer=ddp_cpu", "trainer.devices=2", "trainer.accumulate_grad_batches=1")
    found["1 x 2 to 2"] = furthest(three, go_on(one, out / "12", step + 1, *both, ranks=2))
    return found


if __name__ == "__main__":
    cases = {"everything": everything, "ranks": ranks, "speedrun": speedrun}
    print(json.dumps(cases[sys.argv[2]](Path(sys.argv[1]))))
