"""W&B's runs as a table, against a stub that has W&B's own signatures."""

import inspect
import json
import math

import pandas as pd
import pytest
import wandb

from fovea import runs
from fovea.errors import FoveaError
from fovea.runs.page import write_leaderboard
from fovea.runs.ranking import best_first

PER_PAGE = 4


class StubRun:
    """What wandb.apis.public.Run offers; config and summary of a lazy one cost a request."""

    def __init__(self, server, number, lazy):
        self.server, self.lazy = server, lazy
        self.id = f"run-{number}"
        self.path = ["team", "digits", self.id]
        self.state = server.states.get(number, "finished")
        self.created_at = f"2026-11-24T12:00:{number:02}Z"
        self.heartbeat_at = server.heartbeats.get(number, "2026-11-24T13:00:00Z")
        self.job_type, self.group, self.sweep_name = None, "lr_wd", None
        self.number = number

    def _full(self):
        if self.lazy:
            self.server.requests.append(self.id)
            self.lazy = False

    @property
    def config(self):
        self._full()
        lr = 0.1 if self.number % 2 else 0.2
        return {
            "seed": self.number // 2,
            "monitor": {"metric": "val/loss", "mode": "min"},
            "optimizer": {"lr": lr},
            "paths": {"run": f"/somewhere/{self.id}"},
        }

    @property
    def summary(self):
        self._full()
        return {
            "_step": 29, "_runtime": 61.5, "epoch": 2, "trainer/global_step": 29,
            "val/loss": 0.5 + self.number, "train/loss": "NaN", "perf/images_per_second": 100.0,
            "figures/curves": {"_type": "image-file"}, "_wandb": {"runtime": 61},
        }  # fmt: skip

    def scan_history(self, *args, **kwargs):
        inspect.signature(wandb.apis.public.Run.scan_history).bind(self, *args, **kwargs)
        yield {"_step": 9, "_timestamp": 1.0, "trainer/global_step": 9, "epoch": 0, "val/loss": 2.0}
        yield {"_step": 19, "_timestamp": 2.0, "epoch": 1, "val/loss": "NaN", "train/loss": 0.5}
        yield {"_step": 20, "_timestamp": 3.0, "figures/curves": {"_type": "image-file"}}


