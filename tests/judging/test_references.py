"""What a reference stands for: one run, a file, a list, a folder of runs."""

import shutil

import pytest

from fovea.errors import FoveaError
from fovea.judging.references import find_checkpoints, find_predictions


@pytest.fixture
def outputs(tmp_path):
    for name in ("sweep/10", "sweep/9", "sweep/cut", "alone"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "train.log").touch()
        if not name.endswith("cut"):
            for kind, file in (("checkpoints", "best.ckpt"), ("predictions", "test.npz")):
                (folder / kind).mkdir()
                (folder / kind / file).touch()
    (tmp_path / "alone" / "checkpoints" / "last.ckpt").touch()
    return tmp_path


def test_a_folder_of_runs_is_all_that_have_a_checkpoint_in_natural_order(outputs):
    found = find_checkpoints(str(outputs / "sweep"))
    assert list(found) == ["sweep-9", "sweep-10"]
    assert found["sweep-9"] == str(outputs / "sweep" / "9")
    files = find_predictions(str(outputs / "sweep"), "test")
    assert list(files) == ["sweep-9", "sweep-10"]
    assert files["sweep-9"].endswith("sweep/9/predictions/test.npz")


def test_runs_and_files_are_named_apart(outputs):
    alone = outputs / "alone"
    given = [alone, alone / "checkpoints" / "last.ckpt", alone / "checkpoints" / "best.ckpt"]
    assert list(find_checkpoints(list(map(str, given)))) == ["alone", "alone-last", "alone~2"]


def test_one_that_is_missing_is_said_before_anything_is_done(outputs):
    with pytest.raises(FoveaError, match="alne"):
        find_checkpoints([str(outputs / "alone"), str(outputs / "alne")])
    with pytest.raises(FoveaError, match=r"no.*val"):
        find_predictions([str(outputs / "alone")], "val")


def test_no_model_has_the_folder_of_another_or_a_name_of_the_overview(outputs):
    names = ("ensemble", "report.html", "alone~2")
    for name in names:
        shutil.copytree(outputs / "alone", outputs / name)
    given = [str(outputs / name) for name in ("alone", "alone", *names)]
    found = find_checkpoints(given)
    assert list(found) == ["alone", "alone~2", "ensemble~2", "report.html~2", "alone~2~2"]
    assert list(found.values()) == given
