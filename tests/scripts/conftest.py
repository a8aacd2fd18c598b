"""Scripts run in this process, as ``python scripts/<name>.py`` would."""

import runpy
import sys

import pytest

from process import ROOT


@pytest.fixture
def script(monkeypatch, capsys):
    """Return a function that runs a script and returns (status, stdout, stderr)."""

    def run(name, *words):
        path = str(ROOT / "scripts" / f"{name}.py")
        monkeypatch.setattr(sys, "argv", [path, *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(path, run_name="__main__")
        return ended.value.code, *capsys.readouterr()

    return run
