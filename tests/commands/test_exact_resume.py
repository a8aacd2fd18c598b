"""Cut after any optimiser step and gone on with: the end is that of the run that was never cut."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from process import environment


def results(case, out):
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("resume_runs.py")), str(out), case],
        env=environment(), capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_every_bit_and_row_is_the_same_with_any_number_of_workers(tmp_path):
    found = results("everything", tmp_path)
    assert len(found) == 3
    assert not any(found.values()), found


@pytest.mark.slow
def test_ranks_may_change_while_the_global_batch_stays(tmp_path):
    found = results("ranks", tmp_path)
    assert found.pop("3 to 3") == [], "bit for bit"
    assert len(found) == 2
    # Sums of gradients in another order; a sample too many or too few would be 1e-2 off.
    assert all(distance < 1e-4 for distance in found.values()), found


@pytest.mark.slow
def test_a_run_that_ends_within_an_epoch_and_averages_its_weights(tmp_path):
    found = results("speedrun", tmp_path)
    assert found == {"7": [], "13": []}
