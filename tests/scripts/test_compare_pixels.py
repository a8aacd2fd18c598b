import re
import subprocess
import sys

from photo import photo
from process import ROOT, environment


def compare(*words, **options):
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "compare_pixels.py"), *map(str, words)],
        capture_output=True, text=True, env=environment(), timeout=120, **options,
    )  # fmt: skip


def test_pixels_are_those_of_pillow_and_torchvision(tmp_path):
    for i in range(6):
        photo(300 + 40 * i, 420, seed=i).save(tmp_path / f"{i}.jpg", quality=92)
    done = compare(tmp_path)
    assert done.returncode == 0, done.stderr
    lines = re.findall(r"(\d+) pixels, (\w+) +([\d.]+) +([\d.]+) +([\d.]+)", done.stdout)
    assert len(lines) == 6
    for size, _, low, middle, lowest in lines:
        assert 50 <= float(lowest) <= float(low) <= float(middle), size


def test_a_folder_without_images(tmp_path):
    done = compare(tmp_path)
    assert done.returncode == 2
    assert "no images" in done.stderr
