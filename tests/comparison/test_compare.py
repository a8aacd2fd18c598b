import dataclasses
import html
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from fovea.comparison import (
    compare,
    pairs_table,
    pareto_front,
    plot_learning_curves_of,
    plot_pareto,
    say_all,
    say_limits,
    systems_table,
    write_comparison,
)
from fovea.errors import FoveaError

N = 300


def outcomes(accuracy, seed):
    return np.random.default_rng(seed).random(N) < accuracy


@pytest.fixture
def run(tmp_path, made_up):
    """Return a function that makes a run folder: settings, curves and predictions."""

    def make(name, accuracy, seed, lr=0.1, split="test", more=(), **about):
        folder = tmp_path / "outputs" / name
        (folder / "predictions").mkdir(parents=True)
        config = {"seed": seed, "run_id": name, "data": {"seed": seed, "batch_size": 10},
                  "optimizer": {"lr": lr}, "callbacks": {"x": {"folder": str(folder)}},
                  **dict(more)}  # fmt: skip
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        (folder / "summary.json").write_text(json.dumps({"seconds": 10 / lr, "parameters": 7}))
        steps = np.arange(1, 4)
        curves = {"epoch": steps - 1, "step": 10 * steps - 1, "val/top1": accuracy * steps / 3}
        pd.DataFrame(curves).to_csv(folder / "metrics.csv", index=False)
        predictions = made_up(outcomes(accuracy, seed), name=name, seed=seed, **about)
        predictions.save(folder / "predictions" / f"{split}.npz")
        return folder

    return make


def test_seeds_of_one_configuration_are_one_system(run, tmp_path):
    for seed in range(3):
        run(f"a{seed}", 0.7, seed)
        run(f"b{seed}", 0.9, 10 + seed, lr=0.2)
    found = compare([tmp_path / "outputs"])
    table = systems_table(found)
    assert table["runs"].tolist() == [3, 3]
    assert table["name"].tolist() == ["lr=0.1", "lr=0.2"]
    tops = [outcomes(0.7, seed).mean() for seed in range(3)]
    assert table["top1"][0] == pytest.approx(np.mean(tops))
    assert table["sd"][0] == pytest.approx(np.std(tops, ddof=1))
    assert table["images"].tolist() == [300, 300]  # 30 steps of 10
    assert "B is better" in say_all(found)[0]
    assert "way of training" in say_limits(found)[0]
    assert len(compare([tmp_path / "outputs"], group_by=[]).systems) == 6
    assert [s.name for s in compare([tmp_path / "outputs"], group_by=["optimizer.lr"]).systems] == [
        "lr=0.1",
        "lr=0.2",
    ]
    with pytest.raises(FoveaError, match=r"Did you mean 'optimizer.lr'\?"):
        compare([tmp_path / "outputs"], group_by=["optimiser.lr"])


def test_a_run_may_be_called_as_its_network_is(run, tmp_path):
    for seed, name in enumerate(("test_resnet", "test_vit")):
        run(name, 0.8, seed, more={"model": {"name": name}})
    systems = compare([tmp_path / "outputs"]).systems
    assert [system.name for system in systems] == ["test_resnet", "test_vit"]
    for number in (1, 2):  # the jobs of a sweep are called so
        run(str(number), 0.8, number, more={"model": {"name": "x", "stages": number}})
    systems = compare([tmp_path / "outputs" / str(number) for number in (1, 2)]).systems
    assert [system.name for system in systems] == ["stages=1", "stages=2"]


