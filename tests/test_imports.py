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
    "evaluation": set(),
    "tracking": set(),
    "runs": {"run_folder"},
    "tasks": {"models", "optim", "evaluation"},
    "types": set(),
    "errors": set(),
    "run_folder": set(),
    "config": {"schema"},
    "schema": set(),
    "catalog": set(),
    "run_id": set(),
    "arguments": {"catalog", "config", "run_folder", "run_id"},
}
HYDRA = {"cli", "arguments", "experiment", "resume"}


def imported(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{file}: relative import"
            if node.module == "fovea":
                yield from (f"fovea.{alias.name}" for alias in node.names)
            else:
                yield node.module


def files_of(part):
    folder = PACKAGE / part
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{part}.py"]


@pytest.mark.parametrize("part", ALLOWED)
def test_parts_import_only_what_stands_to_their_left(part):
    allowed = ALLOWED[part] | {part, "types", "errors"}
    files = files_of(part)
    assert files
    for file in files:
        for name in imported(file):
            if name.startswith("fovea."):
                assert name.split(".")[1] in allowed, f"{file.relative_to(PACKAGE)} imports {name}"


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