class StubServer:
    """What it was asked for, and what it says next."""

    def __init__(self):
        self.requests, self.states, self.heartbeats, self.count = [], {}, {}, 10


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("FOVEA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("fovea.runs.cache.FEWEST_NEW", 1)
    stub = StubServer()
    real = wandb.Api

    class Api:
        def __init__(self, *args, **kwargs):
            inspect.signature(real.__init__).bind(self, *args, **kwargs)

        def runs(self, *args, **kwargs):
            asked = inspect.signature(real.runs).bind(self, *args, **kwargs).arguments
            if asked["path"] != "team/digits":
                raise ValueError(f"Could not find project {asked['path']}")
            for number in range(stub.count):
                if number % asked["per_page"] == 0:
                    stub.requests.append("lazy page" if asked["lazy"] else "page")
                yield StubRun(stub, number, asked["lazy"])

        def run(self, path=""):
            return StubRun(stub, int(path.rpartition("-")[2]), lazy=True)

    monkeypatch.setattr(wandb, "Api", Api)
    return stub


def test_the_columns_are_those_of_folders(server, tmp_path):
    server.states = {1: "running", 2: "crashed"}
    table = runs.load_wandb("team/digits", per_page=PER_PAGE)
    assert server.requests == ["page"] * 3
    (tmp_path / "none").mkdir()
    assert set(runs.load(tmp_path / "none")) <= set(table)
    assert table["id"].tolist() == [f"run-{number}" for number in range(10)]
    assert table["path"][0] == "team/digits/run-0"
    assert table["state"].tolist()[:4] == ["finished", "running", "killed", "finished"]
    assert table["val/loss"].tolist() == [0.5 + number for number in range(10)]
    assert table["objective"].tolist()[0] == 0.5
    assert math.isnan(table["objective"][1]), "the best of a run that is not over is not known"
    assert table["train/loss"].isna().all()
    assert (table["epochs"][0], table["steps"][0], table["duration"][0]) == (3, 30, 61.5)
    assert table["time"][1] == pd.Timestamp("2026-11-24 12:00:01", tz="UTC")
    assert table.attrs["settings"] == ["seed", "optimizer.lr"]
    assert "figures/curves" not in table
    groups = runs.group(table).set_index("optimizer.lr")
    assert groups["n"].to_dict() == {0.2: 4, 0.1: 4}


def test_only_runs_that_have_changed_are_fetched_again(server):
    server.states = {9: "running"}
    first = runs.load_wandb("team/digits", per_page=PER_PAGE)
    server.requests.clear()
    again = runs.load_wandb("team/digits", per_page=PER_PAGE)
    pd.testing.assert_frame_equal(first, again)
    assert server.requests == [*["lazy page"] * 3, "run-9"], "one that is not over is never kept"
    server.requests.clear()
    server.states, server.heartbeats, server.count = {}, {3: "2026-11-25T13:00:00Z"}, 11
    assert len(runs.load_wandb("team/digits", per_page=PER_PAGE)) == 11
    assert [name for name in server.requests if "page" not in name] == ["run-3", "run-9", "run-10"]
    server.requests.clear()
    runs.load_wandb("team/digits", per_page=PER_PAGE, refresh=True)
    assert server.requests == ["page"] * 3


def test_curves_have_the_columns_of_metrics_csv(server):
    curves = runs.history_wandb("team/digits/run-1")
    assert curves.columns.tolist() == ["epoch", "step", "val/loss", "train/loss"]
    assert curves["step"].tolist() == [9, 19]
    assert curves["val/loss"].tolist()[0] == 2.0
    assert math.isnan(curves["val/loss"][1])
    table = runs.load_wandb("team/digits")
    both = runs.history_wandb(table.head(2))
    assert both["run"].tolist() == ["run-0", "run-0", "run-1", "run-1"]
    pd.testing.assert_frame_equal(runs.history_wandb(table.iloc[1]), curves)


def test_the_page_has_the_curves_of_the_first_runs(server, tmp_path, monkeypatch):
    monkeypatch.setattr("fovea.runs.page.MOST_FETCHED", 2)
    values = ({"_step": step, "val/loss": loss} for step, loss in ((9, 2.0), (19, 1.0)))
    histories = {"run-0": list(values), "run-1": []}
    monkeypatch.setattr(StubRun, "scan_history", lambda run: histories[run.id])
    table, order = best_first(runs.load_wandb("team/digits"))
    page = write_leaderboard(tmp_path / "x.html", table, ["id"], order, "team/digits", wandb=True)
    text = page.read_text()
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    assert data["curves"] == [
        {"steps": [[9, 19]], "metrics": {"val/loss": [0, [2.0, 1.0]]}},
        {"steps": [], "metrics": {}},
    ]
    assert "The first 2 have curves." in text


def test_what_goes_wrong_is_said(server, monkeypatch):
    with pytest.raises(FoveaError, match="Could not find project team/nothing"):
        runs.load_wandb("team/nothing")
    with pytest.raises(FoveaError, match="entity/project"):
        runs.load_wandb("https://wandb.ai/team/digits")

    def refused(*args, **kwargs):
        raise wandb.errors.CommError("HTTP 403: permission denied")

    monkeypatch.setattr(wandb, "Api", refused)
    with pytest.raises(FoveaError, match="may your account read it"):
        runs.load_wandb("team/digits")


def test_without_an_account_the_real_client_says_how_to_log_in(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(FoveaError, match="wandb login"):
        runs.load_wandb("team/digits")
    with pytest.raises(FoveaError, match="wandb login"):
        runs.history_wandb("team/digits/run")
