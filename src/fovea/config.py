"""Checks of a composed configuration that need no torch: types, ranges and choices.

Defaults live in ``conf/``; here stands only what a value may be. Sections allow keys that are not
listed, since a data set or task of your own brings its own parameters: those are checked against
the signature of the class they go to when it is built.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, InterpolationResolutionError
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from fovea.errors import FoveaError, did_you_mean

NonNegativeInt = Annotated[int, Ge(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
Share = Annotated[float, Gt(0), Le(1)]
Fraction = Annotated[float, Ge(0), Lt(1)]
Probability = Annotated[float, Ge(0), Le(1)]
Precision = Literal[
    "auto", "32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true", "32", 32
]


class _Section(BaseModel):
    """Strict: text is never read as a number, nor a number as a switch."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Data(_Section):
    batch_size: PositiveInt
    seed: NonNegativeInt
    split_seed: NonNegativeInt
    num_workers: NonNegativeInt | Literal["auto"]
    image_size: PositiveInt | None
    channels: Literal[1, 3] | None
    mean: list[float] | None
    std: list[PositiveFloat] | None
    interpolation: Literal["bilinear", "bicubic"] | None
    crop_ratio: Share | None
    hflip: bool
    val_fraction: Fraction
    test_fraction: Fraction
    fraction: Share
    limit_per_class: PositiveInt | None
    sampling: Literal["shuffle", "balanced"]
    on_bad_image: Literal["error", "skip", "report"]
    repeats: PositiveInt


class _Augment(_Section):
    crop: Literal["auto", "resized", "pad", "none"]
    flip: Probability
    policy: Literal["randaug", "trivialaug"] | None
    erase: Probability
    mixup: NonNegativeFloat
    cutmix: NonNegativeFloat


class _Model(_Section):
    weights: str | bool | None
    # A class of one's own need not have these.
    library: Literal["torchvision", "timm"] = "torchvision"
    stem: Literal["auto", "standard", "small"] = "auto"
    drop_path: Fraction = 0.0


class _Task(_Section):
    loss: Literal["cross_entropy", "bce"]
    label_smoothing: Fraction
    layer_decay: Share


class _Optimizer(_Section):
    lr: PositiveFloat
    weight_decay: NonNegativeFloat


class _Trainer(_Section):
    accelerator: str
    devices: PositiveInt | Literal["auto", -1] | list[NonNegativeInt]
    num_nodes: PositiveInt
    precision: Precision
    max_epochs: PositiveInt
    max_time: str | dict[str, int] | None
    accumulate_grad_batches: PositiveInt
    gradient_clip_val: PositiveFloat | None
    log_every_n_steps: PositiveInt
    check_val_every_n_epoch: PositiveInt
    limit_train_batches: PositiveInt | Share | None
    limit_val_batches: NonNegativeInt | Probability | None
    limit_test_batches: NonNegativeInt | Probability | None


class _Monitor(_Section):
    metric: str
    mode: Literal["min", "max"]


class _Train(_Section):
    data: _Data
    augment: _Augment
    model: _Model
    task: _Section
    optimizer: _Optimizer
    trainer: _Trainer
    monitor: _Monitor
    seed: NonNegativeInt
    test: bool
    compile: bool
    channels_last: bool
    tags: list[str]


class _Eval(_Section):
    ckpt: str | None
    split: Literal["train", "val", "test"]


class _Predict(_Section):
    ckpt: str | None
    top_k: PositiveInt


_SCHEMAS: dict[str, type[_Section]] = {"train": _Train, "eval": _Eval, "predict": _Predict}


def check(cfg: DictConfig, command: str) -> None:
    """Check every value of a composed ``cfg`` whose type, range or choices are known.

    Args:
        cfg: what ``conf/<command>.yaml`` and the overrides compose to.
        command: "train", "eval" or "predict".

    Raises:
        FoveaError: names every wrong key with its value and what would do, all at once.
    """
    schema = _SCHEMAS[command]
    if command == "train" and str(cfg.task.get("_target_")) == "fovea.tasks.ClassificationTask":
        schema = type("_Train", (_Train,), {"__annotations__": {"task": _Task}})
    try:
        missing = sorted(str(key) for key in OmegaConf.missing_keys(cfg))
        plain = (
            {}
            if missing
            else {
                key: OmegaConf.to_container(cfg[key], resolve=True)
                if OmegaConf.is_config(cfg[key])
                else cfg[key]
                for key in schema.model_fields
                if key in cfg
            }
        )
    except (InterpolationKeyError, InterpolationResolutionError) as error:
        raise FoveaError(f"A value of the configuration points nowhere: {error}") from None
    if missing:
        needed = " ".join(f"{key}=…" for key in missing)
        raise FoveaError(f"{', '.join(missing)} must be given. Add: {needed}")
    try:
        schema.model_validate(plain)
    except ValidationError as error:
        raise FoveaError("\n".join(_sentences(error))) from None


def _sentences(error: ValidationError) -> list[str]:
    """Return a line for each wrong key; the alternatives of a union make one line together."""
    by_key: dict[str, list[Any]] = {}
    for item in error.errors():
        # pydantic appends the alternative of a union to the path: keep only names of our own keys.
        path = [str(part) for part in item["loc"] if _is_key(part)]
        by_key.setdefault(".".join(path), []).append(item)
    lines = []
    for key, items in by_key.items():
        value = items[0]["input"]
        if items[0]["type"] == "missing":
            lines.append(f"{key} is missing.")
            continue
        wanted = " or ".join(dict.fromkeys(_wanted(item) for item in items))
        choices = [c.strip("' ") for item in items if item["type"] == "literal_error"
                   for c in item["ctx"]["expected"].replace(" or ", ", ").split(", ")]  # fmt: skip
        shown = f"'{value}' (text)" if isinstance(value, str) else value
        lines.append(f"{key}={shown}: expected {wanted}.{did_you_mean(str(value), choices)}")
    return lines


def _is_key(part: object) -> bool:
    text = str(part)
    return not any(mark in text for mark in "[(-") and text not in {"int", "float", "str", "bool"}


def _wanted(item: Any) -> str:
    context = item.get("ctx", {})
    bounds = {"greater_than": "gt", "greater_than_equal": "ge", "less_than": "lt"}
    bounds["less_than_equal"] = "le"
    words = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}
    if item["type"] in bounds:
        name = bounds[item["type"]]
        return f"a number of {words[name]} {context[name]:g}"
    kinds = {
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "float_type": "a number",
        "bool_type": "true or false",
        "string_type": "text",
        "list_type": "a list",
        "dict_type": "a mapping",
        "none_required": "null",
    }
    if item["type"] == "literal_error":
        return f"one of {context['expected']}"
    return kinds.get(item["type"], item["msg"])
