"""Loading of weights into a backbone and its head, with a report of what matched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fovea.errors import FoveaError
from fovea.models.adapt import fit_first_conv, fit_positions
from fovea.models.backbone import Backbone
from fovea.models.checkpoint import find_prefix, read_checkpoint, tensors_in
from fovea.models.head import Head
from fovea.models.sources import NamedWeights, find_weights

_OWN = "backbone.net."
_SHOWN = 4


@dataclass
class LoadReport:
    """What `load_weights` did. Names are those of the network's tensors.

    Attributes:
        source: where the weights came from.
        matched: number of the backbone's tensors that were filled, adapted ones included.
        total: number of the backbone's tensors (counters of batches seen are left out).
        adapted: filled after a change of shape: name -> what was done.
        missing: not in the weights; keep their random start.
        unexpected: in the weights, but not in the backbone or the head.
        mismatched: of another shape, each with both shapes; keep their random start.
        head: begins with "loaded", or says why the head keeps its start; empty if there was no head
            to fill.
    """

    source: str
    matched: int = 0
    total: int = 0
    adapted: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    head: str = ""

    @property
    def share(self) -> float:
        """Part of the backbone's tensors that were filled, in [0, 1]."""
        return self.matched / max(1, self.total)

    def rows(self) -> list[tuple[str, str]]:
        """Return the report as (label, text) lines for a summary."""
        lists = {
            "adapted": [f"{name} ({done})" for name, done in self.adapted.items()],
            "missing": self.missing,
            "other shape": self.mismatched,
            "not used": self.unexpected,
        }
        return [
            ("weights", self.source),
            ("matched", f"{self.matched} of {self.total} tensors of the backbone"),
            *((label, _shorten(names)) for label, names in lists.items() if names),
            *([("head", self.head)] if self.head else []),
        ]

    def __str__(self) -> str:
        """Return the report as one readable paragraph."""
        first, *others = self.rows()
        return f"Weights from {first[1]}: " + "; ".join(f"{k} {v}" for k, v in others) + "."


def load_weights(
    backbone: Backbone,
    head: Head | None,
    weights: str | bool | None,
    *,
    class_names: Sequence[str] | None = None,
    strict_share: float = 0.5,
) -> LoadReport:
    """Fill ``backbone``, and ``head`` where it fits, in place; return what matched.

    Args:
        backbone: is filled by name, whatever prefix the names have in the weights.
        head: is filled where classes and layers agree; None: the backbone alone.
        weights: published weights by name ("IMAGENET1K_V2", a timm tag, "DEFAULT" or True for the
            library's own choice), a checkpoint file of any project, or the folder of a run.
        class_names: (K,) what the head's classes are called. The head of a run of fovea is then
            filled only if its classes are the same, whatever their order. None, and for weights
            that name no classes: the number of classes decides.
        strict_share: least share of the backbone's tensors that must be filled.

    Raises:
        FoveaError: no such weights, unreadable, or fewer than ``strict_share`` matched.
    """
    found = find_weights(backbone.name, backbone.library, weights)
    if found is None:
        raise FoveaError(f"model.weights={weights} names no weights to load.")
    known: list[str] | None = None
    if isinstance(found, NamedWeights):
        source, state = found.label, found.load()
    else:
        content = read_checkpoint(found)
        state, nest = tensors_in(content)
        known = _class_names(content)
        source = f"{found} ({nest})" if nest else str(found)
    report = LoadReport(source=source)
    own = _in_own_names(backbone, state, report)
    filled = _fit(backbone, own, report)
    if report.share < strict_share:
        raise FoveaError(_too_few(report, backbone, own, strict_share))
    _check_finite(filled, source)
    backbone.net.load_state_dict(filled, strict=False)
    if head is not None:
        report.head = _fill_head(head, backbone, own, state, known, class_names)
    return report


def _check_finite(tensors: dict[str, Tensor], source: str) -> None:
    """Refuse the weights of a run that diverged.

    Raises:
        FoveaError: a tensor holds NaN or infinity.
    """
    bad = [name for name, t in tensors.items() if not t.isfinite().all()]
    if bad:
        raise FoveaError(
            f"{source} holds NaN or infinity in {_shorten(bad)}: the run that wrote it diverged. "
            "Take an earlier checkpoint."
        )


def _in_own_names(
    backbone: Backbone, state: dict[str, Tensor], report: LoadReport
) -> dict[str, Tensor]:
    """Return what of ``state`` lies behind the backbone's prefix, under the names of its net.

    Reports what lies elsewhere, and what the conversion of the library resampled.
    """
    ours = any(name.startswith(_OWN) for name in state)
    prefix = _OWN if ours else find_prefix(state, backbone.net.state_dict())
    inside = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    outside = [name for name in state if not name.startswith(prefix)]
    report.unexpected += [name for name in outside if not (ours and name.startswith("head."))]
    converted = backbone.convert_weights(inside)
    for name, tensor in converted.items():
        if name in inside and inside[name].shape != tensor.shape:
            report.adapted[name] = f"{_shape(inside[name])} -> {_shape(tensor)}"
    return converted


