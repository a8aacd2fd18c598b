"""The run folders of the benchmark are read as real ones are."""

import importlib.util

from fovea import runs
from process import ROOT


def test_its_runs_are_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("FOVEA_CACHE", "")
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location(
        "benchmark_runs", ROOT / "scripts" / "benchmark_runs.py"
    )
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    benchmark.make_runs(tmp_path / "outputs", 12, 20)
    table = runs.load(tmp_path / "outputs")
    assert len(table) == 12
    assert table["error"].isna().all()
    assert (table["steps"] == 19 * 18 + 18).all()
    assert {"optimizer.lr", "seed"} <= set(table.attrs["settings"])
    assert len(runs.history(table)) == 12 * 20
    importing, taken = benchmark.measure(benchmark.CALLS[0][1], tmp_path / "outputs", None)
    assert importing > 0
    assert taken > 0
