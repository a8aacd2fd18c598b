"""Measure how fast a tree of run folders becomes a table, a page, and curves.

    python scripts/benchmark_runs.py [--runs 1000] [--rows 300]

makes run folders as training leaves them (the real configuration, 14 columns of metrics) in a
temporary folder, and removes them at the end. The files are in the system's memory, since it wrote
them just now. Printed are the median seconds of --repeats, each in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from omegaconf import OmegaConf

# As src/train.py has it: the library beside this folder, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from fovea import arguments
from fovea.runs.cache import SETTLED_S

SOURCE = Path(__file__).resolve().parents[1] / "src"
NAMES = (
    "epoch", "step", "val/top1", "val/top5", "val/loss", "val/balanced_accuracy", "train/top1",
    "train/trainable_parameters", "train/spikes", "train/loss", "train/lr",
    "perf/images_per_second", "perf/data_wait", "perf/host_memory_gb",
)  # fmt: skip

LOAD = (
    "import time, sys; began = time.perf_counter(); import fovea.runs; ready = time.perf_counter();"
    "table = {call}; print(ready - began, time.perf_counter() - ready)"
)
CALLS = (
    ("load, nothing kept", "fovea.runs.load(sys.argv[1])", ""),
    ("load, all kept", "fovea.runs.load(sys.argv[1])", "cache"),
    ("all curves", "fovea.runs.history(fovea.runs.load(sys.argv[1]))", "cache"),
)


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=300, help="of each metrics.csv")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outputs, cache = Path(folder, "outputs"), Path(folder, "cache")
        make_runs(outputs, options.runs, options.rows)
        time.sleep(SETTLED_S + 0.1)  # younger files are not kept
        measure(CALLS[1][1], outputs, cache)  # fills it
        print(f"{options.runs:,} runs of {options.rows} rows; seconds")
        for name, call, kept in CALLS:
            times = [
                measure(call, outputs, cache if kept else None) for _ in range(options.repeats)
            ]
            importing, taken = (statistics.median(column) for column in zip(*times, strict=True))
            print(f"  {name:<20}{taken:8.2f}   and to import fovea.runs {importing:.2f}")


def measure(call: str, outputs: Path, cache: Path | None) -> tuple[float, float]:
    """Return the seconds that importing fovea.runs and then ``call`` take in a new process."""
    kept = "" if cache is None else str(cache)
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "FOVEA_CACHE": kept}
    command = [sys.executable, "-c", LOAD.format(call=call), str(outputs)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    importing, taken = map(float, done.stdout.split())
    return importing, taken


def make_runs(outputs: Path, count: int, rows: int) -> None:
    """Write ``count`` folders of finished runs of a sweep over seed, lr and weight decay."""
    words = arguments.prepare_arguments("train", []).words
    words = [word for word in words if not word.startswith("hydra.")]
    cfg = arguments.compose_checked("train", words)
    cfg.paths.outputs, cfg.paths.data = str(outputs), str(outputs.with_name("data"))
    for number in range(count):
        seed, lr = number % 5, 0.0005 * (1 + number // 5 % 20)
        cfg.run_id = f"2026-01-31_{number // 3600:02}-{number // 60 % 60:02}-{number % 60:02}_3fa9"
        cfg.paths.run = str(outputs / cfg.run_id)
        cfg.seed, cfg.optimizer.lr, cfg.optimizer.weight_decay = seed, lr, 0.01 * (number // 100)
        folder = outputs / cfg.run_id
        folder.mkdir(parents=True)
        config = OmegaConf.to_yaml(cfg, resolve=True)
        (folder / "config.yaml").write_text(config)
        (folder / "overrides.yaml").write_text(f"- seed={seed}\n- optimizer.lr={lr}\n")
        (folder / "environment.json").write_text(json.dumps(environment(number), indent=2))
        table = curves(rows, seed, lr)
        (folder / "metrics.csv").write_text(table)
        (folder / "summary.json").write_text(json.dumps(summary(number, rows), indent=2))
        (folder / "train.log").write_text("2026-01-31 12:00:00,000 INFO \nfovea: x\n" * 50)


def curves(rows: int, seed: int, lr: float) -> str:
    """Return a metrics.csv of a loss that falls, and then rises a little."""
    lines = [",".join(NAMES)]
    for row in range(rows):
        loss = 2.3 * math.exp(-row * lr * 10) + 0.0003 * row + 0.01 * math.sin(row + seed)
        top1 = math.exp(-loss)
        values = [
            *(row, row * 18 + 17, top1, min(1.0, 1.5 * top1), loss, top1 - 0.001, top1 + 0.01),
            *(11172810.0, 0.0, loss * 0.9, lr, 1500.0 + row, 0.01, 1.02),
        ]
        lines.append(",".join(map(repr, values)))
    return "\n".join(lines) + "\n"


def summary(number: int, rows: int) -> dict[str, object]:
    """Return the summary.json of a finished run."""
    split = {"from": "files", "count": 1000, "fingerprint": "3c8445ebc94293ba"}
    return {
        "state": "finished",
        "error": None,
        "fingerprint": f"{number:016x}",
        "started": 1795533850.6 + number,
        "splits": dict.fromkeys(("train", "val", "test"), split),
        "seconds": 74.0,
        "monitor": "val/loss",
        "objective": 0.1 + number / 1000,
        "metrics": dict.fromkeys(NAMES[2:], 0.5) | {"test/top1": 0.9},
        "best_checkpoint": "checkpoints/best.ckpt",
        "epochs": rows,
        "bad_images": [],
        "parameters": 11172810,
    }


def environment(number: int) -> dict[str, object]:
    """Return an environment.json."""
    return {
        "time": "2026-01-31T12:00:00+00:00",
        "command": f"python src/train.py seed={number % 5}",
        "git": {"commit": "f5ba9ea1b5621010c32122134d257ce667cadb84", "dirty": False},
        "packages": dict.fromkeys(("fovea", "torch", "timm", "lightning", "numpy"), "1.0.0"),
        "host": f"node{number % 4}",
        "cpu": {"model": "AMD EPYC", "count": 2, "usable": 2},
        "gpus": [],
    }


if __name__ == "__main__":
    main()
