"""The study: its journal, who takes which trial, and what is left of a killed worker."""

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from fovea import run_folder
from fovea.errors import FoveaError
from fovea.sweeps import outcomes, table
from fovea.sweeps.outcomes import Outcome
from fovea.sweeps.sampling import Settings, suggest
from fovea.sweeps.spaces import Space
from fovea.sweeps.study import Trials, best, open_study
from fovea.sweeps.table import Entry

SPACE = Space({"x": "interval(-1,1)", "y": "tag(log,interval(1e-3,1))"}, {}, [])


def settings(**changes):
    values = {
        "n_trials": 12, "sampler": "tpe", "pruner": "none", "objectives": {"loss": "min"},
        "seed": 0, "startup_trials": 3, "warmup_epochs": 0, "max_epochs": 9,
    }  # fmt: skip
    return Settings(**{**values, **changes})


def open_trials(folder, **changes):
    return Trials(folder, settings(**changes), lambda number: [folder / str(number)])


def work(folder, die_at=None, **changes):
    """Run trials as a worker does; stop without a word in the one numbered ``die_at``."""
    trials = open_trials(folder, **changes)
    while claim := trials.claim():
        values = SPACE.sample(lambda p, claim=claim: suggest(claim.trial, p))
        if claim.number == die_at:
            os._exit(9)
        loss = float(values["x"]) ** 2 + float(values["y"])
        trials.finish(claim, Outcome("finished", [loss]))


def in_process(*arguments, **changes):
    process = multiprocessing.get_context("spawn").Process(
        target=work, args=arguments, kwargs=changes
    )
    process.start()
    return process


def content(folder):
    return [(t.number, t.state.name, t.params, t.values) for t in open_trials(folder).all()]


def test_a_killed_worker_costs_nothing_and_changes_nothing(tmp_path):
    work(tmp_path / "uncut")
    for die_at in (0, 4, 5):
        in_process(tmp_path / "cut", die_at).join()
    work(tmp_path / "cut")
    assert content(tmp_path / "cut") == content(tmp_path / "uncut")
    work(tmp_path / "cut")  # nothing is left to do
    assert len(content(tmp_path / "cut")) == 12
    work(tmp_path / "cut", n_trials=14)
    assert len(content(tmp_path / "cut")) == 14


def test_workers_share_the_trials_and_make_no_more_than_asked(tmp_path):
    workers = [in_process(tmp_path, n_trials=15) for _ in range(2)]
    for worker in workers:
        worker.join()
    found = content(tmp_path)
    assert [number for number, *_ in found] == list(range(15))
    assert {state for _, state, *_ in found} == {"COMPLETE"}
    assert len({params["x"] for _, _, params, _ in found}) == 15


def test_a_run_that_outlives_its_worker_is_left_alone(tmp_path):
    trials = open_trials(tmp_path)
    claim = trials.claim()
    run = tmp_path / str(claim.number)
    run.mkdir()
    claim.lock.release()  # as if the worker had died
    code = f"from pathlib import Path; from fovea import run_lock; folder = Path({str(run)!r})\n"
    code += "run_lock.must_take(folder); print(1, flush=True); input()"
    source = str(Path(run_folder.__file__).parents[1])
    alive = subprocess.Popen(
        [sys.executable, "-c", code], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": source},
    )  # fmt: skip
    alive.stdout.readline()
    other = trials.claim()
    assert other.number == 1
    alive.kill()
    alive.communicate()
    assert trials.claim().number == 0


def test_a_torn_journal_is_mended(tmp_path):
    work(tmp_path, n_trials=3)
    before = content(tmp_path)
    with (tmp_path / "study.journal").open("ab") as file:
        file.write(b'{"op_code":4,"worker_id":"x","study_id":0,"da')
    assert content(tmp_path) == before
    work(tmp_path, n_trials=4)
    assert content(tmp_path)[:3] == before
    assert len(content(tmp_path)) == 4
    for line in (tmp_path / "study.journal").read_text().splitlines():
        json.loads(line)


def test_a_trial_that_is_killed_again_and_again_counts_as_failed(tmp_path):
    trials = open_trials(tmp_path, n_trials=1)
    for _ in range(3):
        claim = trials.claim()
        assert claim.number == 0
        trials.finish(claim, Outcome("killed", error="killed by SIGKILL"))
    assert trials.claim() is None
    assert trials.all()[0].state == optuna.trial.TrialState.FAIL


def test_the_pruner_of_a_trial_is_that_of_the_study(tmp_path):
    open_trials(tmp_path, pruner="hyperband", max_epochs=27)
    pruner = open_study(tmp_path).pruner
    assert isinstance(pruner, optuna.pruners.HyperbandPruner)
    assert pruner._max_resource == 27


