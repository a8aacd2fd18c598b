"""Starting and stopping W&B's own process and run, whatever state the machine is in."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fovea.machine.places import is_writable
from fovea.safety.redaction import redact, redact_words
from fovea.tracking.wandb_access import Mode

logger = logging.getLogger(__name__)

SETTINGS: dict[str, Any] = {
    "quiet": True,
    "show_warnings": False,  # what goes wrong later is said by `WandbRun`, once
    # How long a server that answers may take to register the run; wandb itself would wait 90 s.
    "init_timeout": 10,
    "finish_timeout_raises": True,
    "login_timeout": 1,  # if it should ask after all, nobody has to answer
    "reinit": "finish_previous",
    "disable_git": True,  # a remote's URL may hold a token; the commit is in the config
    # How much of an offline run a kill may cost: with wandb's own 15 s a short one is unreadable.
    "x_transaction_log_flush_interval": 1.0,
}
"""Of wandb; those that its version does not know are left out."""


def start_run(init: Mapping[str, Any], mode: Mode, finish_timeout_s: float) -> Any:
    """Return the started W&B run, None where W&B refuses; then a warning has said why.

    Args:
        init: arguments of ``wandb.init``.
        mode: of the run.
        finish_timeout_s: how long its end may take; `TimeoutError` is raised after that.
    """
    import wandb

    if _as_text(init["dir"]) != init["dir"]:
        logger.warning("W&B: off, since the name of the run's folder is no UTF-8: %r", init["dir"])
        return None
    wanted = {**SETTINGS, "silent": mode != "online", "finish_timeout": finish_timeout_s}
    known = {key: value for key, value in wanted.items() if key in wandb.Settings.model_fields}
    resume = "allow" if mode == "online" else None  # offline it only makes wandb complain
    arguments = {**_as_text(redact(init)), "mode": mode, "resume": resume}
    arguments.pop("anonymous", None)  # Lightning passes what wandb no longer knows
    try:
        with _redacted_command(), _without_launch():
            run = wandb.init(**arguments, settings=wandb.Settings(**known))
        run.define_metric("trainer/global_step")
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    except Exception as error:  # whatever W&B raises, the training goes on
        logger.warning("W&B: could not start %s: %s", mode, first_line(error))
        with suppress(Exception):
            wandb.teardown()  # else the run's id counts as taken
        return None
    return run


def _as_text(value: Any) -> Any:
    """Return ``value``, nested plain types, with the bytes in file names that are no text escaped.

    W&B sends UTF-8, and fails as a whole where something is none.
    """
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {_as_text(key): _as_text(item) for key, item in value.items()}
    return [_as_text(item) for item in value] if isinstance(value, list) else value


@contextmanager
def _redacted_command() -> Iterator[None]:
    """Show W&B the command line without its secrets: it records ``sys.argv`` when a run starts."""
    words = sys.argv
    sys.argv = _as_text(redact_words(words))
    try:
        yield
    finally:
        sys.argv = words


@contextmanager
def _without_launch() -> Iterator[None]:
    """Keep W&B from importing its job launcher where nobody has: a second that finds no jobs.

    Inputs of a launched job are staged by functions of that very module.
    """
    from wandb.sdk.wandb_run import Run

    name = "_detect_and_apply_job_inputs"
    own = getattr(Run, name, None)
    if own is None or "wandb.sdk.launch" in sys.modules:
        yield
        return
    setattr(Run, name, lambda self: None)
    try:
        yield
    finally:
        setattr(Run, name, own)


def stop_run(run: Any) -> None:
    """End a run that failed, and W&B's process with it, so that another can be started."""
    import wandb

    with suppress(Exception):
        run.finish(exit_code=1)
    with suppress(Exception):
        wandb.teardown()


def prepare_folder(folder: Path) -> None:
    """Make W&B's folder of a run; its cache, data and config go there if the home is read-only."""
    with suppress(OSError):  # W&B itself says it better
        folder.mkdir(parents=True, exist_ok=True)
    # At exit wandb sends reports of its own errors, and waits for a server that hangs.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    places = {
        "WANDB_CACHE_DIR": os.environ.get("XDG_CACHE_HOME") or "~/.cache",
        "WANDB_DATA_DIR": os.environ.get("XDG_DATA_HOME") or "~/.local/share",
        "WANDB_CONFIG_DIR": os.environ.get("XDG_CONFIG_HOME") or "~/.config",
    }
    for variable, place in places.items():
        if variable not in os.environ and not is_writable(Path(os.path.expanduser(place))):
            os.environ[variable] = str(folder / variable.split("_")[1].lower())


def first_line(error: BaseException) -> str:
    """Return the first line of what ``error`` says, or what kind it is."""
    return (str(error) or type(error).__name__).strip().splitlines()[0]
