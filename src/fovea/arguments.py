"""Everything a person can mistype is checked here, before torch is imported or a file is made."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fovea import config, run_folder, run_id
from fovea.catalog import config_dir, groups
from fovea.errors import FoveaError, did_you_mean, nearest

# Free text: quoted for Hydra's grammar when it holds characters that the grammar gives a meaning.
_PATH_KEYS = (
    "ckpt",
    "input",
    "resume",
    "data.root",
    "data.cache_dir",
    "model.weights",
    "paths.outputs",
    "paths.data",
)
_MAX_CHECKED_JOBS = 64


class Prepared(NamedTuple):
    """Arguments that were checked.

    Attributes:
        words: for Hydra.
        outputs: folder that the run's folder will be made in; None if nothing will be run.
    """

    words: list[str]
    outputs: Path | None


def quote(text: str) -> str:
    """Return ``text`` as a quoted value of Hydra's override grammar."""
    return "'" + re.sub(r"(\\*)'", lambda m: m[1] * 2 + r"\'", text) + "'"


def prepare_arguments(command: str, arguments: list[str]) -> Prepared:
    """Return ``arguments`` ready for Hydra, after checking all that can be checked without torch.

    Bare file names become ``input=[…]`` of ``predict``; paths with unusual characters are quoted;
    the run gets the name of its folder (``run_id=``), or, with ``resume=``, the folder it had.

    Raises:
        FoveaError: a wrong group, choice, key, value or path.
    """
    flags, words = flags_of(arguments), [a for a in arguments if a not in flags_of(arguments)]
    is_override = re.compile(r"^[~+]|^[\w@./:-]+=")
    # What exists is a file for predict, also if it is called a=b.png.
    files = [
        w for w in words if not is_override.match(w) or (command == "predict" and os.path.exists(w))
    ]
    multirun = bool({"-m", "--multirun"} & set(flags))
    overrides = [_quote_path(w, multirun) for w in words if w not in files]
    if command == "eval" and not any(o.startswith("data=") for o in overrides):
        # No other data set: changes to that of the checkpoint, which is not composed here.
        overrides = [f"+{o}" if o.startswith("data.") else o for o in overrides]
    if files and command != "predict":
        known = [f"{group}=" for group in groups()]
        raise FoveaError(
            f"'{files[0]}' is not of the form key=value.{did_you_mean(files[0] + '=', known)}\n"
            f"  Example: python src/{command}.py data=cifar10; all groups: --help"
        )
    if files:
        overrides.append("input=[" + ",".join(quote(f) for f in files) + "]")
    if multirun and "LOCAL_RANK" in os.environ:
        raise FoveaError(
            "A sweep starts the processes of each job by itself: type `python src/train.py -m "
            "… trainer.devices=N` without torchrun."
        )
    search = _value_of(flags, ("--config-dir", "-cd"))
    name = _value_of(flags, ("--config-name", "-cn")) or command
    looking = {"--cfg", "-c", "--info", "-i", "--hydra-help", "--shell-completion"} & set(flags)
    cfg = None
    for job in _jobs(overrides, multirun):
        cfg = compose_checked(name, job, search)
        if not looking:
            config.check(cfg, command)
    if looking:
        return Prepared([*flags, *overrides], None)
    assert cfg is not None
    if command == "train" and cfg.resume is not None:
        folder = run_folder.of_checkpoint(run_folder.checkpoint(str(cfg.resume), "last"))
        overrides += [f"hydra.run.dir={quote(str(folder))}", f"run_id={quote(folder.name)}"]
    elif cfg.run_id is None:
        prefix = {"train": "", "eval": "eval_", "predict": "predict_"}[command]
        overrides.append(f"run_id={prefix}{run_id.make(Path(cfg.paths.outputs))}")
    else:
        run_id.check_unused(Path(cfg.paths.outputs, str(cfg.run_id)))
    return Prepared([*flags, *overrides], Path(cfg.paths.outputs))


def compose_checked(name: str, overrides: list[str], search: str | None = None) -> DictConfig:
    """Return ``conf/<name>.yaml`` composed with ``overrides``, Hydra's own node left out.

    Args:
        name: of the primary configuration, without suffix.
        overrides: in Hydra's grammar, without sweeps.
        search: one more folder to look for configuration files in.

    Raises:
        FoveaError: unknown group, choice or key (with the nearest name), or broken grammar.
    """
    GlobalHydra.instance().clear()
    extra = (
        [f"hydra.searchpath=[{quote('file://' + str(Path(search).resolve()))}]"] if search else []
    )
    try:
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            return compose(name, [*overrides, *extra])
    except MissingConfigException as error:
        raise FoveaError(_unknown_choice(error)) from None
    except ConfigCompositionException as error:
        raise FoveaError(_unknown_key(name, error, overrides)) from None
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # ValueError: task=3
        raise FoveaError(str(error)) from None
    finally:
        GlobalHydra.instance().clear()


