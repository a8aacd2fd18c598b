"""``resume=auto``: which run the same command, typed again, goes on with.

Decided once a run, before torch is imported: the ranks that Lightning starts get the answer from
the arguments of their parent, those that were started from outside (torchrun, srun) from rank 0.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf, open_dict

from fovea import config, run_folder, run_id, run_lock
from fovea.checkpoints import durable
from fovea.errors import FoveaError

# Where and beside what a run runs, and what only watches it: of two configurations that differ in
# nothing else, one run may go on with the other. (What else `resume=` lets one change makes it
# another run.)
PLACE = (
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.accumulate_grad_batches",
    "trainer.log_every_n_steps",
    "trainer.profiler",
    "callbacks.progress",
    "callbacks.image_sheets",
    "callbacks.learning_curves",
    "checkpoint",
    "logger",
    "data.num_workers",
    "paths",
    "tags",
)
# How it was started and what it is called.
NO_MATTER = (
    "run_id",
    "group",
    "resume",
    "sweep",
    "launcher",
    "allow_targets",
    "plan",
    "hardware",
)
_WAIT_S = 300


class Choice(NamedTuple):
    """The run to go on with.

    Attributes:
        folder: of the run.
        finished: whether there is nothing left to do.
    """

    folder: Path
    finished: bool


def fingerprint(cfg: DictConfig) -> str:
    """Return a hash of all that decides how the run that ``cfg`` describes turns out."""
    cfg = cfg.copy()
    with open_dict(cfg):
        config.make_absolute(cfg)
        cfg.paths.run = cfg.run_id = "run"
        cfg.group = None
    plain = OmegaConf.to_container(cfg, resolve=True)
    for key in (*PLACE, *NO_MATTER):
        *parents, last = key.split(".")
        node: Any = plain
        for parent in parents:
            node = node.get(parent) or {}  # there need be no callbacks
        node.pop(last, None)
    text = json.dumps(plain, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def choose(cfg: DictConfig) -> Choice | None:
    """Return the run that ``cfg`` with ``resume=auto`` stands for, None if a new one begins.

    That is the newest unfinished one in ``paths.outputs`` with the same `fingerprint`, else the
    newest finished one; of a job of a sweep (``paths.run``) and with ``run_id=`` only that one.
    An unfinished one is locked, unless another process will train it.

    Raises:
        FoveaError: such a run is being trained just now, or the run of that name is another.
    """
    rank, launch = _started_from_outside()
    outputs = Path(cfg.paths.outputs)
    here = cfg.launcher._target_ == "fovea.launchers.BasicLauncher"
    if cfg.paths.run is not None or cfg.run_id is not None:
        only = Path(cfg.paths.run or outputs / str(cfg.run_id))
        found = _search(cfg, [only], lock=here and rank == 0)
        if found is None and "fingerprint" in run_folder.read_summary(only):
            raise FoveaError(
                f"resume=auto: {only} holds a run of another configuration. Take another run_id."
            )
        return found
    folders = [file.parent for d in ("*", "*/*") for file in outputs.glob(f"{d}/summary.json")]
    if launch is None:
        return _search(cfg, folders, lock=here)
    note = outputs / ".resume" / f"{launch}.json"
    if rank == 0:
        found = _search(cfg, folders, lock=True)
        note.parent.mkdir(parents=True, exist_ok=True)
        chosen = None if found is None else [str(found.folder), found.finished]
        durable.write_text(note, json.dumps(chosen))
        atexit.register(note.unlink, missing_ok=True)  # the next launch may have the same name
        return found
    chosen = _wait_for(note)
    return None if chosen is None else Choice(Path(chosen[0]), chosen[1])


def _search(cfg: DictConfig, folders: list[Path], lock: bool) -> Choice | None:
    """Return the newest unfinished run of ``cfg`` in ``folders``, else the newest finished one."""
    wanted = fingerprint(cfg)
    runs = [(run_folder.read_summary(folder), folder) for folder in folders]
    same = [(s.get("started", 0.0), s, f) for s, f in runs if s.get("fingerprint") == wanted]
    same.sort(key=lambda item: item[0], reverse=True)
    for _, summary, folder in same:
        if summary["state"] not in {"finished", "pruned"}:
            if lock:
                run_lock.must_take(folder)
            return Choice(folder, finished=False)
    return Choice(same[0][2], finished=True) if same else None


def _started_from_outside() -> tuple[int, str | None]:
    """Return this process's rank and a name of the launch that all its ranks know, if any."""
    env = os.environ
    if "TORCHELASTIC_RUN_ID" in env:
        parts = [env.get("MASTER_PORT", ""), env.get("TORCHELASTIC_RESTART_COUNT", "0")]
        return int(env["RANK"]), "-".join([run_id.shared_name() or "", *parts])
    return int(env.get("SLURM_PROCID", "0")), run_id.shared_name()


def _wait_for(note: Path) -> Any:
    """Return what rank 0 wrote into ``note``, once it is there."""
    end = time.monotonic() + _WAIT_S
    while not note.is_file():
        if time.monotonic() > end:
            raise FoveaError(
                f"resume=auto: rank 0 did not say within {_WAIT_S} s which run goes on ({note}). "
                "Does it see the same paths.outputs?"
            )
        time.sleep(0.2)
    return json.loads(note.read_text())
