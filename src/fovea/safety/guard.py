"""What of a command line or a composed configuration would run other code than fovea's.

Hydra runs what its own node names (callbacks, plugins) before any job begins, and takes flags that
load files: so both are looked at before Hydra is handed anything.
"""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from fovea.catalog import config_dir
from fovea.errors import FoveaError, did_you_mean
from fovea.safety import targets

FLAGS = frozenset(
    {
        "--hydra-help", "--version", "--cfg", "-c", "--resolve", "--package", "-p", "--run", "-r",
        "--multirun", "-m", "--shell-completion", "-sc", "--config-name", "-cn", "--config-dir",
        "-cd", "--info", "-i",
    }
)  # fmt: skip
"""Those of Hydra that a command takes, in full. Not ``--experimental-rerun``, which loads a pickle,
nor ``--config-path``, which stands instead of ``conf/``: ``--config-dir`` adds to it."""


def check_hydra(node: DictConfig, overrides: list[str]) -> None:
    """Raise `FoveaError` where Hydra would run what ``node`` names, before any job of ours begins.

    Environment variables may be typed, but no file may set them: some name programs to start.
    """
    raw = OmegaConf.to_container(node, resolve=False)
    assert isinstance(raw, dict)
    for kind in ("callbacks", "launcher", "sweeper"):  # what Hydra builds
        targets.check_plain(raw[kind], f"hydra.{kind}")
    for kind in ("job_logging", "hydra_logging"):
        if {"formatters", "filters", "handlers", "()"} & set(node.get(kind) or {}):
            raise FoveaError(
                f"hydra/{kind}: logging is set up by fovea, so that no configuration runs code by "
                "it. Leave it at: disabled"
            )
    given = node.job.env_set
    if given and not any(o.lstrip("+").startswith("hydra.job.env_set") for o in overrides):
        raise FoveaError(
            f"A configuration file sets environment variables ({', '.join(given)}), which could "
            "run other code. Type them in front of the command: NAME=value python …"
        )


def check_targets(cfg: DictConfig, name: str, overrides: list[str]) -> None:
    """Check each ``_target_`` in ``cfg``, and that ``allow_targets`` is not a recipe's.

    Raises:
        FoveaError: a name that is not allowed.
    """
    own = [str(package) for package in cfg.get("allow_targets") or []]
    if not any(o.lstrip("+").startswith("allow_targets") for o in overrides):
        file = config_dir() / f"{name}.yaml"
        ours = OmegaConf.load(file) if file.is_file() else OmegaConf.create()
        if own != list(OmegaConf.select(ours, "allow_targets") or []):
            raise FoveaError(
                f"A recipe asks for allow_targets=[{','.join(own)}]: it would run code of these "
                "packages. If you trust both, type that yourself."
            )
    targets.check_packages(own)
    targets.check_names(cfg, own=own)
    if (launcher := cfg.get("launcher")) is not None:
        # It is built before anything else is, in the process that was started by hand.
        targets.check_plain(OmegaConf.to_container(launcher, resolve=True), "launcher", own)
        _check_setup(list(launcher.get("setup") or []), overrides)


def _check_setup(lines: list[str], overrides: list[str]) -> None:
    """Raise `FoveaError` for lines of shell that neither were typed nor stand in conf/launcher."""
    typed = any(o.lstrip("+").startswith("launcher.setup") for o in overrides)
    files = (config_dir() / "launcher").glob("*.yaml")
    kept = [OmegaConf.select(OmegaConf.load(file), "setup") for file in files]
    if lines and not typed and lines not in [list(known) for known in kept if known]:
        raise FoveaError(
            f"A recipe sets launcher.setup={lines}: lines that the shell would run. If you trust "
            "it, type that yourself, or write it into conf/launcher/."
        )


def check_flags(flags: list[str], command: str) -> None:
    """Raise `FoveaError` for a flag that is not known in full."""
    for flag in flags:
        name = flag.partition("=")[0]
        if name.startswith("-") and name not in FLAGS:
            raise FoveaError(
                f"{name}: no such option of fovea.{did_you_mean(name, FLAGS)}\n"
                f"  Values are typed as key=value: python src/{command}.py --help"
            )
