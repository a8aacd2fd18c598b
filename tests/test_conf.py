"""Every choice of every group composes, binds to its class, and builds."""

import inspect
from pathlib import Path

import pytest
import torch
import yaml
from hydra.utils import get_method

from fovea.arguments import compose_checked
from fovea.catalog import config_dir, groups
from fovea.config import check
from fovea.experiment import build_data, build_model, compose

CONF = config_dir()
TRANSFERS = {"resnet50_transfer", "vit_b16_transfer"}
CHOICES = [(group, choice) for group, choices in groups().items() for choice in choices]


def test_the_globs_see_the_whole_tree():
    files = [f for f in CONF.rglob("*.yaml") if f.parent != CONF and not f.name.startswith("_")]
    outside = [f for f in files if f.parent.name in {"paths", "hydra", "transfer"}]
    assert len(CHOICES) == len(files) - len(outside)
    assert len(CHOICES) >= 45


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes_and_its_keys_are_parameters(group, choice):
    words = [f"{group}={choice}"]
    if group in {"callbacks", "logger"}:
        words = [f"{group}=[{choice}]"]
    if (group, choice) == ("model", "timm"):
        words.append("model.name=resnet18")
    needs_root = {"folder", "shards", "transfer_to_folder"} | TRANSFERS
    words += ["data.root=photos"] if choice in needs_root else []
    cfg = compose_checked("train", words)
    check(cfg, "train")
    cfg.paths.run = "here"
    plain = __import__("omegaconf").OmegaConf.to_container(cfg, resolve=True)
    nodes = list(targets(plain))
    assert len(nodes) >= 8
    for path, node in nodes:
        target = get_method(node["_target_"])
        parameters = inspect.signature(target).parameters
        if any(p.kind == p.VAR_KEYWORD for p in parameters.values()):
            continue
        known = set(parameters) | {"model": {"weights", "head"}, "data": {"check"}}.get(path, set())
        known |= {"collective_timeout"} if path == "trainer" else set()
        extra = {k for k in node if not k.startswith("_")} - known
        assert not extra, f"{path}: {node['_target_']} takes no {extra}"


@pytest.mark.parametrize("choice", sorted(p.stem for p in (CONF / "transfer").glob("*.yaml")))
def test_every_schedule_of_the_transfer_study_composes(choice):
    cfg = compose_checked("train", ["experiment=transfer_study", f"transfer={choice}"])
    check(cfg, "train")
    assert list(cfg.tags) == ["transfer_study", choice]
    assert (cfg.model.weights is None) == (choice == "from_scratch")
    swept = yaml.safe_load((CONF / "experiment" / "transfer_study.yaml").read_text())
    assert choice in swept["hydra"]["sweeper"]["params"]["transfer"].split(",")


def targets(node, path=""):
    if isinstance(node, dict):
        if "_target_" in node:
            yield path, node
        for key, value in node.items():
            yield from targets(value, f"{path}.{key}".lstrip("."))


def test_no_key_is_both_in_data_and_in_a_default_of_code():
    base = yaml.safe_load((CONF / "data" / "_base.yaml").read_text())
    assert base["seed"] == "${seed}"


SIZES = {"digits": 8, "cifar10": 32, "cifar100": 32, "imagenet": 224, "folder": 224}


@pytest.mark.parametrize("model", sorted(p.stem for p in (CONF / "model").glob("[!_]*.yaml")))
@pytest.mark.parametrize("size", sorted(set(SIZES.values())))
def test_every_model_builds_for_every_size_of_data(model, size):
    words = [f"model={model}"] + (["model.name=resnet18"] if model == "timm" else [])
    cfg = compose(words)
    channels = 1 if size == 8 else 3
    backbone, head, rows = build_model(cfg.model, (channels, size, size), list("abcdefg"))
    with torch.no_grad():
        backbone.eval()
        assert head(backbone(torch.zeros(1, channels, size, size))).shape == (1, 7)
    assert rows[0][0] == "model"


@pytest.mark.parametrize("data", sorted(p.stem for p in (CONF / "data").glob("[!_]*.yaml")))
def test_every_data_set_says_what_to_do_when_it_is_absent(data, tmp_path, monkeypatch):
    from fovea.errors import FoveaError

    monkeypatch.chdir(tmp_path)
    if data == "digits":
        assert build_data(compose()).num_classes == 10
        return
    cfg = compose([f"data={data}", "data.root=nowhere"])
    with pytest.raises(FoveaError, match=r"(?s)(data\.root|nowhere|cifar|imagenet)"):
        build_data(cfg)
    assert not list(Path(tmp_path).glob("outputs/*"))
