"""Makes a recorded run's steps again in a plain loop, and says of each quantity how far apart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from recipes.loops import Loop, Micro, merged
from recipes.stepping import drop_rates, floats, norm
from recipes.toys import BATCH, RECIPES, Toy


@dataclass
class Compared:
    """What was compared of a run: column of the table -> largest relative deviation, or words."""

    steps: int
    whole: bool
    """Whether the plain loop took each global batch at once."""
    found: dict[str, float | str] = field(default_factory=dict)

    def deviation(self, column: str, own: Iterable[float], other: Iterable[float]) -> None:
        """Note how far apart two rows of numbers are, relative to the second."""
        pairs = list(zip(own, other, strict=True))
        assert pairs, column
        self.found[column] = max(abs(a - b) / max(abs(b), 1e-12) for a, b in pairs)

    def equal(self, column: str, own: Any, other: Any) -> None:
        """Note that two values are equal, or how they differ."""
        self.found[column] = 0.0 if own == other else f"{own} != {other}"

    def wrong(self) -> dict[str, float | str]:
        """Return what differs, or is further apart than 1e-6 (1e-5 for each tensor at the end)."""
        limits = {"weights": 1e-5, "EMA": 1e-5}
        return {
            column: value
            for column, value in self.found.items()
            if isinstance(value, str) or not value <= limits.get(column, 1e-6)
        }


def reference_net(toy: Toy, start: dict[str, Tensor]) -> nn.Module:
    """Return the reference's own network with the weights that the run began with."""
    net = toy.net()
    state = {plain_name(name): value for name, value in net.state_dict().items()}
    named = {toy.name(name): value for name, value in start.items()}
    missing = {n for n, t in state.items() if t.is_floating_point()} ^ named.keys()
    assert not missing, sorted(missing)
    with torch.no_grad():
        for name, value in named.items():
            assert state[name].shape == value.shape, name
            state[name].copy_(value)
    return net


def plain_name(name: str) -> str:
    """Return the name of a parameter without what a blur in front of its layer adds."""
    return name.replace(".conv.weight", ".weight")


def ranks_of(traces: list[dict[str, Any]], step: int, whole: bool) -> list[list[Micro]]:
    """Return each rank's micro-batches of a step, or one rank with all of them as one batch."""
    ranks = [trace["batches"][step] for trace in traces]
    return [[merged([micro for rank in ranks for micro in rank])]] if whole else ranks


def is_pure(net: nn.Module) -> bool:
    """Return whether an image's output depends on nothing but the image and the weights."""
    random = [m.p for m in net.modules() if isinstance(m, nn.Dropout)] + drop_rates(net)
    normed = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules())
    return not normed and not any(random)


class Replay:
    """The plain loop's numbers, step by step."""

    def __init__(self, toy: Toy, traces: list[dict[str, Any]]) -> None:
        self.net = reference_net(toy, traces[0]["start"])
        self.steps = traces[0]["train_images"] // BATCH
        self.loop: Loop = toy.loop(self.net, toy.epochs, self.steps)
        self.whole = is_pure(self.net)
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.average_norms: list[float] = []
        self.rates: list[dict[str, float]] = []
        self.trainable: list[set[str]] = []
        for epoch in range(toy.epochs):
            self.loop.begin_epoch(epoch)
            names = {n for n, p in self.net.named_parameters() if p.requires_grad}
            self.trainable.append({plain_name(name) for name in names})
            for step in range(self.steps):
                number = epoch * self.steps + step
                self._step(epoch, step, ranks_of(traces, number, self.whole))
            self.loop.end_epoch(epoch)

    def _step(self, epoch: int, step: int, ranks: list[list[Micro]]) -> None:
        self.losses.append(self.loop.step(epoch, step, ranks))
        self.rates.append(self.by_name("lr"))
        self.norms.append(norm(p.detach() for p in self.net.parameters()))
        if self.loop.average is not None:
            average = self.loop.average.module
            self.average_norms.append(norm(p.detach() for p in average.parameters()))

    def by_name(self, setting: str) -> dict[str, float]:
        """Return a group's setting for each parameter."""
        names = {id(p): plain_name(name) for name, p in self.net.named_parameters()}
        groups = self.loop.optimizer.param_groups
        return {names[id(p)]: group[setting] for group in groups for p in group["params"]}


