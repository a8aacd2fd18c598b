"""Spaces: what they say, what they refuse, and what a trial gets of them."""

import random
from pathlib import Path

import optuna
import pytest

from fovea.arguments import compose_checked, prepare_arguments
from fovea.catalog import groups
from fovea.errors import FoveaError
from fovea.sweeps.checking import check_study
from fovea.sweeps.sampling import distribution, suggest
from fovea.sweeps.spaces import Space

TREE = {
    "optimizer": ["sgd", "adamw"],
    "optimizer.weight_decay": "tag(log,interval(1e-5,1e-1))",
    "augment.erase": "range(0,0.5,0.1)",
    "augment.magnitude": "int(interval(3,15))",
    "task.label_smoothing": [0, None, True],
    "when": {
        "optimizer=sgd": {
            "optimizer.lr": "tag(log,interval(1e-2,1))",
            "when": {"augment.erase=0.0": {"optimizer.momentum": "interval(0.8,0.9)"}},
        },
        "optimizer=adamw": {"optimizer.lr": "tag(log,interval(1e-4,1e-2))"},
    },
}


def trials(space, count=60):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(count):
        trial = study.ask()
        yield trial, space.sample(lambda p, trial=trial: suggest(trial, p))


def test_values_lie_where_the_space_says_and_conditions_decide():
    seen = set()
    for trial, values in trials(Space(TREE, {}, [])):
        rate = float(values["optimizer.lr"])
        assert (1e-2 <= rate <= 1) if values["optimizer"] == "sgd" else (1e-4 <= rate <= 1e-2)
        inner = values["optimizer"] == "sgd" and values["augment.erase"] == "0.0"
        assert ("optimizer.momentum" in values) == inner
        assert values["augment.erase"] in {"0.0", "0.1", "0.2", "0.3", "0.4"}
        assert 3 <= int(values["augment.magnitude"]) <= 15
        assert values["task.label_smoothing"] in {"0", "null", "true"}
        # Two ranges of one key are two parameters to the study.
        assert f"optimizer.lr [optimizer={values['optimizer']}]" in trial.params
        seen |= set(values.items())
    assert {v for k, v in seen if k == "augment.erase"} == {"0.0", "0.1", "0.2", "0.3", "0.4"}
    assert any(k == "optimizer.momentum" for k, _ in seen)


def test_log_uniform_is_even_in_the_logarithm():
    rates = [float(v["x.y"]) for _, v in trials(
        Space({"x.y": "tag(log,interval(1e-4,1))"}, {}, []), 400)]  # fmt: skip
    decades = [sum(10**-k <= r < 10 ** (1 - k) for r in rates) for k in (1, 2, 3, 4)]
    assert sum(decades) == 400
    assert all(70 <= count <= 130 for count in decades)


def test_the_command_line_fixes_replaces_and_adds():
    words = ["sweep=x", "sweep.n_trials=3", "optimizer=sgd", "optimizer.lr=0.3", "seed=7"]
    words += ["augment.erase=interval(0.1,0.2)", "model=resnet18,resnet50"]
    space = Space(TREE, {"seed": 1, "trainer.max_epochs": 5}, words)
    assert space.shared == ["trainer.max_epochs=5", "optimizer=sgd", "optimizer.lr=0.3", "seed=7"]
    keys = [parameter.key for parameter in space.parameters]
    assert "optimizer" not in keys
    assert "optimizer.lr" not in keys
    assert keys.count("augment.erase") == keys.count("model") == 1
    for _, values in trials(space, 10):
        assert 0.1 <= float(values["augment.erase"]) <= 0.2
        assert values["model"] in {"resnet18", "resnet50"}


def test_a_condition_sees_what_is_typed_and_what_is_the_default():
    tree = {"a": "interval(0,1)", "when": {"optimizer=sgd,lamb": {"b": "interval(0,1)"}}}
    first = lambda p: p.write(p.low)  # noqa: E731
    assert "b" in Space(tree, {}, ["optimizer=lamb"]).sample(first)
    assert "b" not in Space(tree, {}, ["optimizer=adamw"]).sample(first, {"optimizer": "sgd"}.get)
    assert "b" in Space(tree, {}, []).sample(first, {"optimizer": "sgd"}.get)


def test_examples_use_every_key_choice_and_end():
    examples = [dict(w.split("=", 1) for w in words) for words in Space(TREE, {}, []).examples()]
    for key, value in [("optimizer", "sgd"), ("optimizer.lr", "1.0"), ("optimizer.lr", "0.0001"),
                       ("optimizer.momentum", "0.9"), ("augment.magnitude", "15")]:  # fmt: skip
        assert any(example.get(key) == value for example in examples), (key, value)