def test_what_watches_a_run_and_where_it_was_makes_no_system(run, tmp_path):
    run("a", 0.8, 0, more={"trainer": {"devices": 1, "profiler": None}})
    folder = run("b", 0.8, 1, more={
        "trainer": {"devices": 8, "accelerator": "gpu", "profiler": {"dirpath": "/elsewhere/b"},
                    "log_every_n_steps": 1},
        "callbacks": {"x": {"folder": "/elsewhere/b/report"}, "y": {"file": "/elsewhere/b/z"},
                      "progress": {"refresh_s": 5}, "image_sheets": None},
        "paths": {"data": "/elsewhere", "run": "/elsewhere/b"},
    })  # fmt: skip
    folder.rename(folder.with_name("moved"))
    run("c", 0.9, 2, more={"callbacks": {"y": {"file": str(tmp_path / "outputs" / "c" / "z")}}})
    c_and_moved, a = (
        [entry.name for entry in system.entries]
        for system in sorted(
            compare([tmp_path / "outputs"], group_by=["callbacks.y.file"]).systems,
            key=lambda system: -len(system.entries),
        )
    )
    assert (c_and_moved, a) == (["c", "moved"], ["a"])
    with pytest.raises(FoveaError, match="differ in their seed only"):
        compare([tmp_path / "outputs" / "moved", tmp_path / "outputs" / "c"])


def test_what_a_recipe_promises_makes_no_system(run, tmp_path):
    run("a", 0.8, 0, more={"expected": {"source": "a paper", "epochs": 90}})
    run("b", 0.8, 1)
    with pytest.raises(FoveaError, match="differ in their seed only"):
        compare([tmp_path / "outputs" / "a", tmp_path / "outputs" / "b"])


def test_shares_stay_shares_and_one_run_beside_several_is_told(run, tmp_path):
    folders = [run(f"a{seed}", share, seed) for seed, share in enumerate((0.05, 0.6))]
    folders.append(run("b", 0.3, 2, lr=0.2))
    found = compare(folders)
    assert found.interval(0) == (0, 1)
    row = pairs_table(found).iloc[0]
    assert (row["top1_low"], row["top1_high"]) == (-1, 1)
    assert row["nll_low"] < -1
    assert "B is one run: beside several runs, a single one's seed" in say_limits(found)[0]


def test_the_folder_holds_what_was_said(run, tmp_path):
    folders = [run("a", 0.8, 0), run("b", 0.82, 1, lr=0.2), run("c", 0.3, 2, lr=0.3)]
    found = compare(folders)
    files = write_comparison(
        tmp_path / "out",
        found,
        lambda index: torch.full((1, 8, 8), index % 256, dtype=torch.uint8),
        count=3,
    )
    content = json.loads(files["json"].read_text())
    assert content["words"] == say_all(found)
    assert content["pairs"][0]["only_first"] == (outcomes(0.8, 0) & ~outcomes(0.82, 1)).sum()
    page, markdown = html.unescape(files["page"].read_text()), files["markdown"].read_text()
    assert all(f"<li>{w}" in page or f'<li class="shown">{w}' in page for w in say_all(found)[1:])
    assert "http" not in page.partition("<body>")[2]
    for picture in ("scores", "differences", "agreement", "learning_curves", "pareto",
                    "right_A_wrong_B", "right_B_wrong_A"):  # fmt: skip
        assert min(Image.open(files[picture]).size) > 200
        assert f"({picture}.png)" in markdown
    disagreements = pd.read_csv(files["disagreements"])
    assert disagreements["right"].between(1, 2).all()
    expected = sum(outcomes(a, s).astype(int) for a, s in ((0.8, 0), (0.82, 1), (0.3, 2)))
    assert len(disagreements) == ((expected > 0) & (expected < 3)).sum()


def test_words_for_what_is_not_shown(made_up):
    first = outcomes(0.8, 0)
    second = first.copy()
    second[np.flatnonzero(first)[:5]], second[np.flatnonzero(~first)[:8]] = False, True
    found = compare([made_up(first), made_up(second, seed=1)])
    said = say_all(found)
    pair = found.pairs[0]
    assert len(said) == 1
    assert f"not shown (p = {pair.p_value:.2g}); this test set could have shown" in said[0]
    assert said[0].endswith(f"{100 * pair.detectable:.1f}")
    row = pairs_table(found).iloc[0]
    assert row["claim"] == "not shown"
    assert row["top1_low"] < row["top1"] < row["top1_high"]
    same = compare([made_up([True] * 5), made_up([True] * 5, seed=1)])
    assert "right and wrong on the same samples" in say_all(same)[0]
    one = compare([made_up([True]), made_up([False], seed=1)])
    assert "differ on 1 of 1 samples, too few for any claim" in say_all(one)[0]
    assert math.isnan(one.pairs[0].detectable)


