"""Dependencies point one way, and Hydra stays at the edge."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "fovea"

# A part may import itself, `types` and `errors`, and what is listed here.
ALLOWED = {
    "data": set(),
    "models": {"run_folder"},
    "optim": set(),
    "pages": set(),
    "evaluation": {"pages", "checkpoints.durable"},
    "tracking": {"machine.no_room", "machine.places", "safety.redaction"},
    "runs": {"pages", "run_folder", "run_lock"},
    "comparison": {"auto_resume", "evaluation", "pages", "run_folder", "runs"},
    "recipes": {"arguments", "catalog", "run_folder", "runs"},
    "tasks": {"machine.no_room", "models", "optim", "evaluation"},
    "judging": {
        "console",
        "data",
        "evaluation",
        "experiment",
        "inference",
        "machine.devices",
        "machine.no_room",
        "machine.out_of_memory",
        "machine.ranks",
        "models",
        "run_folder",
        "tasks",
    },
    "planning": {
        "console",
        "data",
        "experiment",
        "judging",
        "machine.out_of_memory",
        "optim",
        "tasks",
    },
    "tuning": {
        "checkpoints.durable",
        "console",
        "data",
        "experiment",
        "machine.accumulation",
        "machine.devices",
        "optim",
        "planning",
        "tasks",
    },
    "watching": {"checkpoints.durable", "evaluation", "tracking"},
    "types": set(),
    "errors": set(),
    "run_folder": {"checkpoints.durable", "checkpoints.generations", "safety.redaction"},
    "checkpoints.durable": set(),
    "checkpoints.generations": {"checkpoints.durable"},
    "run_lock": set(),
    "machine.no_room": set(),
    "machine.places": set(),
    "machine.signals": set(),
    "machine.slurm": {"machine.signals"},
    "launchers": {"run_folder", "run_lock", "machine.signals", "safety.redaction"},
    "auto_resume": {"config", "checkpoints.durable", "run_folder", "run_id", "run_lock"},
    "safety.redaction": set(),
    "safety.targets": set(),
    "config": {"schema"},
    "schema": set(),
    "catalog": set(),
    "run_id": set(),
    "arguments": {
        "auto_resume",
        "catalog",
        "config",
        "run_folder",
        "safety.guard",
        "run_id",
        "sweeps",
    },
    "sweeps": {
        "arguments",
        "catalog",
        "evaluation",
        "launchers",
        "run_folder",
        "run_lock",
        "safety.redaction",
    },
    "safety.guard": {"catalog", "safety.targets"},
}
# Packages whose modules are judged one by one: some of them must do without torch.
BY_MODULE = {"checkpoints", "machine", "safety"}
HYDRA = {"cli", "arguments", "experiment", "resume", "sweeps"}


def imported(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{file}: relative import"
            if node.module in {"fovea", *(f"fovea.{package}" for package in BY_MODULE)}:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module


def part_of(name):
    _, package, *rest = name.split(".")
    return f"{package}.{rest[0]}" if package in BY_MODULE else package


def files_of(part):
    path = PACKAGE / part.replace(".", "/")
    return sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]


@pytest.mark.parametrize("part", ALLOWED)
def test_parts_import_only_what_stands_to_their_left(part):
    allowed = ALLOWED[part] | {part, "types", "errors"}
    files = files_of(part)
    assert files
    for file in files:
        for name in imported(file):
            if name.startswith("fovea."):
                assert part_of(name) in allowed, f"{file.relative_to(PACKAGE)} imports {name}"


def test_hydra_stays_at_the_edge():
    for file in PACKAGE.rglob("*.py"):
        part = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if part not in HYDRA:
            found = {n for n in imported(file) if n.split(".")[0] == "hydra"}
            if part == "tracking":  # only asks for its version
                continue
            assert not found, f"{file.relative_to(PACKAGE)} imports {found}"


def test_src_is_no_package():
    assert not (PACKAGE.parent / "__init__.py").exists()
    for file in (PACKAGE.parents[1] / "conf").rglob("*.yaml"):
        assert "_target_: src" not in file.read_text()
