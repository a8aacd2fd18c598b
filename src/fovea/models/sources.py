"""Where pre-trained weights come from: a name in a library, a file, or a run of fovea."""

from __future__ import annotations

import math
import os
import pickle
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import hf_hub_url, try_to_load_from_cache
from safetensors import SafetensorError
from timm.models._hub import load_state_dict_from_hf
from torch import Tensor
from torchvision import models as zoo

from fovea.errors import FoveaError, did_you_mean
from fovea.models.checkpoint import read_checkpoint, resolve_checkpoint
from fovea.models.timm_backbone import check_timm_name
from fovea.models.torchvision_backbone import family_of
from fovea.types import Interpolation, Preprocessing

_FILE_SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors", ".bin", ".tar", ".th")
_CONNECT_SECONDS = 10
_DEFAULT = ("DEFAULT", "default", "pretrained", "true", "True")


@dataclass(frozen=True)
class NamedWeights:
    """Weights that a library publishes.

    Attributes:
        label: for people, with the library and the full name.
        url: where they are published.
        file: where a download is kept, None if that is the hub's own cache.
        fetch: returns the state dictionary, from the cache if it is there.
        preprocessing: how images must be prepared for them.
    """

    label: str
    url: str
    file: Path | None
    fetch: Callable[[], dict[str, Tensor]]
    preprocessing: Preprocessing

    def load(self) -> dict[str, Tensor]:
        """Return the state dictionary, downloaded if need be.

        Raises:
            FoveaError: it could not be had; says where the file is and where it may be put.
        """
        try:
            return self.fetch()
        except (OSError, RuntimeError, pickle.UnpicklingError, SafetensorError) as error:
            place = f"put it at {self.file}, or anywhere" if self.file else "put it anywhere"
            raise FoveaError(
                f"Could not fetch the weights {self.label}: {str(error).splitlines()[0]}. "
                f"On a machine with network fetch {self.url}, {place} and say "
                "model.weights=/path/to/that/file."
            ) from error


def find_weights(name: str, library: str, weights: str | bool | None) -> NamedWeights | Path | None:
    """Return what ``weights`` means for backbone ``name``: published weights, a file, or nothing.

    Raises:
        FoveaError: neither a name that the library knows for this network nor a file.
    """
    if weights is None or weights is False:
        return None
    tag = "DEFAULT" if weights is True or str(weights) in _DEFAULT else str(weights)
    find = {"torchvision": _find_torchvision, "timm": _find_timm}.get(library)
    named, known = find(name, tag) if find else (None, [])
    if named is not None:
        return named
    path = Path(tag).expanduser()
    if path.exists() or path.suffix in _FILE_SUFFIXES or len(path.parts) > 1:
        return resolve_checkpoint(path)
    raise FoveaError(
        f"model.weights={weights} is neither a file nor weights that {library} has for '{name}'."
        f"{did_you_mean(tag, known)} There are: {', '.join(known) or 'none'}."
    )


def weights_preprocessing(
    name: str, library: str, weights: str | bool | None
) -> Preprocessing | None:
    """Return how images must be prepared for ``weights`` of backbone ``name``.

    None without weights, and for a file that does not say.

    Raises:
        FoveaError: there are no such weights.
    """
    found = find_weights(name, library, weights)
    if found is None:
        return None
    if isinstance(found, NamedWeights):
        return found.preprocessing
    stored = read_checkpoint(found).get("fovea")
    fields = stored.get("preprocessing") if isinstance(stored, dict) else None
    return Preprocessing.from_dict(fields) if fields else None


def _find_torchvision(name: str, tag: str) -> tuple[NamedWeights | None, list[str]]:
    """Return torchvision's weights ``tag`` (None if it has none so called) and all tags."""
    family_of(name)
    choices = zoo.get_model_weights(name)
    known = list(choices.__members__)
    tag = tag.removeprefix(f"{choices.__name__}.")
    if tag not in known:
        return None, known
    entry = choices[tag]
    preset = entry.transforms()
    named = NamedWeights(
        label=f"{choices.__name__}.{entry.name} of torchvision",
        url=entry.url,
        file=_hub_file(entry.url),
        fetch=lambda: dict(entry.get_state_dict(progress=True, check_hash=True, weights_only=True)),
        preprocessing=Preprocessing(
            image_size=preset.crop_size[0],
            mean=tuple(preset.mean),
            std=tuple(preset.std),
            resize=preset.resize_size[0],
            interpolation=_interpolation(preset.interpolation.value),
        ),
    )
    return named, known


