"""The source itself: nothing in it can load code from a file."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "scripts").glob("*.py")])

# Calls that must say by a keyword that no code is run.
SAFE_BY = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
    "load_state_dict_from_url": ("weights_only", True),
    "torch.hub.load_state_dict_from_url": ("weights_only", True),
    "load_state_dict_from_hf": ("weights_only", True),
}
FORBIDDEN_MODULES = {"pickle", "joblib", "dill", "cloudpickle", "marshal", "shelve"}
FORBIDDEN = {
    "eval", "exec", "os.system", "os.popen", "torch.jit.load", "torch.hub.load", "yaml.load",
    "yaml.unsafe_load", "yaml.full_load", "pd.read_pickle", "pandas.read_pickle",
}  # fmt: skip


def loads_safely(loader):
    """Return whether all that ``loader`` may be is called a safe loader."""
    if isinstance(loader, ast.IfExp):
        return loads_safely(loader.body) and loads_safely(loader.orelse)
    return ast.unparse(loader) in {"yaml.SafeLoader", "yaml.CSafeLoader", "_SAFE_LOADER"}


def faults(text):
    """Return what a source text calls that could run code from a file."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        keywords = {k.arg: k.value for k in node.keywords}
        if name in SAFE_BY:
            key, value = SAFE_BY[name]
            given = keywords.get(key)
            if not (isinstance(given, ast.Constant) and given.value is value):
                found.append(name)
        shell = keywords.get("shell")
        if shell is not None and not (isinstance(shell, ast.Constant) and shell.value is False):
            found.append(f"{name}(shell)")
        module, _, last = name.rpartition(".")
        if name == "yaml.load" and "Loader" in keywords and loads_safely(keywords["Loader"]):
            continue
        if name in FORBIDDEN or last in {"extractall", "load_from_checkpoint"}:
            found.append(name)
        if module in FORBIDDEN_MODULES and not last.startswith("dump"):
            found.append(name)
    return found


@pytest.mark.parametrize(
    "text",
    [
        "torch.load(p)", "torch.load(p, weights_only=False)", "torch.load(p, weights_only=safe)",
        "np.load(p)", "pickle.loads(b)", "joblib.load(p)", "yaml.load(f)",
        "yaml.load(f, Loader=yaml.Loader)", "tar.extractall(p)",
        "yaml.load(f, Loader=yaml.SafeLoader if a else yaml.Loader)",
        "subprocess.run(c, shell=True)", "eval(text)", "torch.hub.load('a/b', 'c')",
    ],
)  # fmt: skip
def test_the_search_finds_what_it_looks_for(text):
    assert faults(text)


def test_nothing_in_the_source_runs_code_from_a_file():
    assert len(FILES) > 100
    wrong = {str(f.relative_to(ROOT)): faults(f.read_text()) for f in FILES}
    assert {name: found for name, found in wrong.items() if found} == {}
