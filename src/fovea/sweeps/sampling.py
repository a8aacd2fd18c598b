"""How trials are chosen and judged: Optuna's samplers, pruners and distributions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import Trial

from fovea.sweeps.parameters import Parameter


@dataclass(frozen=True)
class Settings:
    """How trials are chosen and judged.

    Attributes:
        n_trials: in all, by all workers, however often the command is typed.
        sampler: "tpe" or "random".
        pruner: "none", "median" or "hyperband".
        objectives: {name in summary.json: "min" or "max"}.
        seed: of the sampler.
        startup_trials: chosen at random, and never pruned by the median.
        warmup_epochs: without pruning by the median.
        max_epochs: of a trial, for hyperband.
    """

    n_trials: int
    sampler: str
    pruner: str
    objectives: dict[str, str]
    seed: int
    startup_trials: int
    warmup_epochs: int
    max_epochs: int


def make_sampler(settings: Settings, number: int) -> optuna.samplers.BaseSampler:
    """Return what chooses the values of trial ``number``, seeded by that number."""
    mixed = np.random.SeedSequence([settings.seed, number])
    seed = int(mixed.generate_state(1)[0])
    if settings.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(
        n_startup_trials=settings.startup_trials,
        multivariate=True,
        group=True,  # parameters that exist only under a condition
        constant_liar=True,  # other workers' running trials are counted as bad
        seed=seed,
    )


def make_pruner(settings: Settings) -> optuna.pruners.BasePruner:
    """Return what ends trials early; the steps it counts in are epochs, from 1."""
    if settings.pruner == "median":
        return optuna.pruners.MedianPruner(settings.startup_trials, settings.warmup_epochs)
    if settings.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(max_resource=settings.max_epochs)
    return optuna.pruners.NopPruner()


def suggest(trial: Trial, parameter: Parameter) -> str:
    """Return the value of ``parameter`` that the study chose for ``trial``, as typed."""
    value = trial._suggest(parameter.name, distribution(parameter))
    if isinstance(value, float) and parameter.step is not None:
        value = float(f"{value:.12g}")  # 0.3, not 0.30000000000000004
    return parameter.write(value)


def distribution(parameter: Parameter) -> BaseDistribution:
    """Return Optuna's description of the values of ``parameter``."""
    if parameter.choices:
        return CategoricalDistribution(parameter.choices)
    if parameter.whole:
        low, high, step = int(parameter.low), int(parameter.high), int(parameter.step or 1)
        return IntDistribution(low, high, log=parameter.log, step=step)
    return FloatDistribution(parameter.low, parameter.high, parameter.log, parameter.step)
