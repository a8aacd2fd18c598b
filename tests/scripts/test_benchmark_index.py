import re
import subprocess
import sys
from pathlib import Path

import pytest

from process import environment

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_it_prints_seconds_and_memory_and_leaves_nothing(tmp_path):
    options = {"images": 200, "classes": 10, "workers": 1, "batches": 4, "folder": tmp_path}
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "benchmark_index.py")]
        + [f"--{name}={value}" for name, value in options.items()],
        env=environment(PYTHONPATH=str(ROOT / "src")), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("200 train images in 10 class folders") == 2
    assert len(re.findall(r"(first|next) start +\d+\.\d\d s", done.stdout)) == 6
    if sys.platform == "linux":
        assert len(re.findall(r"after 4 batches: [1-9]\d* MB", done.stdout)) == 2
    assert not list(tmp_path.iterdir())
