"""The command line: check the arguments, then hand over to Hydra, which runs the job.

A command composes its configuration once by itself to check it (see `fovea.arguments`); Hydra
composes it again. Hydra's own flags (``-m``, ``--cfg job``, ``--config-dir`` …) keep working.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, open_dict

from fovea import run_folder
from fovea.arguments import flags_of, prepare_arguments, quote, runs_here
from fovea.catalog import config_dir, help_text
from fovea.config import make_absolute
from fovea.errors import FoveaError, printable
from fovea.launchers import Job
from fovea.machine import places, slurm
from fovea.machine.signals import STOP
from fovea.safety import targets
from fovea.safety.redaction import redact_text, redact_words
from fovea.sweeps import outcomes


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
    typed = arguments = sys.argv[1:]
    try:
        places.prepare_process()
        if {"-h", "--help"} & set(arguments):
            print(help_text(command))
            return
        arguments, outputs, finished = prepare_arguments(command, arguments)
        if outputs is not None:
            run_folder.check_writable(outputs)
            places.prepare_folders(outputs.absolute())
    except FoveaError as error:
        _fail(error)
    if finished is not None:
        print(
            f"resume=auto: {finished} is a finished run of this configuration, so there is nothing "
            "to do. To train it once more, leave resume=auto out."
        )
        return
    # From the last checkpoint, that is, and not from one that was named.
    goes_on = any(w.startswith("resume=") and ".ckpt" not in w for w in typed)
    sys.argv[1:] = arguments
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # a bug is shown with its traceback
    jobs: list[Job] = []
    task = _task_function(command, jobs)
    if command == "train":
        STOP.listen()
    try:
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=command)(task)()
    except FoveaError as error:
        _fail(error)
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        slurm.requeue(STOP.status, goes_on)
        sys.exit(STOP.status)
    except SystemExit as ended:
        slurm.requeue(ended.code, goes_on)
        raise
    failed = [job for job in jobs if job.failed]
    if failed:
        print(f"{len(failed)} job(s) failed: {', '.join(j.name for j in failed)}", file=sys.stderr)
        sys.exit(1 if len(jobs) > 1 else failed[0].status)


def _task_function(command: str, jobs: list[Job]) -> Callable[[DictConfig], float | Job | None]:
    """Return what Hydra calls with a configuration: it runs ``command``, or adds to ``jobs``."""

    def run(cfg: DictConfig) -> float | Job | None:
        sweep = HydraConfig.get().mode == RunMode.MULTIRUN
        if sweep or not runs_here(cfg):
            jobs.append(_own_process(command))
            if not sweep:
                try:
                    instantiate(cfg.launcher).run([jobs[-1]], need_results=False)
                except FoveaError as error:  # caught here, before Hydra prints its own words
                    _fail(error)
            return jobs[-1]
        # Slow (torch), so only now that the arguments are known to be good.
        from fovea import console

        folder = Path(HydraConfig.get().runtime.output_dir)
        place = ("run_id=", "launcher=")
        overrides = [o for o in HydraConfig.get().overrides.task if not o.startswith(place)]
        with open_dict(cfg):
            make_absolute(cfg)
            cfg.paths.run = str(folder)
            cfg.run_id = cfg.run_id or folder.name
        console.start_logging(folder, command)
        try:
            with targets.allowing(cfg.allow_targets):
                return import_module(f"fovea.commands.{command}").run(cfg, overrides)
        except FoveaError as error:
            _fail(error)
        finally:
            console.remove_if_empty(folder, command)

    return run


def _own_process(command: str) -> Job:
    """Return the job that Hydra has just set up, as a single run in a process of its own.

    Lightning hands ``sys.argv`` to the ranks it starts: with ``-m`` in it each rank would run the
    whole sweep. A process a job also ends its W&B run and frees its memory.
    """
    settings = HydraConfig.get()
    folder = Path(settings.runtime.output_dir)
    sweep = settings.mode == RunMode.MULTIRUN
    ours = ("run_id=", "group=", "launcher=", "launcher.", "hydra.")
    typed = [o for o in settings.overrides.task if not o.lstrip("+~").startswith(ours)]
    # Absolute, so that the name is that of the job's folder wherever the launcher runs it.
    name = f"{folder.parent.name}-{folder.name}" if sweep else folder.name
    own = [f"hydra.run.dir={quote(str(folder))}", f"run_id={quote(name)}", "launcher=basic"]
    group = [o for o in settings.overrides.task if o.startswith("group=")]
    own += group or [f"group={quote(folder.parent.name)}"] * (sweep and command == "train")
    # Where resume=auto looks, and where `_fail` leaves the reason.
    own += [f"paths.run={quote(str(folder))}"] * sweep
    flags = [a for a in flags_of(sys.argv[1:]) if a not in {"-m", "--multirun"}]
    words = [sys.executable, sys.argv[0], *flags, *typed, *own, "hydra.mode=RUN"]
    shown = [word for word in typed if not word.startswith("++callbacks.pruning")]
    settled = printable(" ".join(redact_words(shown)))
    return Job(folder.name, settled, words, folder, resumes=command == "train")


def _fail(error: FoveaError) -> NoReturn:
    outcomes.note_error(sys.argv, str(error))
    print(f"\nerror: {printable(redact_text(str(error)))}", file=sys.stderr, flush=True)
    sys.exit(2)
