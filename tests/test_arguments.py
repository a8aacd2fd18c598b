"""Mistakes on the command line: the nearest name, no traceback, nothing written, nothing slow."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fovea.arguments import prepare_arguments, quote
from fovea.catalog import config_dir, groups, help_text
from fovea.errors import FoveaError

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["model=resnet81"], ["model=resnet81", "Did you mean 'resnet18'?", "vit_s16"]),
        (["modle=resnet18"], ["modle: no such key", "Did you mean 'model'?"]),
        (["optimizer.lrr=0.1"], ["optimizer.lrr: no such key", "'optimizer.lr'"]),
        (["lr=0.1"], ["lr: no such key", "optimizer.lr"]),
        (["max_epochs=3"], ["max_epochs: no such key", "'trainer.max_epochs'"]),
        (["trainer.max_epoch=3"], ["'trainer.max_epochs'"]),
        (["trainer.max_epochs=ten"], ["trainer.max_epochs='ten' (text)", "a whole number"]),
        (["trainer.max_epochs='10'"], ["trainer.max_epochs='10' (text)", "a whole number"]),
        (["trainer.max_epochs=0"], ["trainer.max_epochs=0", "more than 0"]),
        (["data.batch_size=-4"], ["data.batch_size=-4", "more than 0"]),
        (["data.on_bad_image=skipp"], ["Did you mean 'skip'?"]),
        (["trainer.precision=bf16"], ["trainer.precision", "'bf16-mixed'"]),
        (["task.loss=crossentropy"], ["task.loss", "Did you mean 'cross_entropy'?"]),
        (["optimizer.lr=fast", "seed=-1"], ["optimizer.lr='fast' (text)", "seed=-1"]),
        (["optimizer.lr=0.1,0.2"], ["lists several values", "-m"]),
        (["digits"], ["'digits' is not of the form key=value"]),
        (["data=folder", "data.root=${nowhere}"], ["nowhere"]),
        (["data.root=photos"], ["data.root: no such key", "data=folder"]),
        (["resume=outputs/no_such_run"], ["no such checkpoint or run folder"]),
        (["experiment=transfr"], ["experiment=transfr"]),
        (["callbacks=[default,early_stoping]"], ["Did you mean 'early_stopping'?", "ema"]),
        (["logger=[wandbb]"], ["logger=wandbb", "Did you mean 'wandb'?", "tensorboard"]),
        (["task=3"], ["must be a string"]),
    ],
)
def test_mistakes_name_what_was_meant(words, expected):
    with pytest.raises(FoveaError) as caught:
        prepare_arguments("train", words)
    for part in expected:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("augment.rotate=ten", "augment.rotate='ten' (text): expected a number."),
        ("augment.translate=2", "augment.translate=2: expected a number of at most 1."),
        ("augment.scale=0.5", "augment.scale=0.5: expected a list."),
        ("augment.scale=[0.1,0.5,1.0]", "expected a list of 2."),
        ("augment.scale=[0.1,1.5]", "augment.scale.1=1.5: expected a number of at most 1."),
        ("augment.scale=[1.0,0.5]", "augment.scale=[1.0, 0.5]: expected the smaller number first."),
        ("augment.ratio=[a,1]", "augment.ratio.0='a' (text): expected a number."),
        ("augment.magnitude=31", "augment.magnitude=31: expected a number of at most 30."),
        ("augment.num_ops=1.5", "augment.num_ops=1.5: expected a whole number."),
        ("model.head.dropout=1", "model.head.dropout=1: expected a number of less than 1."),
        ("model.head.hidden=wide", "'wide' (text): expected a whole number or a list."),
        ("model.head.hidden=[256,0]", "model.head.hidden.1=0: expected a number of more than 0."),
        ("model.head.zero_init=yess", "model.head.zero_init='yess' (text): expected true or false"),
        ("model.head.bias_init=low", "model.head.bias_init='low' (text): expected a number."),
        ("optimizer.betas=0.9", "optimizer.betas=0.9: expected a list."),
        ("optimizer.betas=[0.9]", "optimizer.betas=[0.9]: expected a list of 2."),
        ("optimizer.betas=[0.9,1.0]", "optimizer.betas.1=1.0: expected a number of less than 1."),
        ("optimizer=sgd optimizer.momentum=1.5", "optimizer.momentum=1.5: expected a number of"),
        ("optimizer=sgd optimizer.nesterov=1", "optimizer.nesterov=1: expected true or false."),
        ("optimizer=lamb optimizer.max_grad_norm=-1", "optimizer.max_grad_norm=-1: expected"),
        ("scheduler.warmup_epochs=5percent", "expected a number or a share of the run such as 5%."),
        ("scheduler.warmup_epochs=101%", "expected a number or a share of the run such as 5%."),
        ("scheduler.warmup_epochs=-1", "scheduler.warmup_epochs=-1: expected a number of at least"),
        ("scheduler.warmup_steps=1.5", "scheduler.warmup_steps=1.5: expected a whole number."),
        ("scheduler.warmup_start_factor=2", "scheduler.warmup_start_factor=2: expected a number"),
        ("scheduler.final_factor=2", "scheduler.final_factor=2: expected a number of at most 1."),
        ("scheduler=step scheduler.milestones=30", "scheduler.milestones=30: expected a list."),
        ("scheduler=step scheduler.milestones=[3,6pc]", "scheduler.milestones.1='6pc' (text): exp"),
        ("scheduler=step scheduler.gamma=x", "scheduler.gamma='x' (text): expected a number."),
        ("scheduler=onecycle scheduler.peak=1", "scheduler.peak=1: expected a number of less"),
        ("scheduler=onecycle scheduler.anneal=coss", "Did you mean 'cos'?"),
        ("callbacks=[early_stopping] callbacks.early_stopping.patience=-1", "patience=-1: "),
        ("callbacks=[early_stopping] callbacks.early_stopping.patience=2.5", "a whole number"),
        ("callbacks=[ema] callbacks.ema.decay=1.0", "callbacks.ema.decay=1.0: expected a number"),
        ("task.class_weights=autoo", "expected 'auto' or a mapping. Did you mean 'auto'?"),
        ("task.class_weights={3:0}", "task.class_weights.3=0: expected a number of more than 0."),
        ("trainer.max_time=12m", "expected days:hours:minutes:seconds such as 00:12:00:00"),
        ("trainer.max_time={minute:12}", "Did you mean 'minutes'?"),
        ("trainer.accelerator=gpuu", "trainer.accelerator='gpuu' (text): expected one of 'auto'"),
        ("trainer.strategy=dpp", "Did you mean 'ddp'?"),
        ("trainer.overfit_batches=some", "trainer.overfit_batches='some' (text): expected"),
        ("monitor.mode=max", "expected min, since monitor.metric=val/loss is better the lower"),
        ("monitor.metric=val/top1", "expected max, since monitor.metric=val/top1 is better the"),
        ("monitor.metric=val/balanced_accuracy monitor.mode=min", "expected max, since monitor."),
    ],
)  # fmt: skip
def test_wrong_values_are_found_without_torch(words, expected):
    with pytest.raises(FoveaError) as caught:
        prepare_arguments("train", words.split())
    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1  # one mistake, one line


@pytest.mark.parametrize(
    "words",
    [
        "augment.rotate=10 augment.scale=[1,1] model.head.hidden=[64,32] model.head.bias_init=-2",
        "scheduler.warmup_epochs=2.5 scheduler.warmup_steps=10",
        "scheduler=step scheduler.milestones=[3,50%,99.5%]",
        "task.class_weights=auto trainer.max_time=00:12:00:00 trainer.strategy=ddp_spawn",
        "task.class_weights={3:2} trainer.max_time={minutes:12} trainer=ddp_cpu",
        "monitor.metric=val/loss monitor.mode=min",
        "monitor.metric=val/my_score monitor.mode=min",
        # The keys of a class of one's own mean what it says they mean.
        "optimizer._target_=timm.optim.Adan optimizer.betas=[0.9,0.9,0.9]",
        "scheduler._target_=fovea.optim.mine.Steps scheduler.final_factor=2",
        "task._target_=fovea.tasks.mine.Task task.loss=focal",
    ],
)
def test_right_values_pass(words):
    prepare_arguments("train", words.split())


@pytest.mark.parametrize(
    ("command", "words", "expected"),
    [
        ("eval", "batch_size=0", "batch_size=0: expected a number of more than 0."),
        ("eval", "seed=-1", "seed=-1: expected a number of at least 0."),
        ("eval", "trainer.accelerator=gpuu", "Did you mean 'gpu'?"),
        ("eval", "trainer.devices=0", "trainer.devices=0: expected"),
        ("eval", "data=cifar10 data.batch_size=0", "data.batch_size=0: expected a number of more"),
        ("eval", "data=cifar10 model=resnet50 model.stem=smal", "Did you mean 'small'?"),
        ("eval", "split=vall", "Did you mean 'val'?"),
        ("predict", "batch_size=0", "batch_size=0: expected a number of more than 0."),
        ("predict", "top_k=all", "top_k='all' (text): expected a whole number."),
        ("predict", "device=cudda", "or cuda:N. Did you mean 'cuda'?"),
        ("predict", "device=cuda:x", "device='cuda:x' (text): expected one of 'auto'"),
    ],
)
def test_wrong_values_of_the_other_commands(command, words, expected):
    given = ["ckpt=x", *(["a.png"] if command == "predict" else [])]
    prepare_arguments(command, given)
    prepare_arguments(command, [*given, "batch_size=8"])
    with pytest.raises(FoveaError) as caught:
        prepare_arguments(command, [*given, *words.split()])
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("target", "arguments", "expected"),
    [
        ("fractions.Fraction", {"numerator": "x"}, "here: Invalid literal for Fraction: 'x'"),
        ("fractions.Fraction", {"numerator": []}, "here: "),
        ("fractions.Fraction", {"size": 1}, "Its keys: --cfg job --package here"),
        ("random.choice", {"seq": []}, "here: Cannot choose from an empty sequence"),
        ("lightning.pytorch.callbacks.Timer", {"duration": "1h"}, "here: .*valid duration"),
        ("fractions.Fraction", {"numerator": {"_target_": "fractions.Fraction", "numerator": "x"}},
         "(?s)here: .*Invalid literal for Fraction: 'x'"),
    ],
)  # fmt: skip
def test_what_a_constructor_refuses_names_the_key(target, arguments, expected):
    from omegaconf import OmegaConf

    from fovea.experiment import build_node
    from fovea.safety.targets import allowing

    with (
        allowing(["fractions", "random"]),
        pytest.raises(FoveaError, match=expected) as caught,
    ):
        build_node(OmegaConf.create({"_target_": target, **arguments}), "here")
    assert caught.value.__cause__ is not None  # for debugging


def test_a_constructor_s_own_word_is_left_as_it_is():
    from omegaconf import OmegaConf

    from fovea.experiment import build_node
    from fovea.safety.targets import allowing

    node = {"_target_": "fovea.data.Augment", "flip": 2}
    for wrapped in (node, {"_target_": "builtins.dict", "inner": node}):
        with (
            allowing(["builtins"]),
            pytest.raises(FoveaError, match=r"^augment\.flip=2 must be from 0 to 1$"),
        ):
            build_node(OmegaConf.create(wrapped), "here")


def test_mistake_in_one_job_of_a_sweep_is_found_before_the_first(tmp_path):
    with pytest.raises(FoveaError, match="resnet81"):
        prepare_arguments("train", ["-m", "model=resnet18,resnet81"])
    with pytest.raises(FoveaError, match=r"optimizer\.lr=-1"):
        prepare_arguments("train", ["-m", "seed=1,2,3", "optimizer.lr=0.1,-1"])


def test_typo_costs_no_time_and_leaves_nothing(tmp_path):
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(ROOT / "src" / "train.py"), "model=resnet81"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert time.monotonic() - began < 3
    assert done.returncode == 2
    assert "Did you mean 'resnet18'?" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert not any(tmp_path.iterdir())


def test_checking_arguments_does_not_import_torch(tmp_path):
    code = (
        "import sys; from fovea.arguments import prepare_arguments;"
        "prepare_arguments('train', ['model=resnet50']); print('torch' in sys.modules)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.stdout.strip() == "False", done.stderr


def test_help_is_one_screen_and_names_every_choice(tmp_path):
    text = help_text("train")
    assert len(text.splitlines()) <= 80
    for group, choices in groups().items():
        assert f"{group}=" in text
        for choice in choices:
            assert choice in text
            first = (config_dir() / group / f"{choice}.yaml").read_text().splitlines()
            assert first[0].startswith("# "), f"{group}/{choice}.yaml has no line for --help"


@pytest.mark.parametrize(
    "path", ["a b/c.ckpt", "it's/x.ckpt", "comma,paren(1).ckpt", "ünï/ç.ckpt", r"back\slash'.ckpt",
             "eq=x.ckpt", "br[0].ckpt", '"q".ckpt']
)  # fmt: skip
def test_quoted_paths_survive_hydra(path):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    (parsed,) = OverridesParser.create().parse_overrides([f"ckpt={quote(path)}"])
    assert parsed.value() == path


def test_bare_file_names_are_input_of_predict():
    words = prepare_arguments("predict", ["ckpt=x y/z.ckpt", "a 1.jpg", "b,c.jpg"]).words
    assert "input=['a 1.jpg','b,c.jpg']" in words
    assert "ckpt='x y/z.ckpt'" in words


def test_existing_files_are_input_of_predict_whatever_their_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ("a=b.png", "+c.png", "-d.png")
    for name in names:
        (tmp_path / name).touch()
    words = prepare_arguments("predict", ["ckpt=x", *names, "top_k=3"]).words
    assert words[:3] == ["ckpt=x", "top_k=3", "input=['a=b.png','+c.png','./-d.png']"]
    with pytest.raises(FoveaError, match="absent: no such key"):
        prepare_arguments("predict", ["ckpt=x", "absent=b.png"])


def test_run_ids_differ_within_a_second(tmp_path):
    made = {prepare_arguments("train", []).words[-1] for _ in range(20)}
    assert len(made) == 20
    assert all(word.startswith("run_id=") for word in made)


def test_sweep_under_torchrun_is_refused(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(FoveaError, match="without torchrun"):
        prepare_arguments("train", ["-m", "seed=1,2"])


def test_run_ids_of_ranks_started_from_outside_agree(monkeypatch, tmp_path):
    from fovea import run_id

    for name, value in {"SLURM_JOB_ID": "7", "SLURM_PROCID": "1", "SLURM_NTASKS": "4"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_STEP_ID", "2")
    assert run_id.make(tmp_path) == run_id.make(tmp_path) == "slurm-7-2"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert run_id.make(tmp_path) == "slurm-7-2-restart1"
    monkeypatch.setenv("SLURM_NTASKS", "1")  # two trainings in one batch script
    assert run_id.make(tmp_path) != run_id.make(tmp_path)


def test_a_run_folder_is_not_overwritten(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.yaml").write_text("{}")
    words = [f"paths.outputs={tmp_path}", "run_id=a"]
    with pytest.raises(FoveaError, match="resume="):
        prepare_arguments("train", words)
    prepare_arguments("train", [words[0], "run_id=b"])