def test_classes_are_matched_by_name_and_samples_by_index(made_up):
    first = made_up(outcomes(0.8, 0))
    order, rows = torch.tensor([2, 0, 1]), torch.randperm(N)
    other = dataclasses.replace(
        first,
        indices=first.indices[rows],
        labels=order.argsort()[first.labels][rows],
        logits=first.logits[:, order][rows],
        paths=tuple(first.paths[i] for i in rows),
        class_names=tuple(first.class_names[i] for i in order),
        about={**first.about, "run": "other"},
    )
    found = compare([first, other])
    assert found.agreement.equal[0, 1] == 1
    assert found.pairs[0].only_first == found.pairs[0].only_second == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: dataclasses.replace(p, about={**p.about, "fingerprint": "f1"},
                                       paths=tuple(f"x{path}" for path in p.paths)),
         "not of the same images"),
        (lambda p: dataclasses.replace(p, labels=p.labels.roll(1)), "300 of 300 samples have"),
        (lambda p: p.select(torch.arange(10)), "300 samples there, 10 here, 10 of them the same"),
        (lambda p: dataclasses.replace(p, class_names=("a", "b", "z")), "classes, such as 'z'"),
        (lambda p: dataclasses.replace(p, logits=p.logits[:, [0, 1, 2, 2]], class_names=()),
         "3 classes there, 4 here"),
        (lambda p: dataclasses.replace(p, about={}, paths=()), "saved by an older version"),
    ],
)  # fmt: skip
def test_other_data_is_refused(made_up, change, said):
    with pytest.raises(FoveaError, match=said):
        compare([made_up(outcomes(0.8, 0)), change(made_up(outcomes(0.7, 1)))])


def test_what_cannot_be_compared(run, tmp_path):
    a = run("a", 0.8, 0)
    with pytest.raises(FoveaError, match="a is left out: it is the same run as a"):
        compare([a, a])
    with pytest.raises(FoveaError, match="two runs or more"):
        compare([a])
    with pytest.raises(FoveaError, match="--group-by none"):
        compare([a, run("b", 0.9, 1)])
    empty = run("c", 0.9, 1, lr=0.3, split="val")
    with pytest.raises(FoveaError, match=r"python src/eval.py ckpt=\S+ split=test"):
        compare([a, empty])
    (empty / "config.yaml").write_text("{broken")
    (empty / "summary.json").write_text("{")
    found = compare([tmp_path / "outputs"], group_by=[])
    assert found.notes == ("c is left out: it has no predictions of 'test'.",)
    (empty / "predictions" / "val.npz").rename(empty / "predictions" / "test.npz")
    assert [s.name for s in compare([a, empty]).systems] == ["a", "c"]


def test_pareto_front_and_curves(run, tmp_path):
    front = pareto_front([1, 2, 2, 3, math.nan], [0.5, 0.6, 0.6, 0.55, 0.9])
    assert front.tolist() == [True, True, True, False, False]
    table = pd.DataFrame({"name": ["a", "b"], "top1": [0.1, 0.2], "flops": [1e9, 2e9]})
    notes = plot_pareto(table, tmp_path / "pareto.png")
    assert len(notes) == 3
    with pytest.raises(FoveaError, match="no cost to draw"):
        plot_pareto(table.drop(columns="flops"), tmp_path / "pareto.png")
    folders = [run("a", 0.8, 0), run("b", 0.9, 1), run("c", 0.9, 1, lr=0.2)]
    (folders[2] / "metrics.csv").write_text("epoch")
    notes = plot_learning_curves_of(folders, tmp_path / "curves.png", band="std")
    assert [("metrics.csv" in note) for note in notes] == [True]
    with pytest.raises(FoveaError, match="no run has logged val/none"):
        plot_learning_curves_of(folders, tmp_path / "curves.png", metrics=["val/none"])
