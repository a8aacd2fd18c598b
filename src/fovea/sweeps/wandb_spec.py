"""A space as W&B's ``sweep.yaml``, for those whose server chooses the trials."""

from __future__ import annotations

from typing import Any

from hydra import compose, initialize_config_dir

from fovea.arguments import prepare_arguments
from fovea.catalog import config_dir
from fovea.errors import FoveaError
from fovea.sweeps.parameters import Parameter, parse
from fovea.sweeps.plan import Plan
from fovea.sweeps.spaces import Block

_MAX_VALUES = 1000


def sweep_yaml(words: list[str]) -> dict[str, Any]:
    """Return what ``sweep.yaml`` of W&B holds for the sweep that ``words`` describe.

    Its agents run ``python src/train.py key=value …``, with what all trials share at the end.

    Args:
        words: as after ``python src/train.py -m``: ``sweep=<space>`` and overrides.

    Raises:
        FoveaError: as the command would say it; a condition on what the sweep itself varies, which
            W&B's sweeps do not have; several objectives.
    """
    if not any(word.startswith("sweep=") for word in words):
        raise FoveaError("Name a space: sweep=lr_wd, for instance.")
    prepared = [word for word in prepare_arguments("train", ["-m", *words]).words if word != "-m"]
    plan = Plan(_compose(prepared), [word for word in prepared if not word.startswith("hydra.")])
    if len(plan.objectives) > 1:
        raise FoveaError("W&B's sweeps have one objective: leave sweep.objectives out.")
    ((name, mode),) = plan.objectives.items()
    parameters: dict[str, Any] = {}
    _collect(plan, plan.space.root, parameters)
    if plan.seeds != [None]:
        parameters["seed"] = {"values": plan.seeds}
    content: dict[str, Any] = {
        "name": plan.folder.name,
        "program": "src/train.py",
        "method": "random" if plan.settings.sampler == "random" else "bayes",
        "metric": {"name": name, "goal": {"min": "minimize", "max": "maximize"}[mode]},
        "run_cap": plan.settings.n_trials,
        "parameters": parameters,
    }
    if plan.settings.pruner == "hyperband":
        content["early_terminate"] = {"type": "hyperband", "min_iter": 1, "eta": 3}
    macros = ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}"]
    return {**content, "command": [*macros, *plan.space.shared]}


def _compose(words: list[str]) -> Any:
    """Return the configuration without the sweeps in ``words``, Hydra's own node included."""
    plain = [word for word, o in zip(words, parse(words), strict=True) if not o.is_sweep_override()]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return compose("train", plain, return_hydra_config=True)


def _collect(plan: Plan, block: Block, parameters: dict[str, Any]) -> None:
    varied = {parameter.key for parameter in plan.space.parameters}
    for key, wanted in block.conditions.items():
        if key in varied:
            raise FoveaError(
                f"This space has settings that depend on {key}, which W&B's sweeps can't express. "
                f"Fix it: add {key}={wanted[0]}; or let fovea choose: python src/train.py -m …"
            )
        if plan.space.given.get(key, plan.default(key)) not in wanted:
            return
    parameters.update({p.key: _describe(p) for p in block.parameters})
    for inner in block.blocks:
        _collect(plan, inner, parameters)


def _describe(parameter: Parameter) -> dict[str, Any]:
    """Return a parameter in W&B's words; values that agents are to type as they stand are text."""
    if parameter.choices:
        return {"values": list(parameter.choices)}
    low, high = parameter.low, parameter.high
    if parameter.step is not None and not (parameter.whole and parameter.step == 1):
        count = round((high - low) / parameter.step) + 1
        if count > _MAX_VALUES:
            raise FoveaError(f"{parameter.key}: {count} values are too many for W&B.")
        values = [float(f"{low + i * parameter.step:.12g}") for i in range(count)]
        return {"values": [int(v) if parameter.whole else v for v in values]}
    if parameter.whole:
        ends = {"min": int(low), "max": int(high)}
        if parameter.log:
            return {"distribution": "q_log_uniform_values", "q": 1, **ends}
        return {"distribution": "int_uniform", **ends}
    kind = "log_uniform_values" if parameter.log else "uniform"
    return {"distribution": kind, "min": float(low), "max": float(high)}
