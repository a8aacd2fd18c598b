"""Pictures of a study: how it went on, what mattered, and where good values lie."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from optuna.trial import FrozenTrial, TrialState

from fovea.evaluation.figures import BAD, FAINT, GOOD, INK, new_figure, shorten
from fovea.sweeps.study import best

log = logging.getLogger("fovea")


def draw(study: optuna.Study, objectives: dict[str, str], folder: Path) -> list[Path]:
    """Write history.png, importance.png and slices.png (and front.png) and return their paths.

    What needs more trials than there are is left out.

    Args:
        study: its trials.
        objectives: {name: "min" or "max"}.
        folder: for the files.
    """
    trials = study.get_trials(deepcopy=False)
    done = [t for t in trials if t.state == TrialState.COMPLETE]
    if not done:
        return []
    paths = [_history(trials, objectives, folder / "history.png")]
    if len(done) >= 4:
        importance = _importances(study, list(objectives.values()))
        if importance:
            paths.append(_importance(importance, list(objectives), folder / "importance.png"))
        paths.append(_slices(done, objectives, list(importance), folder / "slices.png"))
    if len(objectives) > 1:
        paths.append(_front(done, objectives, folder / "front.png"))
    return paths


def _history(trials: list[FrozenTrial], objectives: dict[str, str], path: Path) -> Path:
    with new_figure(path, 7, 2.8 * len(objectives)) as figure:
        axes = figure.subplots(len(objectives), 1, squeeze=False, sharex=True)[:, 0]
        for i, (ax, (name, mode)) in enumerate(zip(axes, objectives.items(), strict=True)):
            done = [t for t in trials if t.state == TrialState.COMPLETE]
            values = [t.values[i] for t in done]
            running = np.minimum if mode == "min" else np.maximum
            numbers = [t.number for t in done]
            ax.plot(numbers, running.accumulate(values), color=GOOD, lw=1.5, drawstyle="steps-post",
                    label="best so far")  # fmt: skip
            ax.scatter(numbers, values, s=18, color=INK, zorder=3, label="finished")
            _scale(ax, values)
            _mark(ax, trials, TrialState.PRUNED, "x", FAINT, "pruned (last report)")
            _mark(ax, trials, TrialState.FAIL, "|", BAD, "failed")
            ax.set_ylabel(name)
            ax.set_title(f"{name}, {'lower' if mode == 'min' else 'higher'} is better")
        axes[-1].set_xlabel("trial")
        axes[-1].xaxis.get_major_locator().set_params(integer=True)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return path


def _scale(ax: Axes, values: list[float]) -> None:
    """Make the upright axis logarithmic where the values span more than a decade."""
    if min(values) > 0 and max(values) / min(values) > 10:
        ax.set_yscale("log")
        _plain_ticks(ax.yaxis)


def _plain_ticks(axis: Axis) -> None:
    """Write 0.001 and 1e-05 on a logarithmic axis; powers need the mathematics that is off here."""
    axis.set_major_locator(LogLocator(numticks=5))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _mark(
    ax: Axes, trials: list[FrozenTrial], state: TrialState, marker: str, color: str, label: str
) -> None:
    """Draw trials that did not finish: at their last report, or at the lower edge without one."""
    chosen = [t for t in trials if t.state == state]
    last = [(t.number, list(t.intermediate_values.values())[-1:]) for t in chosen]
    reports = [(number, value[0]) for number, value in last if value and np.isfinite(value[0])]
    known = {number for number, _ in reports}
    bare = [t.number for t in chosen if t.number not in known]
    if reports:
        numbers, values = zip(*reports, strict=True)
        ax.scatter(numbers, values, marker=marker, s=24, color=color, label=label)
    if bare:
        transform = ax.get_xaxis_transform()
        ax.scatter(bare, [0.03] * len(bare), marker=marker, s=24, color=color, clip_on=False,
                   transform=transform, label=None if reports else label)  # fmt: skip


def _importances(study: optuna.Study, modes: list[str]) -> dict[str, list[float]]:
    """Return {parameter: its share of each objective's variation}, most important first."""
    shares: list[dict[str, float]] = []
    for i, mode in enumerate(modes):
        sign = 1 if mode == "min" else -1  # the method asks what makes values low

        def target(trial: FrozenTrial, i: int = i, sign: int = sign) -> float:
            return sign * float(trial.values[i])

        try:
            with warnings.catch_warnings(action="ignore"):
                shares.append(optuna.importance.get_param_importances(study, target=target))
        except (ValueError, RuntimeError) as error:  # all trials alike, or no common parameter
            log.debug("importance: %s", error)
            return {}
    names = sorted(shares[0], key=lambda name: -sum(share.get(name, 0) for share in shares))
    return {name: [share.get(name, 0.0) for share in shares] for name in names}


def _importance(importance: dict[str, list[float]], objectives: list[str], path: Path) -> Path:
    names = list(importance)[::-1]
    count = len(objectives)
    with new_figure(path, 7, 1.3 + 0.34 * len(names) * max(1, 0.7 * count)) as figure:
        ax = figure.subplots()
        colors = [GOOD, FAINT, BAD, INK]
        for i, objective in enumerate(objectives):
            rows = np.arange(len(names)) - (i - (count - 1) / 2) * 0.8 / count
            bars = ax.barh(rows, [importance[name][i] for name in names], 0.75 / count,
                           color=colors[i % 4], label=objective)  # fmt: skip
            ax.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
        ax.set_yticks(np.arange(len(names)), [shorten(name, 48) for name in names])
        ax.set_xlim(0, 1.08)
        ax.set_xlabel("share of the objective's variation")
        ax.set_title("Importance of each setting")
        if count > 1:
            ax.legend(loc="lower right")
    return path


def _slices(
    done: list[FrozenTrial], objectives: dict[str, str], first: list[str], path: Path
) -> Path:
    """Draw the first objective against each parameter; those in ``first`` come first."""
    names = list(dict.fromkeys([*first, *(name for t in done for name in t.params)]))[:12]
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    objective = next(iter(objectives))
    best_numbers = {trial.number for trial in best(done, objectives)}
    with new_figure(path, 1 + 2.6 * columns, 0.5 + 2.4 * rows) as figure:
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for ax in grid.flat[len(names) :]:
            ax.set_visible(False)
        for i, (ax, name) in enumerate(zip(grid.flat, names, strict=False)):
            having = [t for t in done if name in t.params]
            values = [t.values[0] for t in having]
            colors = [GOOD if t.number in best_numbers else INK for t in having]
            ax.scatter(_places(ax, name, having), values, s=18, c=colors)
            _scale(ax, [t.values[0] for t in done])
            key, _, condition = name.partition(" [")
            ax.set_xlabel(shorten(key, 30) + (f"\nwhere {condition[:-1]}" if condition else ""))
            if i % columns == 0:
                ax.set_ylabel(objective)
        figure.suptitle(f"{objective} over each setting (blue: best)", x=0.01, ha="left",
                        fontsize=10, fontweight="bold")  # fmt: skip
    return path


def _places(ax: Axes, name: str, trials: list[FrozenTrial]) -> list[Any]:
    """Return where each trial stands on the axis of a parameter, and prepare that axis."""
    distribution = trials[0].distributions[name]
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        words = [str(choice) for choice in distribution.choices]
        ax.set_xticks(range(len(words)), [shorten(word, 14) for word in words],
                      rotation=30 if max(map(len, words)) > 6 else 0)  # fmt: skip
        ax.set_xlim(-0.5, len(words) - 0.5)
        return [words.index(str(t.params[name])) for t in trials]
    if getattr(distribution, "log", False):
        ax.set_xscale("log")
        _plain_ticks(ax.xaxis)
    return [t.params[name] for t in trials]


def _front(done: list[FrozenTrial], objectives: dict[str, str], path: Path) -> Path:
    """Draw the first two objectives against each other, the trials that none beats in blue."""
    names = list(objectives)[:2]
    front = sorted(best(done, objectives), key=lambda trial: trial.values[0])
    with new_figure(path, 5.5, 4) as figure:
        ax = figure.subplots()
        first, second = zip(*[t.values[:2] for t in done], strict=True)
        ax.scatter(first, second, s=18, color=FAINT)
        points = [t.values[:2] for t in front]
        ax.plot(*zip(*points, strict=True), "o-", color=GOOD, lw=1, ms=5)
        for trial in front:
            ax.annotate(str(trial.number), trial.values[:2], xytext=(5, 4), fontsize=8,
                        textcoords="offset points")  # fmt: skip
        ax.set_xlabel(f"{names[0]} ({objectives[names[0]]})")
        ax.set_ylabel(f"{names[1]} ({objectives[names[1]]})")
        ax.set_title("Trials that no other beats in everything (blue)")
    return path
