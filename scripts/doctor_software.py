"""What is installed: Python, packages, the configuration, TensorBoard, git."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from doctor_finding import Finding, Options, first_line, note, ok, problem

ROOT = Path(__file__).resolve().parents[1]
INSTALL = f"{sys.executable} -m pip install -e {ROOT}"


def module_alone(name: str) -> ModuleType:
    """Return the module ``src/fovea/<name>.py`` without the package around it, that needs torch."""
    path = ROOT / "src" / "fovea" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_python(_options: Options) -> Finding:
    """Say which Python runs, and where its packages are."""
    text = f"{platform.python_version()}, {sys.executable}"
    if sys.version_info < (3, 11):  # noqa: UP036 - an older one may run this very file
        return problem(text, "fovea needs Python 3.11 or newer: make PYTHON=python3.12 train")
    if sys.prefix == sys.base_prefix and "CONDA_PREFIX" not in os.environ:
        return note(
            f"{text}, no virtual environment", "make train sets one up; then . .venv/bin/activate"
        )
    return ok(text)


def check_packages(_options: Options) -> Finding:
    """Compare what is installed with the bounds in pyproject.toml."""
    wrong = []
    count = 0
    for requirement in _requirements():
        count += 1
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version} is not {requirement.specifier}")
    if wrong:
        return problem("; ".join(wrong), INSTALL)
    return ok(f"{count} required packages, all within the bounds of pyproject.toml")


def check_imports(_options: Options) -> Finding:
    """Import every required package, then fovea's commands."""
    modules = importlib.metadata.packages_distributions()
    wanted = {_normal(requirement.name) for requirement in _requirements()}
    names = [
        module
        for module, owners in modules.items()
        if wanted & {_normal(owner) for owner in owners}
        and module.isidentifier()
        and not module.startswith("_")
        and not _is_namespace(module)
    ]
    wrong = []
    for name in [*sorted(names), "fovea.experiment"]:
        try:
            importlib.import_module(name)
        except Exception as error:  # whatever its own code raises
            wrong.append(f"{name}: {first_line(error)}")
    if wrong:
        return problem("cannot be imported: " + "; ".join(wrong[:5]), _reinstall(wrong))
    return ok(f"{len(names)} packages and fovea can be imported")


def check_configuration(_options: Options) -> Finding:
    """Compose what ``python src/train.py`` would run."""
    from fovea.arguments import compose_checked
    from fovea.catalog import config_dir, groups

    compose_checked("train", [])
    count = sum(len(choices) for choices in groups().values())
    version = importlib.metadata.version("hydra-core")
    return ok(f"Hydra {version} composes {config_dir()}: {count} choices")


def check_tensorboard(_options: Options) -> Finding:
    """Say whether ``logger=tensorboard`` would work."""
    if importlib.util.find_spec("tensorboard") is None:
        return note(
            "not installed, and needed by logger=tensorboard alone",
            f"{sys.executable} -m pip install tensorboard",
        )
    importlib.import_module("tensorboard.summary")
    return ok(f"{importlib.metadata.version('tensorboard')}, for logger=tensorboard")


def check_git(_options: Options) -> Finding:
    """Say which commit a run would record."""
    if shutil.which("git") is None:
        return note("git is not installed: runs do not record their commit", "install git")
    commit = _git("rev-parse", "--short", "HEAD")
    if commit.returncode:
        why = (commit.stderr.strip().splitlines() or ["no commit"])[0]
        todo = (
            f"git config --global --add safe.directory {ROOT}"
            if "safe.directory" in commit.stderr
            else "git init && git add . && git commit, if runs are to be traced to their code"
        )
        return note(f"runs do not record their commit: {why}", todo)
    changed = len(_git("status", "--porcelain").stdout.splitlines())
    state = f"{changed} files differ from it" if changed else "nothing differs from it"
    return ok(f"commit {commit.stdout.strip()}, {state}")


def _git(*words: str) -> subprocess.CompletedProcess[str]:
    command = ["git", "--no-optional-locks", "-C", str(ROOT), *words]
    return subprocess.run(
        command,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=10,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def _requirements() -> Iterator[Any]:
    """Yield the requirements of pyproject.toml that hold on this machine, extras left out.

    Raises:
        ModuleNotFoundError: neither packaging nor pip is there to read them.
    """
    import tomllib

    try:
        requirements: Any = importlib.import_module("packaging.requirements")
    except ModuleNotFoundError:
        requirements = importlib.import_module("pip._vendor.packaging.requirements")
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for line in tomllib.loads(text)["project"]["dependencies"]:
        requirement = requirements.Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate():
            yield requirement


def _normal(name: str) -> str:
    return name.lower().replace("_", "-")


def _is_namespace(module: str) -> bool:
    """Return whether ``module`` is a folder shared by several packages: nothing to import."""
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.origin is None


def _reinstall(wrong: list[str]) -> str:
    """Return the command that mends what could not be imported."""
    if any("torchvision" in line and "nms" in line for line in wrong):
        return (
            "torch and torchvision are of different builds, install them together: "
            f"{sys.executable} -m pip install --force-reinstall torch torchvision"
        )
    missing = all("ModuleNotFoundError" in line for line in wrong)
    return INSTALL if missing else f"{INSTALL} --force-reinstall"