def test_outcomes_are_read_from_summaries(tmp_path):
    def summary(name, **fields):
        (tmp_path / name).mkdir(exist_ok=True)
        run_folder.write_summary(tmp_path / name, **fields)
        return tmp_path / name

    base = {"state": "finished", "monitor": "val/loss", "seconds": 2.0}
    a = summary("a", **base, objective=0.5, metrics={"val/loss": 0.7, "val/top1": 0.9})
    b = summary("b", **base, objective=0.7, metrics={"val/loss": 0.9, "val/top1": 0.8})
    both = outcomes.read([a, b], ["val/loss", "val/top1", "seconds"])
    assert both.values == pytest.approx([0.6, 0.85, 2.0])
    assert both.std == pytest.approx([0.02**0.5, 0.005**0.5, 0.0])
    assert both.seconds == 4
    assert outcomes.read([a], ["val/topp1"]).state == "failed"
    assert "val/top1" in outcomes.read([a], ["val/topp1"]).error
    assert outcomes.read([a, tmp_path / "none"], ["val/loss"]).state == "cut"
    outcomes.note_end(summary("c", state="running"), -9)
    killed = outcomes.read([tmp_path / "c"], ["val/loss"])
    assert (killed.state, killed.error) == ("killed", "killed by SIGKILL: out of memory?")
    outcomes.note_end(summary("d", state="failed", error="why"), 1)
    assert outcomes.read([tmp_path / "d"], []).error == "why"
    for status in (75, 130):
        outcomes.note_end(summary("e", state="interrupted"), status)
        assert outcomes.read([tmp_path / "e"], []).state == "cut"
    with pytest.raises(FoveaError, match="top5"):
        outcomes.value({"metrics": {}}, "top5")


def test_the_table_groups_seeds_and_puts_the_best_first(tmp_path):
    entries = [
        Entry(str(i), "finished", {"lr": lr, "seed": str(seed)}, [loss], seconds=1.0, folder=str(i))
        for i, (lr, seed, loss) in enumerate(
            [("0.1", 1, 0.4), ("0.1", 2, 0.6), ("0.2", 1, 0.2), ("0.2", 2, 0.2)]
        )
    ]
    entries.append(Entry("4", "failed", {"lr": "9", "seed": "1"}, error="a loss, no number\nmore"))
    means = table.over_seeds(entries)
    assert [mean.values for mean in means[:2]] == [pytest.approx([0.5]), pytest.approx([0.2])]
    assert means[0].std == pytest.approx([0.02**0.5])
    text = table.text(means, {"val/loss": "min"})
    assert text.index("0.2 ±") < text.index("0.5 ± 0.14")
    assert "4: a loss, no number" in table.text(entries, {"val/loss": "min"})
    table.write(tmp_path / "sweep.csv", entries, {"val/loss": "min"})
    import pandas as pd

    read = pd.read_csv(tmp_path / "sweep.csv")
    assert read["val/loss"].tolist()[:4] == [0.4, 0.6, 0.2, 0.2]
    assert read["error"].iloc[4] == "a loss, no number\nmore"


def test_best_of_several_objectives_are_those_that_none_beats():
    def trial(*values):
        return optuna.trial.create_trial(values=list(values))

    trials = [trial(1, 5), trial(2, 6), trial(3, 9), trial(0.5, 5), trial(3, 9)]
    front = best(trials, {"seconds": "min", "val/top1": "max"})
    assert [t.values for t in front] == [[2, 6], [3, 9], [0.5, 5], [3, 9]]


def test_failed_trials_are_run_once_more_when_asked(tmp_path):
    trials = open_trials(tmp_path, n_trials=3)
    while claim := trials.claim():
        values = SPACE.sample(lambda p, claim=claim: suggest(claim.trial, p))
        failed = Outcome("failed", error="disk full")
        trials.finish(claim, failed if claim.number == 1 else Outcome("finished", [1.0]))
    for _ in range(2):
        trials.retry_failed()
    claim = trials.claim()
    assert claim.number == 3
    again = SPACE.sample(lambda p: suggest(claim.trial, p))
    first = trials.all()[1].params
    assert {k: float(v) for k, v in again.items()} == first
    trials.finish(claim, Outcome("finished", [float(values["x"])]))
    assert trials.claim() is None


def test_pictures_are_drawn_of_what_there_is(tmp_path):
    from fovea.sweeps import plots

    trials = open_trials(tmp_path, n_trials=8)
    assert plots.draw(trials.study, {"loss": "min"}, tmp_path) == []
    while claim := trials.claim():
        values = SPACE.sample(lambda p, claim=claim: suggest(claim.trial, p))
        claim.trial.report(0.5, 1)
        ends = {2: Outcome("pruned"), 5: Outcome("failed", error="why")}
        trials.finish(claim, ends.get(claim.number, Outcome("finished", [float(values["y"])])))
    drawn = plots.draw(trials.study, {"loss": "min"}, tmp_path)
    assert [path.name for path in drawn] == ["history.png", "importance.png", "slices.png"]
    assert all(path.stat().st_size > 5000 for path in drawn)
    shares = plots._importances(trials.study, ["min"])
    assert next(iter(shares)) == "y", "the loss is y alone"
