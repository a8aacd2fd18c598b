"""The YAML of data and augment: every key is a parameter, and every parameter is a key."""

import inspect
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import fovea.data
from fovea.data import Augment

CONF = Path(__file__).parents[2] / "conf"
DATA = sorted(path for path in (CONF / "data").glob("*.yaml") if path.stem != "_base")
AUGMENT = sorted(path for path in (CONF / "augment").glob("*.yaml") if path.stem != "_base")


def load(path):
    node = OmegaConf.merge(OmegaConf.load(path.parent / "_base.yaml"), OmegaConf.load(path))
    del node["defaults"]
    return node


def parameters(cls):
    names = {
        name
        for base in cls.__mro__
        if base.__module__.startswith("fovea.data") and "__init__" in vars(base)
        for name, parameter in inspect.signature(vars(base)["__init__"]).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD
    }
    return names - {"self", "augment"}


def test_the_choices_are_all_here():
    names = ["cifar10", "cifar100", "cifar100_c", "cifar10_c", "digits", "folder", "imagenet"]
    names += [f"imagenet_{which}" for which in ("a", "c", "r", "sketch", "v2")] + ["shards"]
    assert [path.stem for path in DATA] == names
    assert {"none", "basic", "randaug", "trivial", "mixup_cutmix"} <= {p.stem for p in AUGMENT}


@pytest.mark.parametrize("path", [*DATA, *AUGMENT], ids=lambda path: path.stem)
def test_keys_are_parameters(path):
    node = load(path)
    cls = getattr(fovea.data, node.pop("_target_").removeprefix("fovea.data."))
    node.pop("check", None)  # asks the command, not the data module
    assert set(node) == parameters(cls)
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize("path", AUGMENT, ids=lambda path: path.stem)
def test_augmentations_build(path):
    node = OmegaConf.to_container(load(path))
    node.pop("_target_")
    assert Augment(**node).describe(224, hflip=True)