def _find_timm(name: str, tag: str) -> tuple[NamedWeights | None, list[str]]:
    """Return timm's weights ``tag`` (None if it has none so called) and all tags."""
    check_timm_name(name)
    arch = name.split(".")[0]
    full = name if tag == "DEFAULT" else f"{arch}.{tag.removeprefix(f'{arch}.')}"
    published = timm.list_pretrained(f"{arch}.*")
    known = [entry.split(".", 1)[1] for entry in published]
    if full not in published and not (tag == "DEFAULT" and known and name == arch):
        return None, known
    cfg: Any = timm.get_pretrained_cfg(full)
    named = NamedWeights(
        label=f"{arch}.{cfg.tag} of timm",
        url=_timm_url(cfg),
        file=None
        if cfg.hf_hub_id
        else Path(torch.hub.get_dir()) / "checkpoints" / Path(cfg.url).name,
        fetch=lambda: _fetch_timm(cfg),
        preprocessing=_timm_preprocessing(cfg),
    )
    return named, known


def _timm_preprocessing(cfg: Any) -> Preprocessing:
    """Return what timm evaluates these weights with.

    Source: timm ``data/transforms_factory.py``, ``transforms_imagenet_eval``: the shorter side is
    resized to floor(size / crop_pct); "squash" without a crop resizes the whole image.
    """
    size = cfg.input_size[-1]
    whole = cfg.crop_mode == "squash" and cfg.crop_pct == 1
    return Preprocessing(
        image_size=size,
        channels=cfg.input_size[0],
        mean=tuple(cfg.mean),
        std=tuple(cfg.std),
        resize=None if whole else math.floor(size / cfg.crop_pct),
        interpolation=_interpolation(cfg.interpolation),
    )


def _interpolation(name: str) -> Interpolation:
    """Return the nearest of the two interpolations there are here."""
    return "bilinear" if name == "bilinear" else "bicubic"


def _hub_file(url: str) -> Path:
    """Return where torch's hub keeps what it downloads from ``url``."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name


def _timm_url(cfg: Any) -> str:
    """Return where timm's weights are published."""
    if cfg.hf_hub_id:
        return hf_hub_url(cfg.hf_hub_id.split("@")[0], cfg.hf_hub_filename or "model.safetensors")
    return str(cfg.url)


def _fetch_timm(cfg: Any) -> dict[str, Tensor]:
    """Return timm's published state dictionary."""
    if cfg.custom_load == "hf" or (cfg.custom_load and not cfg.hf_hub_id):
        raise RuntimeError("they are in a format that only timm's own pretrained=True reads")
    if not cfg.hf_hub_id:
        return dict(
            torch.hub.load_state_dict_from_url(
                cfg.url, map_location="cpu", check_hash=False, weights_only=True
            )
        )
    filename = cfg.hf_hub_filename or "model.safetensors"
    if not isinstance(try_to_load_from_cache(cfg.hf_hub_id.split("@")[0], filename), str):
        _check_reachable(_timm_url(cfg))
    extra = {"filename": cfg.hf_hub_filename} if cfg.hf_hub_filename else {}
    return dict(load_state_dict_from_hf(cfg.hf_hub_id, weights_only=True, **extra))


def _check_reachable(url: str) -> None:
    """Fail within seconds where there is no network; the hub's client retries for most of a minute.

    Raises:
        OSError: no answer.
    """
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
        raise OSError("HF_HUB_OFFLINE is set and the weights are not in the hub's cache")
    try:
        urllib.request.urlopen(
            urllib.request.Request(url, method="HEAD"), timeout=_CONNECT_SECONDS
        ).close()
    except urllib.error.HTTPError:
        return  # an answer; the client says better what is wrong with it
