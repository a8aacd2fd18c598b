"""What a sweep's command line is checked for, before anything is started or written."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from fovea.errors import FoveaError
from fovea.safety.redaction import redact, redact_words
from fovea.sweeps.parameters import key_of, parse
from fovea.sweeps.spaces import Space

RECORD = "sweep.yaml"
"""In a sweep's folder: what it was asked to do."""

OPEN = ("name", "n_trials", "workers", "retry_failed")
"""Keys of ``sweep`` that may change while a sweep goes on."""

APART = ("sweep.", "launcher", "hydra.", "paths.", "resume=")
"""Beginnings of overrides that make no other sweep: of ``sweep``, its content is looked at."""


def check_study(cfg: DictConfig, words: list[str], check: Callable[[list[str]], None]) -> Path:
    """Return the folder of the sweep that ``sweep=<space>`` asks for, after checking its space.

    Args:
        cfg: composed with ``words``, sweeps left out.
        words: overrides of the command line.
        check: composes the overrides of a trial and raises `FoveaError` if they are wrong.

    Raises:
        FoveaError: a key that does not exist, a value out of range, the test split, or trials that
            can't be waited for or gone on with.
    """
    _check_results(cfg)
    sweep: Any = OmegaConf.to_container(cfg.sweep, resolve=True)
    space = Space(sweep["space"], sweep["fixed"], words)
    tested = [name for name in sweep["objectives"] or {} if name.startswith("test/")]
    if cfg.test or tested or "test=true" in space.shared:
        change = f"Leave {tested[0]} out" if tested else "Say test=false"
        raise FoveaError(
            "A sweep chooses settings, and the test split must not help to choose them. "
            f"{change}, and test the best trial once: python src/eval.py ckpt=<its folder> "
            "split=test"
        )
    chosen = next((word for word in words if word.startswith("sweep=")), "sweep")
    for trial in space.examples():
        try:
            check(trial)
        except FoveaError as error:
            raise FoveaError(f"{chosen}: {error}") from None
    name = folder_name(chosen.partition("=")[2] or "sweep", sweep, words)
    return Path(cfg.paths.outputs, "sweeps", name)


def _check_results(cfg: DictConfig) -> None:
    """Raise `FoveaError` if no trial of a study would have a result of its own."""
    for key in ("launcher.wait", "launcher.submit"):
        if OmegaConf.select(cfg, key) is False:
            raise FoveaError(
                f"{key}=false: sweep= chooses trials by the results of earlier ones, so it has to "
                f"wait for them. Leave {key} out; to hand over many runs at once, type a grid "
                "without sweep=: optimizer.lr=0.1,0.01"
            )
    if cfg.data.check:
        raise FoveaError("data.check=true trains nothing. Check once, without -m and sweep=.")
    if cfg.resume not in {None, "auto"}:
        raise FoveaError(
            f"resume={cfg.resume} is one run, and sweep= starts several. Leave it out: the same "
            "command goes on with its sweep, and with the trials that were cut off"
        )


def folder_name(space: str, sweep: dict[str, Any], words: list[str]) -> str:
    """Return the name of a sweep's folder: that of its space, and a hash of all that defines it.

    Args:
        space: name of the choice in ``conf/sweep``.
        sweep: its content.
        words: overrides of the command line.
    """
    if sweep["name"] is not None:
        return str(sweep["name"])
    telling = sorted(redact_words([word for word in words if not word.startswith(APART)]))
    kept = {key: redact(value) for key, value in sweep.items() if key not in OPEN}
    digest = hashlib.sha256(json.dumps([kept, telling]).encode()).hexdigest()
    return f"{space}-{digest[:6]}"


def check_basic(cfg: DictConfig, words: list[str]) -> str | None:
    """Return the name of the folder of a basic sweep, None for a new one.

    With ``resume=auto`` it is that of the newest sweep of the same command, with ``run_id`` that.

    Args:
        cfg: of the first job.
        words: overrides of the command line.

    Raises:
        FoveaError: one run to go on with for all jobs, a folder that holds a sweep, or ranges that
            only a study can choose from.
    """
    overrides = [o for o in parse(words) if o.is_sweep_override()]
    swept = [key_of(o) for o in overrides]
    endless = [str(o.input_line) for o in overrides if not o.is_discrete_sweep()]
    if endless:
        raise FoveaError(
            f"'{endless[0]}' is a range for a study to choose from: add sweep=typed (20 trials; "
            "sweep.n_trials=… for more), or list the values."
        )
    if cfg.test and set(swept) - {"seed"}:
        print(
            f"warning: test=true with several {', '.join(swept)}: choose by the validation split, "
            "never by the test split.",
            file=sys.stderr,
        )
    if cfg.resume not in {None, "auto"}:
        raise FoveaError(
            f"resume={cfg.resume} is one run, and -m starts several. Leave -m out; or go on with "
            "a whole sweep: the same command with resume=auto"
        )
    outputs = Path(cfg.paths.outputs)
    if cfg.run_id is not None:
        folder = outputs / str(cfg.run_id)
        there = read_record(folder)
        if there not in (None, basic_record(words)):
            raise FoveaError(
                f"run_id={cfg.run_id}: {folder} holds another sweep. Take another name."
            )
        if there is not None and cfg.resume != "auto":
            raise FoveaError(
                f"run_id={cfg.run_id}: {folder} holds this sweep already. Go on with it: "
                "resume=auto; or take another run_id."
            )
        return str(cfg.run_id)
    if cfg.resume == "auto":
        found = sorted(outputs.glob(f"*/{RECORD}"), key=lambda path: path.stat().st_mtime)
        same = [p.parent for p in found if read_record(p.parent) == basic_record(words)]
        return same[-1].name if same else None
    return None


def basic_record(words: list[str]) -> dict[str, Any]:
    """Return what the record of a basic sweep holds, secrets left out."""
    apart = ("run_id=", "resume=", "launcher", "hydra.")
    telling = [word for word in words if not word.startswith(apart)]
    return {"overrides": sorted(redact_words(telling))}


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return the record in the folder of a sweep, None where there is none (yet)."""
    try:
        return yaml.safe_load((folder / RECORD).read_text(encoding="utf-8"))
    except OSError:
        return None