def compare(name: str, traces: list[dict[str, Any]]) -> Compared:
    """Return what was compared of recipe ``name``, whose ranks recorded ``traces``."""
    toy, trace = RECIPES[name], traces[0]
    replay = Replay(toy, traces)
    done = Compared(len(trace["losses"]), replay.whole)
    _compare_rates(done, toy, trace, replay)
    _compare_lengths(done, toy, trace, replay)
    done.deviation("loss", trace["losses"], replay.losses)
    done.deviation("norm", trace["norms"], replay.norms)
    end = {plain_name(n): t for n, t in floats(replay.net).items()}
    done.found["weights"] = _distance(toy, trace["end"], end)
    if trace["average_norms"]:
        done.deviation("EMA norm", trace["average_norms"], replay.average_norms)
        assert replay.loop.average is not None
        average = {plain_name(n): t for n, t in floats(replay.loop.average.module).items()}
        done.found["EMA"] = _distance(toy, trace["average"], average)
    if rates := drop_rates(replay.net):
        done.deviation("drop path", trace["drop_rates"], rates)
    return done


def _compare_rates(done: Compared, toy: Toy, trace: dict[str, Any], replay: Replay) -> None:
    groups = [[toy.name(own) for own in names] for names in trace["groups"]]
    own, other = [], []
    for number, (rates, expected) in enumerate(zip(trace["rates"], replay.rates, strict=True)):
        trains = replay.trainable[number // replay.steps]
        for names, rate in zip(groups, rates, strict=True):
            own += [rate for name in names if name in trains]
            other += [expected[name] for name in names if name in trains]
    done.deviation("lr", own, other)
    decay = {n: d for names, d in zip(groups, trace["decay"], strict=True) for n in names}
    done.equal("decay", decay, replay.by_name("weight_decay"))
    trainable = [{toy.name(own) for own in names} for names in trace["trainable"]]
    done.equal("trains", trainable, replay.trainable)


def _compare_lengths(done: Compared, toy: Toy, trace: dict[str, Any], replay: Replay) -> None:
    expected = [[replay.steps] * toy.epochs, replay.steps, replay.steps * toy.epochs]
    own = [trace["steps_by_epoch"], trace["steps_per_epoch"], trace["total_steps"]]
    done.equal("steps", own, expected)
    if toy.sides:
        firsts = [trace["batches"][epoch * replay.steps][0] for epoch in range(toy.epochs)]
        sides = [first["images"].shape[-1] for first in firsts]
        done.equal("side", sides, [toy.sides(epoch) for epoch in range(toy.epochs)])


def _distance(toy: Toy, own: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Return how far apart weights and statistics are at most, as a share of a tensor's norm.

    Below a norm of 1 the distance itself counts: the key biases of attention have no gradient but
    rounding, of which Adam makes steps.
    """
    named = {toy.name(name): value.double() for name, value in own.items()}
    assert named.keys() == other.keys()
    far = ((t - other[n].double()).norm() / max(float(t.norm()), 1.0) for n, t in named.items())
    return float(max(far))


COLUMNS = {
    "lr": "rate of each parameter",
    "decay": "decay by name",
    "trains": "what trains",
    "steps": "steps per epoch, in all",
    "loss": "loss",
    "norm": "parameter norm",
    "weights": "weights and statistics at the end",
    "EMA norm": "EMA norm",
    "EMA": "EMA at the end",
    "drop path": "drop path by block",
    "side": "pixels by epoch",
}


def table(runs: dict[tuple[str, int], Compared]) -> str:
    """Return a Markdown table of what was compared of each recipe, on one rank and on two.

    A number is the largest relative deviation of both, 0 where all is equal.
    """
    lines = ["| " + " | ".join(["recipe", "steps", "2 x 2 against", *COLUMNS.values()]) + " |"]
    lines.append("| " + " | ".join(["---"] * (len(COLUMNS) + 3)) + " |")
    for name in dict.fromkeys(name for name, _ in runs):
        one, two = runs[name, 1], runs[name, 2]
        cells = [name, str(one.steps), "global batch" if two.whole else "micro-batches"]
        for column in COLUMNS:
            values = [run.found[column] for run in (one, two) if column in run.found]
            numbers = [value for value in values if isinstance(value, float)]
            text = "differs" if len(numbers) < len(values) else f"{max(numbers, default=0):.0e}"
            cells.append("" if not values else "0" if text == "0e+00" else text)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
