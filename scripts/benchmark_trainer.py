"""Measure what fovea's trainer costs above a plain torch loop, and how soon a run begins.

    python scripts/benchmark_trainer.py                  # what a step costs
    python scripts/benchmark_trainer.py --startup        # seconds to the first step, --help, a typo
    python scripts/benchmark_trainer.py --memory --images <folder>   # peaks of process and workers
    python scripts/benchmark_trainer.py --cpu            # threads, channels_last, bfloat16

Plain loop, Lightning alone and fovea train the same network on the same batches in memory, on one
thread of the CPU; first it is checked that their losses agree to 1e-6 over the first 20 steps. All
ways are gone through before the next repeat begins. Differences are taken within a repeat, and the
table has their medians, by wall clock and by processor time: on a busy machine the second is the
steadier. "without" rows say what leaving one part out of fovea's default saves. The row "with
nothing changed" compares the default with itself: what is no larger than its range is noise.
"""

from __future__ import annotations

import argparse
import gc
import logging
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

# As src/train.py has it: the library beside this folder, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import torch
import trainer_memory
import trainer_startup
from trainer_loops import (
    BLOCK,
    STEPS_AN_EPOCH,
    Measured,
    Prepared,
    Stopwatch,
    build_fovea,
    convs,
    run_bare,
    run_fovea,
    run_lightning,
)

from fovea.experiment import Experiment

Run = Callable[[Stopwatch], Measured]

WIDTHS = {"tiny": 8, "larger": 64}
WARM_UP, CHECKED = 20, 20
CONTROL = "with nothing changed"
PARTS = {
    "non-finite guard": "NonFiniteGuard",
    "spikes": "LossSpikes",
    "throughput": "Throughput",
    "last checkpoint": "LastCheckpoint",
    "epoch lines": "EpochLines",
    "metrics.csv": "MetricsCSV",
}
ADDED = {"EMA": ["callbacks=[default,ema]"], "logging each step": ["trainer.log_every_n_steps=1"]}


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--startup", action="store_true", help="measure the start, not the steps")
    parser.add_argument("--memory", action="store_true", help="measure the memory")
    parser.add_argument("--images", help="class folders, for --memory with workers")
    parser.add_argument("--cpu", action="store_true", help="measure settings of a CPU")
    parser.add_argument("--networks", default=",".join(WIDTHS), help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300, help="of each run, warm-up included")
    options = parser.parse_args()
    unknown = set(options.networks.split(",")) - set(WIDTHS)
    if unknown:
        parser.error(f"--networks takes {', '.join(WIDTHS)}; unknown: {', '.join(unknown)}")
    most = STEPS_AN_EPOCH - 1
    if (options.steps - WARM_UP) % BLOCK or not WARM_UP < options.steps <= most:
        parser.error(f"--steps is {WARM_UP + BLOCK}, {WARM_UP + 2 * BLOCK} … up to {most}")
    if options.repeats < 1:
        parser.error("--repeats is at least 1")
    if options.startup:
        print("\n".join(trainer_startup.report(options.repeats)))
        return
    if options.memory:
        print("\n".join(trainer_memory.memory_report(options.images)))
        return
    if options.cpu:
        print("\n".join(trainer_memory.cpu_report(options.repeats)))
        return
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    for name in options.networks.split(","):
        print(
            "\n".join(compare(name, convs(WIDTHS[name]), options.steps, options.repeats)),
            flush=True,
        )


def compare(name: str, model: list[str], steps: int, repeats: int) -> list[str]:
    """Return the lines of the table for one network."""
    with tempfile.TemporaryDirectory() as folder:
        found = check(model, Path(folder))
        all_ways = ways(model, Path(folder))
        times: dict[str, list[Measured]] = {way: [] for way in all_ways}
        order = list(all_ways)
        for repeat in range(repeats):
            shift = repeat * len(order) // repeats
            for way in order[shift:] + order[:shift]:  # none is always first, or behind another
                gc.collect()
                times[way].append(all_ways[way](Stopwatch(WARM_UP, steps)))
    bare = times["plain loop"]
    wall, cpu = median([one.wall for one in bare]), median([one.cpu for one in bare])
    lines = [
        f"\n{name}: losses agree to {found:.1e}",
        f"a plain step: {wall:.2f} ms wall, {cpu:.2f} ms CPU",
        "| above the loop (with, without: above fovea), ms a step | wall | CPU | CPU, range |",
        "| --- | --- | --- | --- |",
    ]
    for way, measured in times.items():
        base = times["fovea, default"] if way.startswith(("without", "with ")) else bare
        more = [(a.wall - b.wall, a.cpu - b.cpu) for a, b in zip(measured, base, strict=True)]
        by_wall, by_cpu = (list(column) for column in zip(*more, strict=True))
        span = f"{1000 * min(by_cpu):+.2f} to {1000 * max(by_cpu):+.2f}"
        lines.append(f"| {way} | {median(by_wall):+.2f} | {median(by_cpu):+.2f} | {span} |")
    return lines


def median(seconds: list[float]) -> float:
    """Return the median in milliseconds."""
    return 1000 * statistics.median(seconds)


def check(model: list[str], folder: Path) -> float:
    """Return the largest difference between the losses of fovea and those of the plain loop.

    Raises:
        RuntimeError: it is above 1e-6, so that the two do not do the same.
    """
    bare = run_bare(Prepared.of(fovea(model, folder)), Stopwatch(0, CHECKED, keep_losses=True))
    ours = run_fovea(fovea(model, folder), Stopwatch(0, CHECKED, keep_losses=True))
    difference = float((bare.losses - ours.losses).abs().max())
    if len(bare.losses) != CHECKED or len(ours.losses) != CHECKED or not difference <= 1e-6:
        raise RuntimeError(f"not the same optimisation: losses differ by {difference:.2e}")
    return difference


def fovea(model: list[str], folder: Path, *overrides: str) -> Experiment:
    """Return an experiment as built from the command line, without W&B."""
    return build_fovea(model, ["logger=none", *overrides], folder)


def ways(model: list[str], folder: Path) -> dict[str, Run]:
    """Return what is measured, by name."""

    def ours(drop: tuple[str, ...] = (), add: tuple[str, ...] = ()) -> Run:
        return lambda watch: run_fovea(fovea(model, folder, *add), watch, drop)

    def alone(log_loss: bool) -> Run:
        return lambda watch: run_lightning(Prepared.of(fovea(model, folder)), watch, log_loss)

    return {
        "plain loop": lambda watch: run_bare(Prepared.of(fovea(model, folder)), watch),
        "Lightning alone": alone(False),
        "Lightning, one self.log a step": alone(True),
        "fovea, default": ours(),
        CONTROL: ours(),
        "fovea, all of these left out": ours(tuple(PARTS.values())),
        **{f"without {name}": ours((part,)) for name, part in PARTS.items()},
        **{f"with {name}": ours(add=tuple(words)) for name, words in ADDED.items()},
    }


if __name__ == "__main__":
    main()
