"""What `_target_` may name: nothing leads out of fovea and the classes of its libraries."""

import sys

import pytest
import torch
from omegaconf import OmegaConf

import fovea
from fovea import resume
from fovea.arguments import prepare_arguments
from fovea.errors import FoveaError
from fovea.experiment import build_node, compose
from fovea.run_folder import read_config
from fovea.safety import targets
from fovea.types import Preprocessing

REFUSED = [
    "os.system", "posix.system", "builtins.eval", "builtins.print", "subprocess.Popen",
    "functools.partial", "pickle.loads", "importlib.import_module",
    "hydra.utils.instantiate", "hydra.utils.get_method", "hydra.utils.call",
    "torch.load", "torch.hub.load", "torch.hub.load_state_dict_from_url", "torch.save",
    "torch.utils.cpp_extension.load", "torch.utils.data.DataLoader", "torch.jit.load",
    "torch.distributed.elastic.multiprocessing.SubprocessHandler", "torch.package.PackageImporter",
    "torch.os.system", "fovea.cli.os.system", "torch.nn.Module.load_state_dict",
    "torch.nn.init.ones_",
    "torch.optim.lr_scheduler.warnings.warn", "torch.nn.modules.module.functools.partial",
    "timm.create_model", "timm.models.load_checkpoint", "timm.models._builder.build_model_with_cfg",
    "torchvision.models.get_model", "torchvision.datasets.DatasetFolder",
    "lightning.pytorch.cli.LightningCLI", "lightning.pytorch.callbacks.callback.Any",
    "lightning.LightningModule.load_from_checkpoint", "lightning.pytorch.trainer.trainer.os.system",
    "torchmetrics.image.arniqa.ARNIQA", "fovea.cli.main", "fovea.cli.sys.exit",
    "fovea.tracking.environment._git", "fovea.tracking.environment.subprocess.run",
    "fovea.models.checkpoint.read_checkpoint", "fovea", "", "fovea..data", "fovea.data.Augment()",
    "fovea.nothing.Here", "hydra_plugins.fovea_launcher.FoveaLauncher",
]  # fmt: skip
ALLOWED = [
    "fovea.data.Augment", "fovea.models.create_head", "torch.optim.AdamW", "torch.nn.ReLU",
    "timm.optim.Lamb", "lightning.Trainer", "lightning.pytorch.callbacks.ModelCheckpoint",
    "lightning.pytorch.profilers.SimpleProfiler", "lightning.pytorch.strategies.DDPStrategy",
    "torchmetrics.classification.MulticlassAccuracy", "torchvision.transforms.v2.RandomCrop",
]  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_leads_out_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evil = {"_target_": name, "_args_": ["touch marker"]}
    for node in (evil, {"_target_": "fovea.data.Augment", "x": [{"y": evil}]}):
        with pytest.raises(FoveaError, match=r"is refused|there is no"):
            build_node(OmegaConf.create(node), "here")
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("name", ALLOWED)
def test_what_configurations_are_made_of_is_allowed(name):
    targets.check({"_target_": name}, "here")


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "fovea.data.Augment", "x": "${oc.create:{_target_: os.system}}"},
        {"_target_": "fovea.data.Augment", "x": r"\${oc.create:{_target_: os.system}}"},
        {"_target_": "${name}", "name": "os.system"},
        {"_target_": "fovea.data.Augment", "_recursive_": False, "x": {"_target_": "os.system"}},
    ],
)
def test_no_interpolation_leads_out(node, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FoveaError, match=r"refused|\$\{"):
        build_node(OmegaConf.create(node), "here")


MARK = "command='touch marker'"


@pytest.mark.parametrize(
    "words",
    [
        ["+callbacks.x._target_=os.system", f"+callbacks.x.{MARK}"],
        ["model._target_=os.system"],
        ["+hydra.callbacks.x._target_=os.system", f"+hydra.callbacks.x.{MARK}"],
        ["hydra.callbacks='${oc.create:{x:{_target_: os.system}}}'"],
        ["+hydra.callbacks.x=${paths}"],
        ["+hydra.callbacks.x._target_=fovea.cli.sys.exit"],
        ["hydra.launcher._target_=os.system"],
        ["hydra.sweeper._target_=os.system"],
        ["+hydra.launcher.x._target_=fovea.cli.sys.exit"],
        ["launcher._target_=fovea.cli.main"],
        ["hydra/job_logging=default"],
        ["+hydra.job_logging.formatters.x.'()'=os.system"],
        ["allow_targets=[os]", "model._target_=os.system"],
        ["--experimental-rerun", "x.pickle"],
        ["--experimental-re=x.pickle"],
        ["--config-path", "."],
    ],
)
def test_the_command_line_is_looked_at_before_hydra_runs_anything(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FoveaError):
        prepare_arguments("train", words)
    assert not list(tmp_path.iterdir())


