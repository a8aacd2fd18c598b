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
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from fovea import auto_resume, config, run_folder, run_id
from fovea.catalog import config_dir, groups
from fovea.errors import FoveaError, did_you_mean, nearest
from fovea.safety import guard
from fovea.sweeps import checking

# Free text: quoted for Hydra's grammar when it holds characters that the grammar gives a meaning.
_PATH_KEYS = (
    "ckpt",
    "predictions",
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
        finished: folder of the run that ``resume=auto`` found at its end, so nothing is to be done.
    """

    words: list[str]
    outputs: Path | None
    finished: Path | None = None


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
    if command == "predict":  # a file called -x.jpg is no flag
        arguments = [
            f"./{a}" if a[:1] == "-" and a not in guard.FLAGS and os.path.exists(a) else a
            for a in arguments
        ]
    flags, words = flags_of(arguments), [a for a in arguments if a not in flags_of(arguments)]
    guard.check_flags(flags, command)
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
    if multirun and ("LOCAL_RANK" in os.environ or run_id.shared_name() is not None):
        raise FoveaError(
            "A sweep starts the processes of each job by itself: type `python src/train.py -m "
            "… trainer.devices=N` without torchrun or srun."
        )
    search = _value_of(flags, ("--config-dir", "-cd"))
    name = _value_of(flags, ("--config-name", "-cn")) or command
    looking = {"--cfg", "-c", "--info", "-i", "--hydra-help", "--shell-completion"} & set(flags)
    cfg = None
    for job in _jobs(overrides, multirun):
        cfg = compose_checked(name, job, search)
        guard.check_targets(cfg, name, job)
        if not looking:
            config.check(cfg, command)
            if command == "train":
                _check_weights(cfg)
    if looking:
        return Prepared([*flags, *overrides], None)
    assert cfg is not None
    finished = None
    if command == "train" and (multirun or "sweep" in cfg):
        overrides += _sweep_folder(cfg, overrides, multirun, name, search)
    elif command == "train" and cfg.resume == "auto":
        overrides, finished = _choose_run(cfg, overrides)
    elif command == "train" and cfg.resume not in {None, "auto"}:
        folder = run_folder.of_checkpoint(run_folder.checkpoint(str(cfg.resume), "last"))
        overrides += _in_folder(folder, cfg.run_id)
    elif cfg.run_id is None:
        prefix = {"train": "", "eval": "eval_", "predict": "predict_"}[command]
        overrides.append(f"run_id={prefix}{run_id.make(Path(cfg.paths.outputs))}")
    else:
        run_id.check_unused(Path(cfg.paths.outputs, str(cfg.run_id)))
    return Prepared([*flags, *overrides], Path(cfg.paths.outputs), finished)


def _check_weights(cfg: DictConfig) -> None:
    """Make sure that the weights that ``cfg`` of a new run names by a path are there.

    So that a sweep does not begin whose jobs would all fail. Names are looked up with the library.

    Raises:
        FoveaError: nothing is at that path; says which recipe makes it if one is called so.
    """
    weights = OmegaConf.select(cfg, "model.weights")
    if cfg.resume not in {None, "auto"} or not isinstance(weights, str):
        return
    path = Path(weights).expanduser()
    if len(path.parts) > 1 and not path.exists():
        recipe = path.name if path.name in groups()["experiment"] else None
        hint = f" It is made by: python src/train.py experiment={recipe}" if recipe else ""
        raise FoveaError(
            f"There is no run and no file of weights at {path.absolute()} (model.weights).{hint}"
        )


def _sweep_folder(
    cfg: DictConfig, overrides: list[str], multirun: bool, name: str, search: str | None
) -> list[str]:
    """Return the overrides that say where a sweep keeps its files, after checking its trials."""
    if "sweep" not in cfg:
        found = checking.check_basic(cfg, overrides)
        return [f"run_id={quote(found or run_id.make(Path(cfg.paths.outputs)))}"]
    if not multirun:
        raise FoveaError("sweep= starts many runs: add -m, as in `python src/train.py -m sweep=…`")

    def check(trial: list[str]) -> None:
        composed = compose_checked(name, trial, search)
        guard.check_targets(composed, name, trial)
        config.check(composed, "train")

    folder = checking.check_study(cfg, overrides, check)
    return [f"hydra.sweep.dir={quote(str(folder.absolute()))}"]


def _choose_run(cfg: DictConfig, overrides: list[str]) -> tuple[list[str], Path | None]:
    """Return ``overrides`` with the run that resume=auto stands for, and its folder if finished.

    A run that was cut before its first checkpoint begins anew, in the same folder. A job that is
    launched elsewhere finds out by itself, each time it starts.
    """
    here = runs_here(cfg)
    choice = auto_resume.choose(cfg)
    words = [word for word in overrides if not word.startswith("resume=")]
    if choice is None:
        new = run_id.make(Path(cfg.paths.outputs)) if cfg.run_id is None else cfg.run_id
        return [*words, f"resume={'null' if here else 'auto'}", f"run_id={quote(str(new))}"], None
    begun = run_folder.has_checkpoint(choice.folder)
    resume = (quote(str(choice.folder)) if begun else "null") if here else "auto"
    words += [f"resume={resume}"]
    words += _in_folder(choice.folder, cfg.run_id)
    return words, choice.folder if choice.finished else None


def runs_here(cfg: DictConfig) -> bool:
    """Return whether the process that is told to do a single run of ``cfg`` does it itself."""
    return str(cfg.launcher._target_) == "fovea.launchers.BasicLauncher"


def _in_folder(folder: Path, name: str | None) -> list[str]:
    """Return overrides for going on in ``folder``, by the id that the run in it has."""
    own = name or OmegaConf.select(run_folder.read_config(folder), "run_id") or folder.name
    return [f"hydra.run.dir={quote(str(folder))}", f"run_id={quote(str(own))}"]


def compose_checked(name: str, overrides: list[str], search: str | None = None) -> DictConfig:
    """Return ``conf/<name>.yaml`` composed with ``overrides``, Hydra's own node left out.

    Args:
        name: of the primary configuration, without suffix.
        overrides: in Hydra's grammar, without sweeps.
        search: one more folder to look for configuration files in.

    Raises:
        FoveaError: unknown group, choice or key (with the nearest name), broken grammar, or a node
            of Hydra's own that would run other code than its plugins.
    """
    GlobalHydra.instance().clear()
    extra = (
        [f"hydra.searchpath=[{quote('file://' + str(Path(search).resolve()))}]"] if search else []
    )
    try:
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            cfg = compose(name, [*overrides, *extra], return_hydra_config=True)
            guard.check_hydra(cfg.hydra, overrides)
            with open_dict(cfg):
                del cfg["hydra"]
            return cfg
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
    if key.startswith("views."):
        whole = "'views={sizes: [256, 288], crops: five, mirror: true}'"
        return f"{key}: views are given as a whole, or some of it, in quotes: {whole}"
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
    by_last: dict[str, list[str]] = {}
    for name in known:
        by_last.setdefault(name.rpartition(".")[2], []).append(name)
    if last in by_last:
        return f" Did you mean {' or '.join(repr(name) for name in by_last[last][:3])}?"
    longer = [name for name in known if name.startswith(f"{key}_")]
    close = longer or nearest(key, known) or [by_last[name][0] for name in nearest(last, by_last)]
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
