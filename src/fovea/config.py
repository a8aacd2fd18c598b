"""Checks of a composed configuration that need no torch, and the words for what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, InterpolationResolutionError
from pydantic import ValidationError

from fovea.errors import FoveaError, did_you_mean
from fovea.schema import PATTERNS, SCHEMAS, document_keys


def check(cfg: DictConfig, command: str) -> None:
    """Check every value of a composed ``cfg`` whose type, range or choices are known.

    Args:
        cfg: what ``conf/<command>.yaml`` and the overrides compose to.
        command: "train", "eval" or "predict".

    Raises:
        FoveaError: names every wrong key with its value and what would do, all at once.
    """
    schema = SCHEMAS[command]
    if "_target_" not in (cfg.get("data") or {}):
        # eval with some data settings of a checkpoint changed: they are merged into its own later.
        cfg = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "data"])
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


def make_absolute(cfg: DictConfig) -> None:
    """Write the paths in ``cfg`` in full: what a run records holds from any directory."""
    for key in ("data.root", "data.cache_dir", "paths.outputs", "paths.data", "model.weights"):
        value = OmegaConf.select(cfg, key, default=None)
        if isinstance(value, str) and "://" in value:
            continue  # shards may lie behind a URL
        if isinstance(value, str) and (key != "model.weights" or Path(value).exists()):
            OmegaConf.update(cfg, key, str(Path(value).expanduser().absolute()))


def _sentences(error: ValidationError) -> list[str]:
    """Return a line for each wrong key; the alternatives of a union make one line together."""
    by_key: dict[str, list[Any]] = {}
    for item in error.errors():
        # pydantic appends the alternative of a union to the path: keep only names of our own keys.
        path = [str(part) for part in item["loc"] if _is_key(part)]
        by_key.setdefault(".".join(path), []).append(item)
    lines = []
    for key, items in by_key.items():
        if any(other.startswith(f"{key}.") for other in by_key):
            continue  # the line on what is wrong inside says more
        value = items[0]["input"]
        if items[0]["type"] == "missing":
            lines.append(f"{key} is missing.")
            continue
        if items[0]["type"] == "extra_forbidden":  # only a recipe's document is closed
            known = document_keys(key)
            near = did_you_mean(key.rpartition(".")[2], known)
            lines.append(f"{key}: a recipe's document has no such key here.{near}")
            lines.append(f"  It has: {', '.join(known)}")
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
    if item["type"] in {"too_short", "too_long"}:
        count = context.get("min_length") or context["max_length"]
        return f"a list of {count}{' or more' if count == 1 else ''}"  # pairs have no other length
    if item["type"] == "string_pattern_mismatch":
        return PATTERNS[context["pattern"]]
    if item["type"] == "value_error":
        return str(context["error"])
    kinds = {
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "float_type": "a number",
        "bool_type": "true or false",
        "string_type": "text",
        "list_type": "a list",
        "dict_type": "a mapping",
        "model_type": "a mapping",
        "finite_number": "a finite number",
        "none_required": "null",
    }
    if item["type"] == "literal_error":
        return f"{'one of ' if ' ' in context['expected'] else ''}{context['expected']}"
    return kinds.get(item["type"], item["msg"])