RECIPES = {
    "targets": ("model: {_target_: mypackage.Net}\nallow_targets: [mypackage]", "asks for"),
    "system": ("callbacks: {x: {_target_: os.system}}", "os.system is refused"),
    "callback": ("hydra: {callbacks: {x: {_target_: os.system}}}", "os.system is refused"),
    "preload": ("hydra: {job: {env_set: {LD_PRELOAD: x.so}}}", "LD_PRELOAD"),
    "shell": ("defaults: [override /launcher: slurm]\nlauncher: {setup: [touch marker]}", "shell"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_from_elsewhere_runs_nothing(name, tmp_path):
    text, says = RECIPES[name]
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "evil.yaml").write_text(f"# @package _global_\n{text}\n")
    with pytest.raises(FoveaError, match=says):
        prepare_arguments("train", ["--config-dir", str(tmp_path), "experiment=evil"])


def test_a_package_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "mypackage.py").write_text(
        "import os\nclass Thing:\n    def __init__(self, n): self.n = n\n"
        "def make(n): return Thing(n + 1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mypackage", raising=False)
    node = OmegaConf.create({"_target_": "mypackage.Thing", "n": 1})
    with pytest.raises(FoveaError, match=r"add allow_targets=\[mypackage\]"):
        build_node(node, "here")
    assert "mypackage" not in sys.modules  # not even imported
    with targets.allowing(["mypackage"]):
        assert build_node(node, "here").n == 1
        assert build_node(OmegaConf.create({"_target_": "mypackage.make", "n": 1}), "here").n == 2
        with pytest.raises(FoveaError, match=r"mypackage\.os\.system \(which is posix\.system\)"):
            build_node(OmegaConf.create({"_target_": "mypackage.os.system"}), "here")
    with pytest.raises(FoveaError):
        build_node(node, "here")
    cfg = compose(["allow_targets=[mypackage]", "model._target_=mypackage.Thing"])
    assert cfg.model._target_ == "mypackage.Thing"


def stored(config):
    """Return a checkpoint as train writes it, less the weights."""
    record = {
        "config": config, "class_names": ["a", "b"], "splits": {},
        "preprocessing": Preprocessing(image_size=8).to_dict(),
    }  # fmt: skip
    return {"fovea": record, "state_dict": {}, "epoch": 0, "global_step": 1}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"_target_": "os.system", "command": "touch marker"}, "os.system is refused"),
        ({"_target_": "fovea.cli.os.system", "command": "touch marker"}, "is refused"),
        ({"name": "${oc.env:HOME}"}, "interpolation"),
        ({"_target_": "mypackage.Net"}, "refused"),
    ],
)
def test_the_configuration_in_a_checkpoint_leads_nowhere(change, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = {
        "model": {"head": {}, "weights": None, **change},
        "allow_targets": ["mypackage", "os"],
    }
    torch.save(stored(config), "evil.ckpt")
    with pytest.raises(FoveaError, match=says):
        fovea.load("evil.ckpt")
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("config", [None, 5, [], {"model": 3}, {}])
def test_a_forged_record_is_a_sentence(config, tmp_path):
    torch.save(stored(config), tmp_path / "evil.ckpt")
    with pytest.raises(FoveaError, match=r"evil\.ckpt"):
        fovea.load(tmp_path / "evil.ckpt")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"callbacks.x": {"_target_": "os.system"}}, "os.system is refused"),
        ({"data.root": "https://x/${oc.env:HOME}"}, "interpolation"),
        ({"callbacks.best.dirpath": "/home"}, "outside its folder"),
        ({"logger": {"tensorboard": {"save_dir": "/home"}}}, "outside its folder"),
    ],
)
def test_the_config_file_of_a_run_leads_nowhere(change, says, tmp_path):
    cfg = compose([f"paths.outputs={tmp_path}", "resume=null"])
    saved = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
    for key, value in change.items():
        OmegaConf.update(saved, key, value, force_add=True)
    with pytest.raises(FoveaError, match=says):
        resume.merge(cfg, saved, [])


def test_only_today_s_command_extends_what_a_run_may_name(tmp_path):
    cfg = compose([f"paths.outputs={tmp_path}", "allow_targets=[today]"])
    saved = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
    saved.allow_targets = ["yesterday"]
    assert resume.merge(cfg, saved, []).allow_targets == ["today"]


@pytest.mark.parametrize("text", ["!!python/object/apply:os.system ['touch marker']", "a: [", "3"])
def test_a_config_file_with_code_is_refused(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(FoveaError, match=r"config\.yaml"):
        read_config(tmp_path)
    assert not (tmp_path / "marker").exists()