def flags_of(arguments: list[str]) -> list[str]:
    """Return Hydra's flags among ``arguments``, each followed by its value where it takes one."""
    takes_value = {"--cfg", "-c", "--package", "-p", "--config-dir", "-cd", "--config-path", "-cp"}
    takes_value |= {"--config-name", "-cn", "--info", "-i", "--experimental-rerun"}
    flags: list[str] = []
    expecting = False
    for argument in arguments:
        if argument.startswith("-") and not re.match(r"^-\d", argument):
            flags.append(argument)
            expecting = argument in takes_value
        elif expecting:
            flags.append(argument)
            expecting = False
    return flags


def _value_of(flags: list[str], names: Iterable[str]) -> str | None:
    for i, flag in enumerate(flags):
        for name in names:
            if flag == name and i + 1 < len(flags):
                return flags[i + 1]
            if flag.startswith(name + "="):
                return flag.split("=", 1)[1]
    return None


def _quote_path(word: str, multirun: bool) -> str:
    key, _, value = word.partition("=")
    if multirun and "," in value:  # more likely several values of a sweep
        return word
    if key not in _PATH_KEYS or re.match(r"^(['\"\[]|$)", value):
        return word
    plain = re.fullmatch(r"[\w./~-]+", value, flags=re.ASCII)
    return word if plain else f"{key}={quote(value)}"


def _jobs(overrides: list[str], multirun: bool) -> Iterator[list[str]]:
    """Yield the overrides of each job (of a large sweep: of the first ones)."""
    try:
        parsed: list[Override] = OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise FoveaError(
            f"{error}\n  Values with special characters need quotes: \"key='…'\""
        ) from None
    if not multirun:
        swept = [o for o in parsed if o.is_sweep_override()]
        if swept:
            raise FoveaError(
                f"'{swept[0].input_line}' lists several values: add -m to run them all, or write "
                f"a list as {swept[0].key_or_group}=[a,b]."
            )
        yield overrides
        return
    axes: list[list[str]] = []
    for override in parsed:
        if override.is_discrete_sweep():
            key = override.get_key_element()
            axes.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        elif not override.is_sweep_override():
            axes.append([str(override.input_line)])
    yield from map(list, itertools.islice(itertools.product(*axes), _MAX_CHECKED_JOBS))


def _unknown_choice(error: MissingConfigException) -> str:
    missing = str(error.missing_cfg_file or "")
    group, _, choice = missing.rpartition("/")
    if not group:
        return str(error)
    # Of a list, such as callbacks=[…], Hydra does not tell the options.
    found = {*(error.options or []), *groups().get(group, [])}
    options = sorted(o for o in found if not o.startswith("_"))
    return (
        f"{group}={choice}: no such choice.{did_you_mean(choice, options)}\n"
        f"  {group} is one of: {', '.join(options)}"
    )


def _unknown_key(name: str, error: ConfigCompositionException, overrides: list[str]) -> str:
    match = re.search(r"Could not (?:override|append|delete)[^']*'([^']+)'", str(error))
    match = match or re.search(r"No match[^']*'([^']+)'", str(error))
    if match is None:
        return str(error)
    key = match[1].split("@")[0].lstrip("+~")
    chosen = [o for o in overrides if "." not in o.partition("=")[0]]
    plain = compose_checked(name, [o for o in chosen if _valid_group(o)])
    known = [*groups(), *_keys(OmegaConf.to_container(plain))]
    suggestion = _elsewhere(key) or _nearest_key(key, known)
    if key in known:
        return str(error)
    return (
        f"{key}: no such key.{suggestion}\n"
        f"  See all keys: python src/{name}.py --cfg job. To pass one that is not in conf/ to the "
        f"class it belongs to: +{key}=…"
    )


def _elsewhere(key: str) -> str:
    """Return a word on the choices of the same group that do have ``key``, if there are any."""
    group, _, rest = key.partition(".")
    having = []
    for choice in groups().get(group, []):
        node: Any = OmegaConf.load(config_dir() / group / f"{choice}.yaml")
        for part in rest.split("."):
            node = node._get_node(part) if OmegaConf.is_dict(node) and part in set(node) else None
        if node is not None:
            having.append(f"{group}={choice}")
    return f" {', '.join(having)} would have it." if having else ""


def _nearest_key(key: str, known: list[str]) -> str:
    """Return " Did you mean …": the whole key or, failing that, its last part somewhere else."""
    last = key.rpartition(".")[2]
    by_last: dict[str, str] = {}
    for name in known:
        by_last.setdefault(name.rpartition(".")[2], name)
    if last in by_last:
        return f" Did you mean '{by_last[last]}'?"
    close = nearest(key, known) or [by_last[name] for name in nearest(last, by_last)]
    return f" Did you mean '{close[0]}'?" if close else ""


def _valid_group(override: str) -> bool:
    key, _, value = override.partition("=")
    return value in groups().get(key, [])


def _keys(node: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all keys in a plain nested mapping."""
    if isinstance(node, dict):
        for key, child in node.items():
            yield f"{prefix}{key}"
            yield from _keys(child, f"{prefix}{key}.")
