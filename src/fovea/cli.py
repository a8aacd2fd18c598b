"""The command line: check the arguments, then hand over to Hydra, which runs the job.

A command composes its configuration once by itself to check it (see `fovea.arguments`); Hydra
composes it again. Hydra's own flags (``-m``, ``--cfg job``, ``--config-dir`` …) keep working.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from fovea import run_folder
from fovea.arguments import flags_of, prepare_arguments, quote
from fovea.catalog import config_dir, help_text
from fovea.errors import FoveaError


def train() -> None:
    """Run the ``train`` command with the arguments of this process."""
    main("train")


def evaluate() -> None:
    """Run the ``eval`` command with the arguments of this process."""
    main("eval")


def predict() -> None:
    """Run the ``predict`` command with the arguments of this process."""
    main("predict")


def main(command: str) -> None:
    """Check the arguments of this process, then run ``command`` ("train", "eval", "predict")."""
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        print(help_text(command))
        return
    try:
        arguments, outputs = prepare_arguments(command, arguments)
        if outputs is not None:
            run_folder.check_writable(outputs)
    except FoveaError as error:
        _fail(error)
    sys.argv[1:] = arguments
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # a bug is shown with its traceback
    failed: list[str] = []
    job = _task_function(command, failed)
    try:
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=command)(job)()
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        sys.exit(130)
    if failed:
        print(f"{len(failed)} job(s) failed: {', '.join(failed)}", file=sys.stderr)
        sys.exit(1)


def _task_function(command: str, failed: list[str]) -> Callable[[DictConfig], float | None]:
    def run(cfg: DictConfig) -> float | None:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            return _run_in_own_process(failed)
        # Slow (torch), so only now that the arguments are known to be good.
        from fovea import console

        folder = Path(HydraConfig.get().runtime.output_dir)
        overrides = [o for o in HydraConfig.get().overrides.task if not o.startswith("run_id=")]
        with open_dict(cfg):
            make_absolute(cfg)
            cfg.paths.run = str(folder)
            cfg.run_id = cfg.run_id or folder.name
        console.start_logging(folder, command)
        try:
            return import_module(f"fovea.commands.{command}").run(cfg, overrides)
        except FoveaError as error:
            _fail(error)
        finally:
            console.remove_if_empty(folder, command)

    return run


def _run_in_own_process(failed: list[str]) -> float | None:
    """Run one job of a sweep as a single run of its own and return its objective.

    Lightning hands ``sys.argv`` to the ranks it starts: with ``-m`` in it each rank would run the
    whole sweep. A process a job also ends its W&B run and frees its memory.
    """
    settings = HydraConfig.get()
    folder = Path(settings.runtime.output_dir)
    overrides = [o for o in settings.overrides.task if not o.startswith(("run_id=", "group="))]
    group = folder.parent.name
    # Absolute, so that the name is that of the job's folder wherever the launcher runs it.
    own = [f"hydra.run.dir={quote(str(folder))}", f"run_id={quote(f'{group}-{folder.name}')}"]
    given_group = [o for o in settings.overrides.task if o.startswith("group=")]
    own += given_group or [f"group={quote(group)}"]
    flags = [a for a in flags_of(sys.argv[1:]) if a not in {"-m", "--multirun"}]
    command = [sys.executable, sys.argv[0], *flags, *overrides, *own, "hydra.mode=RUN"]
    print(f"\n[{folder.name}] {' '.join(overrides) or 'defaults'}", flush=True)
    # Not subprocess.run: on Ctrl-C it would kill the job, which is saving its checkpoint just then.
    job = subprocess.Popen(command)
    try:
        status = job.wait()
    except KeyboardInterrupt:
        job.wait()
        raise
    if status == 130:
        raise KeyboardInterrupt
    if status:
        failed.append(folder.name)
        return math.nan
    objective = run_folder.read_summary(folder).get("objective")
    return None if objective is None else float(objective)


def make_absolute(cfg: DictConfig) -> None:
    """Write the paths in ``cfg`` in full: what a run records holds from any directory."""
    for key in ("data.root", "data.cache_dir", "paths.outputs", "paths.data", "model.weights"):
        value = OmegaConf.select(cfg, key, default=None)
        if isinstance(value, str) and "://" in value:
            continue  # shards may lie behind a URL
        if isinstance(value, str) and (key != "model.weights" or Path(value).exists()):
            OmegaConf.update(cfg, key, str(Path(value).expanduser().absolute()))


def _fail(error: FoveaError) -> NoReturn:
    print(f"\nerror: {error}", file=sys.stderr, flush=True)
    sys.exit(2)
