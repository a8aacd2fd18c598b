"""A small trained run that several files look at."""

import pytest

from process import SMALL, folder_of, run


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Return (folder, finished process) of a small run on digits, made once."""
    cwd = tmp_path_factory.mktemp("trained")
    done = run("train", *SMALL, "test=true", cwd=cwd)
    return folder_of(done, cwd), done