def test_distributions_are_those_of_the_words():
    by_key = {p.key: distribution(p) for p in Space(
        {"i": "tag(log,int(interval(1,64)))", "r": "range(2,9,2)", "u": "interval(0,1)"}, {}, []
    ).parameters}  # fmt: skip
    assert by_key["i"] == optuna.distributions.IntDistribution(1, 64, log=True)
    assert by_key["r"] == optuna.distributions.IntDistribution(2, 8, step=2)
    assert by_key["u"] == optuna.distributions.FloatDistribution(0, 1)


@pytest.mark.parametrize("space", groups()["sweep"])
def test_every_space_composes_with_every_example(space):
    words = ["optimizer.lr=interval(0.1,0.2)"] if space == "typed" else []
    prepared = prepare_arguments(
        "train", ["-m", f"sweep={space}", "data.root=x", "data=folder", *words]
    )
    assert any(f"sweeps/{space}-" in word for word in prepared.words)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["sweep=lr_wdd"], ["sweep=lr_wdd", "lr_wd"]),
        (["sweep=lr_wd", "sweep.n_trial=3"], ["Did you mean 'sweep.n_trials'?"]),
        (["sweep=lr_wd", "sweep.pruner=mediann"], ["Did you mean 'median'?"]),
        (["sweep=lr_wd", "sweep.workers=0"], ["sweep.workers=0"]),
        (["sweep=lr_wd", "optimizer.lt=interval(0,1)"], ["optimizer.lt", "'optimizer.lr'"]),
        (["sweep=lr_wd", "optimizer.lr=interval(-1,1)"], ["optimizer.lr=-1", "more than 0"]),
        (["sweep=lr_wd", "optimizer.lr=interval(2,1)"], ["smaller number first"]),
        (["sweep=optimizer", "sweep.space.optimizer=[sgd,adamm,lamb]"], ["'adamm'"]),
        (["sweep=lr_wd", "+sweep.space.modle=[resnet18]"], ["modle", "'model'"]),
        (["sweep=lr_wd", "+sweep.space.seed=3"], ["seed=3", "sweep.fixed"]),
        (["sweep=lr_wd", "+sweep.fixed={optimizer.lrr:1}"], ["optimizer.lrr"]),
        (["sweep=lr_wd", "test=true"], ["test=false", "eval.py"]),
        (["sweep=lr_wd", "sweep.objectives={test/top1:max}"], ["test/top1"]),
        (["sweep=lr_wd", "optimizer.lr=1", "optimizer.weight_decay=0"], ["varies nothing"]),
        (["sweep=lr_wd", "resume=outputs/x"], ["is one run", "Leave it out"]),
        (["sweep=lr_wd", "launcher=slurm", "launcher.wait=false"], ["Leave launcher.wait out"]),
        (["sweep=lr_wd", "launcher=slurm", "launcher.submit=false"], ["Leave launcher.submit"]),
        (["sweep=lr_wd", "data.check=true"], ["data.check=true trains nothing"]),
        (["sweep=typed"], ["varies nothing"]),
        (["optimizer.lr=tag(log,interval(1e-4,1))"], ["add sweep=typed"]),
        (["seed=1,2", "resume=outputs/x"], ["resume=auto"]),
    ],
)
def test_mistakes_are_told_before_the_first_trial(words, expected):
    with pytest.raises(FoveaError) as caught:
        prepare_arguments("train", ["-m", *words])
    for part in expected:
        assert part in str(caught.value)


def test_a_sweep_without_m_is_told(capsys):
    with pytest.raises(FoveaError, match="-m"):
        prepare_arguments("train", ["sweep=lr_wd"])


def test_the_folder_is_that_of_the_same_command_and_of_no_other():
    def folder(*words):
        plain = [word for word in words if "interval" not in word]
        cfg = compose_checked("train", plain)
        return check_study(cfg, list(words), lambda trial: None)

    words = ["sweep=lr_wd", "data.batch_size=32", "trainer.max_epochs=2"]
    same = [folder(*words), folder(*words, "sweep.n_trials=50", "sweep.workers=2")]
    same.append(folder(*random.Random(0).sample(words, 3)))
    assert len(set(same)) == 1
    others = [folder(*words, "seed=1"), folder(*words, "sweep.sampler=random")]
    others.append(folder(*words, "optimizer.lr=interval(0.1,0.2)"))
    assert len({same[0], *others}) == 4
    assert folder(*words, "sweep.name=mine") == Path("outputs/sweeps/mine")
    assert folder(*words, "resume=auto") == same[0]


def test_test_split_with_other_axes_than_the_seed_is_warned_of(capsys):
    prepare_arguments("train", ["-m", "seed=0,1", "test=true"])
    assert "test split" not in capsys.readouterr().err
    prepare_arguments("train", ["-m", "seed=0,1", "optimizer.lr=0.1,0.2", "test=true"])
    assert "test split" in capsys.readouterr().err