def _fit(backbone: Backbone, own: dict[str, Tensor], report: LoadReport) -> dict[str, Tensor]:
    """Return the tensors of ``own`` that the backbone takes, in its shapes; fill in ``report``."""
    filled: dict[str, Tensor] = {}
    target = backbone.net.state_dict()
    for name, want in target.items():
        have = own.get(name)
        if name.endswith("num_batches_tracked"):
            filled |= {name: have} if have is not None else {}
            continue
        report.total += 1
        if have is None:
            report.missing.append(name)
        elif have.shape == want.shape:
            filled[name] = have
        elif (fitted := _adapt(backbone, name, have, want.shape)) is not None:
            filled[name], done = fitted
            before = report.adapted.get(name)
            report.adapted[name] = f"{before}, {done}" if before else done
        else:
            report.mismatched.append(f"{name} ({_shape(have)} in the weights, {_shape(want)} here)")
    report.matched = report.total - len(report.missing) - len(report.mismatched)
    classifier = {f"{backbone.classifier}.weight", f"{backbone.classifier}.bias"}
    report.unexpected += [name for name in own if name not in target and name not in classifier]
    return filled


def _adapt(
    backbone: Backbone, name: str, have: Tensor, shape: torch.Size
) -> tuple[Tensor, str] | None:
    """Return ``have`` in ``shape`` and what was done to it, None if that makes no sense."""
    if name in {f"{conv}.weight" for conv in backbone.first_convs}:
        return fit_first_conv(have, shape)
    if name.endswith(("pos_embed", "pos_embedding")):
        return fit_positions(have, shape)
    return None


def _class_names(content: Mapping[str, Any]) -> list[str] | None:
    """Return the classes that a run of fovea recorded in its checkpoint, None if there are none."""
    record = content.get("fovea")
    names = record.get("class_names") if isinstance(record, Mapping) else None
    return [str(name) for name in names] if isinstance(names, list | tuple) else None


def _fill_head(
    head: Head,
    backbone: Backbone,
    own: dict[str, Tensor],
    state: dict[str, Tensor],
    known: list[str] | None,
    class_names: Sequence[str] | None,
) -> str:
    """Fill ``head`` from its own weights or from a published classifier; return what was done.

    Args:
        head: to fill.
        backbone: whose classifier may be in the weights.
        own: the weights under the names of the backbone's net.
        state: all of the weights.
        known: the classes of the weights, in their order, where they name any.
        class_names: those of ``head``.
    """
    ours = any(name.startswith(_OWN) for name in state)
    found = {k.removeprefix("head."): v for k, v in state.items() if k.startswith("head.") and ours}
    if not found and backbone.classifier is not None:
        for kind in ("weight", "bias"):
            if (tensor := own.get(f"{backbone.classifier}.{kind}")) is not None:
                found[f"linear.{kind}"] = tensor.flatten(1) if kind == "weight" else tensor
    if "linear.weight" not in found:
        return "new (the weights hold no classifier)"
    target = head.state_dict()
    if {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in target.items()}:
        if known is None or class_names is None or known == list(class_names):
            head.load_state_dict(found)
            return "loaded"
        rows = _rows_by_name(known, class_names)
        if rows is None:
            return "re-made (other classes)"
        for name in {"linear.weight", "linear.bias"} & found.keys():
            found[name] = found[name][rows]
        head.load_state_dict(found)
        return "loaded (classes reordered by name)"
    old, new = found["linear.weight"].shape[0], head.num_classes
    if old != new:
        return f"re-made ({old} -> {new} classes)"
    return f"re-made ({new} classes in both, but layers of another shape)"


def _rows_by_name(known: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """Return where in ``known`` each of ``wanted`` is; None unless both are the same set."""
    place = {name: row for row, name in enumerate(known)}
    if len(place) != len(known) or sorted(known) != sorted(wanted):
        return None
    return [place[name] for name in wanted]


def _too_few(
    report: LoadReport, backbone: Backbone, own: dict[str, Tensor], strict_share: float
) -> str:
    """Return why these are not the weights of this backbone."""
    examples = {
        "Missing": report.missing,
        "Of another shape": report.mismatched,
        "Only in the weights": [*report.unexpected, *([] if report.unexpected else own)],
    }
    listed = " ".join(f"{kind}: {_shorten(names)}." for kind, names in examples.items() if names)
    return (
        f"{report.source} does not fit the backbone '{backbone.name}' of {backbone.library}: only "
        f"{report.matched} of {report.total} tensors match, and {strict_share:.0%} must. {listed} "
        "Choose the network these weights were made for (model=..., model.name=...)."
    )


def _shorten(names: list[str]) -> str:
    """Return the first few names and how many more there are."""
    shown = ", ".join(names[:_SHOWN])
    more = len(names) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _shape(tensor: Tensor) -> str:
    """Return "64x3x7x7" for a tensor of that shape."""
    return "x".join(map(str, tensor.shape)) or "scalar"
