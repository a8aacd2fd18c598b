"""The same table and curves from W&B, for runs whose folders are elsewhere.

A run that was logged offline needs none of this: its folder holds the same history.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pandas as pd

from fovea.errors import FoveaError
from fovea.runs.cache import Cache
from fovea.runs.record import Record
from fovea.runs.settings import flatten
from fovea.runs.table import to_table
from fovea.runs.times import seconds_of

logger = logging.getLogger(__name__)

TIMEOUT_S = 30
"""Of a request; W&B's own 19 s are short for a page of large runs."""

ENDED = {"finished", "failed", "crashed", "killed"}
_STATES = {"crashed": "killed"}
"""W&B's word for a run whose heartbeat has stopped -> that of `fovea.runs.load`."""

_NUMBERS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
"""How W&B writes these into JSON."""


def load_wandb(
    project: str,
    filters: Mapping[str, Any] | None = None,
    per_page: int = 100,
    refresh: bool = False,
) -> pd.DataFrame:
    """Return one row for each run of a W&B project, oldest first, with the columns of `load`.

    ``id`` is W&B's (of fovea's runs the folder's name), ``path`` is ``entity/project/id``. Metrics
    are those of W&B's summary: of the best checkpoint where a run has finished, ``objective`` too;
    else the last. What W&B does not list (host, overrides, best epoch) is None. Runs whose state
    and heartbeat have not changed come from the cache of `load`.

    Args:
        project: "entity/project", or "project" of your default entity.
        filters: in MongoDB's language, as ``wandb.Api().runs`` takes them:
            ``{"config.seed": 0, "state": "finished"}``.
        per_page: runs a request.
        refresh: fetch all anew: a summary that was edited later bears no sign of it.

    Raises:
        FoveaError: no account, no network, no such project, or no right to read it.
    """
    if not project.strip("/") or project.count("/") > 1:
        raise FoveaError(f"{project}: give a W&B project as entity/project.")
    cache = Cache(f"wandb:{project}:{filters}")
    known = bool(cache) and not refresh
    rows, settings = [], []
    with _explained(project):
        # Lazily, a page holds little, and each run that is not known costs a request of its own.
        runs = _api().runs(project, filters=dict(filters or {}), per_page=per_page, lazy=known)
        for run in runs:
            stamp = [run.state, _attribute(run, "heartbeat_at")]
            record = cache.find(run.id, stamp) if known else None
            if record is None:
                record = _record(run)
                if run.state in ENDED:
                    cache.add(run.id, stamp, record)
            rows.append(record["row"])
            settings.append(record["settings"])
    cache.write()
    return to_table(rows, settings)


def history_wandb(run: str | Mapping[str, Any] | pd.Series | pd.DataFrame) -> pd.DataFrame:
    """Return all logged rows of a W&B run, or of several, as `fovea.runs.history` does.

    Args:
        run: "entity/project/id", or a row of `load_wandb`; or a whole table of it.

    Raises:
        FoveaError: as `load_wandb`, or there is no such run.
    """
    several = isinstance(run, pd.DataFrame)
    rows = [row for _, row in run.iterrows()] if isinstance(run, pd.DataFrame) else [run]
    paths = [row if isinstance(row, str) else str(row["path"]) for row in rows]
    tables = []
    with _explained(", ".join(paths[:3])):
        api = _api()
        for path in paths:
            found = api.run(path)
            table = _curves(found.scan_history())
            if several:
                table.insert(0, "run", found.id)
            tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"run": []})


def _api() -> Any:
    import wandb  # takes half a second, which reading folders need not wait for

    return wandb.Api(timeout=TIMEOUT_S)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn whatever W&B raises into a `FoveaError` that says what to do."""
    import wandb.errors

    try:
        yield
    except FoveaError:
        raise
    except Exception as error:  # of many kinds: its own, of requests, of the words it expects
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        if isinstance(error, wandb.errors.UsageError | wandb.errors.AuthenticationError):
            advice = "Log in: wandb login, or set WANDB_API_KEY; without a network neither helps."
        else:
            advice = "Is the name right, may your account read it, and is there a network?"
        raise FoveaError(f"W&B: {what} can't be read: {first}\n  {advice}") from error


def _record(run: Any) -> Record:
    """Return what W&B knows of ``run``, in the words of `fovea.runs.load`."""
    settings = flatten(dict(run.config))
    summary = {str(key): _plain(run.summary.get(key)) for key in list(run.summary.keys())}
    monitor = settings.get("monitor.metric")
    metrics = {
        name: value
        for name, value in summary.items()
        if "/" in name and name != "trainer/global_step" and isinstance(value, int | float)
    }
    epoch, step = summary.get("epoch"), summary.get("_step")
    row = {
        **metrics,
        "id": run.id,
        "path": "/".join(run.path),
        "kind": "eval" if _attribute(run, "job_type") == "eval" else "train",
        "state": _STATES.get(run.state, run.state),
        "evidence": f"W&B says {run.state}",
        "sweep": _attribute(run, "sweep_name") or _attribute(run, "group"),
        "time": seconds_of(_attribute(run, "created_at")),
        "touched": seconds_of(_attribute(run, "heartbeat_at")),
        "duration": summary.get("_runtime"),
        "commit": _attribute(run, "commit"),
        "monitor": monitor,
        "mode": settings.get("monitor.mode"),
        "objective": metrics.get(str(monitor)) if run.state == "finished" else None,
        "epochs": epoch + 1 if isinstance(epoch, int) else None,
        "steps": step + 1 if isinstance(step, int) else None,
        "throughput": metrics.get("perf/images_per_second"),
    }
    return {"row": row, "settings": settings}


def _attribute(run: Any, name: str) -> Any:
    """Return an attribute that servers of older versions do not send, or None."""
    return getattr(run, name, None)


def _plain(value: Any) -> Any:
    return _NUMBERS.get(value, value) if isinstance(value, str) else value


def _curves(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return W&B's rows with the columns of metrics.csv: ``epoch``, ``step``, then metrics."""
    found = [
        {
            key: _plain(value)
            for key, value in row.items()
            if not key.startswith("_") and key != "trainer/global_step"
        }
        | {"step": row.get("_step")}
        for row in rows
    ]
    # The last rows of a run hold its pictures and final figures, and no metric of a step.
    names = dict.fromkeys(["epoch", "step", *(key for row in found for key in row)])
    table = pd.DataFrame(found, columns=list(names))
    numbers = table.apply(pd.to_numeric, errors="coerce")
    metrics = [name for name in numbers.columns if numbers[name].notna().any()]
    kept = list(dict.fromkeys(["epoch", "step", *metrics]))
    return numbers.loc[numbers[kept].drop(columns=["epoch", "step"]).notna().any(axis=1), kept]
