"""A sweep without a study, each job typed: its record, and the table at its end."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from fovea import run_folder
from fovea.sweeps import table
from fovea.sweeps.checking import RECORD, basic_record
from fovea.sweeps.table import Entry


def record(config: DictConfig, words: list[str]) -> None:
    """Write sweep.yaml of a basic sweep, by which ``resume=auto`` finds it again."""
    folder = Path(config.hydra.sweep.dir)
    folder.mkdir(parents=True, exist_ok=True)
    table.replace_file(folder / RECORD, yaml.safe_dump(basic_record(words), allow_unicode=True))


def report(config: DictConfig, jobs: list[list[str]]) -> None:
    """Print and write the table of a basic sweep, and that over seeds where ``seed`` was swept.

    Args:
        config: composed by Hydra, its own node included.
        jobs: the overrides of each, in order.

    Raises:
        SystemExit: with status 1, since jobs failed.
    """
    monitor = OmegaConf.select(config, "monitor")
    if monitor is None:  # not training
        return
    folder, objectives = Path(config.hydra.sweep.dir), {str(monitor.metric): str(monitor.mode)}
    same = set.intersection(*map(set, jobs))
    entries = []
    for i, job in enumerate(jobs):
        summary: dict[str, Any] = run_folder.read_summary(folder / str(i))
        value = summary.get("objective") if summary.get("state") == "finished" else None
        params = dict(word.split("=", 1) for word in job if word not in same)
        entries.append(
            Entry(
                str(i), str(summary.get("state", "")), params, None if value is None else [value],
                seconds=summary.get("seconds"), folder=str(i), error=summary.get("error"),
            )
        )  # fmt: skip
    table.write(folder / "sweep.csv", entries, objectives)
    text = table.text(entries, objectives)
    if any("seed" in entry.params for entry in entries):
        means = table.over_seeds(entries)
        table.write(folder / "sweep_over_seeds.csv", means, objectives)
        text += "\n\nOver seeds, mean ± standard deviation:\n" + table.text(means, objectives)
    table.replace_file(folder / "sweep.txt", text + "\n")
    print(f"\nsweep {folder.name}:\n\n{text}\n\n  {os.path.relpath(folder / 'sweep.csv')}",
          flush=True)  # fmt: skip
    if any(entry.state == "failed" for entry in entries):
        sys.exit(1)
