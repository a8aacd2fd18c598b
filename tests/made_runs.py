"""Run folders as training leaves them, and broken ones, without training."""

import json
from pathlib import Path

import yaml


def write_run(folder: Path, seed=0, lr=0.1, top1=0.5, config=None, **summary) -> Path:
    """Write a run of three epochs whose best one, by val/loss, is the second."""
    folder.mkdir(parents=True)
    settings = {
        "seed": seed,
        "monitor": {"metric": "val/loss", "mode": "min"},
        "run_id": folder.name,
        "tags": ["x"],
        "data": {"seed": seed, "batch_size": 32},
        "paths": {"run": str(folder)},
        "callbacks": {"best": {"dirpath": f"{folder}/checkpoints"}},
        "model": {"name": "resnet18", "head": {"dropout": 0.0}},
        "optimizer": {"lr": lr},
        "trainer": {"max_epochs": 3},
        **(config or {}),
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    (folder / "overrides.yaml").write_text(f"- seed={seed}\n- optimizer.lr={lr}\n")
    environment = {
        "time": "2026-11-24T12:00:00+00:00",
        "command": "python src/train.py",
        "git": {"commit": "a" * 40, "dirty": False},
        "packages": {"torch": "2.14.1", "timm": "1.0.31"},
        "host": "elsewhere",
        "cpu": {"model": "AMD EPYC", "count": 2},
        "gpus": [{"name": "NVIDIA A100", "memory_gb": 85.0}] * 2,
    }
    (folder / "environment.json").write_text(json.dumps(environment))
    losses = (1.0, 1.0 - top1, 2.0)
    rows = [
        f"{epoch},{10 * epoch + 9},{loss},{1 - loss / 2},{loss / 2},{100 + epoch}"
        for epoch, loss in enumerate(losses)
    ]
    head = "epoch,step,val/loss,val/top1,train/loss,perf/images_per_second"
    (folder / "metrics.csv").write_text("\n".join([head, *rows]) + "\n")
    record = {
        "state": "finished",
        "started": 1795521600.5,
        "seconds": 12.5,
        "monitor": "val/loss",
        "objective": 1.0 - top1,
        "metrics": {"val/loss": 2.0, "val/top1": 0.0, "test/top1": top1},
        "epochs": 3,
        "splits": {"test": {"count": 100, "fingerprint": "f00"}},
        "bad_images": [],
        **summary,
    }
    (folder / "summary.json").write_text(json.dumps(record))
    return folder
