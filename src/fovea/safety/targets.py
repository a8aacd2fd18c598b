"""What ``_target_`` may name in a configuration, wherever that comes from: a list of what is known.

A configuration decides which code runs, and it may come from elsewhere: a recipe, the config.yaml
of a run, a checkpoint. So it may name only classes of the packages below, and few functions.
Hydra's own list of forbidden names (since 1.3.8) stays in force, but a list of what is forbidden
is never complete: nearly any package leads to ``os.system`` by what it imports (``torch.os``) or to
code by what it loads (``torch.hub.load``).

Nothing here imports torch until `check` is asked to.
"""

from __future__ import annotations

import inspect
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from omegaconf import DictConfig, ListConfig

from fovea.errors import FoveaError

CLASSES_OF = (
    "fovea",
    "torch.nn", "torch.optim",
    "torchvision.models", "torchvision.ops", "torchvision.transforms",
    "timm.layers", "timm.loss", "timm.models", "timm.optim", "timm.scheduler",
    "torchmetrics.aggregation", "torchmetrics.classification", "torchmetrics.regression",
    *(f"lightning.pytorch.{kind}" for kind in (
        "accelerators", "callbacks", "loggers", "plugins", "profilers", "strategies", "trainer")),
    "lightning.fabric.plugins", "lightning.fabric.strategies",
)  # fmt: skip
"""Packages any public class of which may be named: what they do when they are made was looked at.
Left out are parts that start programs or fetch code when a class of them is made, such as
``torch.distributed``, ``torch.utils``, ``lightning.pytorch.cli`` and ``torchmetrics.image``."""

NAMES = frozenset(
    {
        "fovea.models.create_backbone",
        "fovea.models.create_head",
        "fovea.tracking.tensorboard_logger",
        "fovea.tracking.wandb_logger",
        "lightning.Trainer",
        "lightning.pytorch.Trainer",
    }
)
"""Functions, and classes by a shorter name, that may be named as well."""

PLUGINS = ("hydra_plugins", "hydra._internal.core_plugins", "fovea")
"""Packages whose classes Hydra's own node may name: sweepers, launchers, callbacks."""

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_extended: ContextVar[tuple[str, ...]] = ContextVar("allow_targets", default=())


@contextmanager
def allowing(packages: Sequence[str]) -> Iterator[None]:
    """Let configurations name what is in ``packages`` (``allow_targets``) as well, while inside."""
    token = _extended.set((*_extended.get(), *map(str, packages)))
    try:
        yield
    finally:
        _extended.reset(token)


def check_packages(packages: Sequence[str]) -> None:
    """Raise `FoveaError` for an entry of ``allow_targets`` that is no package of one's own."""
    for package in packages:
        top = str(package).partition(".")[0]
        if not _DOTTED.fullmatch(str(package)) or top in sys.stdlib_module_names:
            raise FoveaError(
                f"allow_targets holds '{package}': it takes the names of your own packages, "
                "modules or functions, such as allow_targets=[mypackage]; nothing of Python itself."
            )


def check_names(node: Any, key: str = "", own: Sequence[str] = ()) -> None:
    """Check by name alone, without an import, what ``node`` would build.

    Args:
        node: plain or of OmegaConf, nested as it likes.
        key: of ``node`` in the configuration, for messages.
        own: packages that are allowed as well.

    Raises:
        FoveaError: a name that is not allowed.
    """
    for where, name in _targets(node, key):
        packages = [p for p in (*_packages(where), *own) if _is_below(name, p)]
        public = any("._" not in name.removeprefix(package) for package in packages)
        if not (name in NAMES or public):
            raise _refusal(where, name)


def check(node: Any, key: str = "", own: Sequence[str] = ()) -> None:
    """Check what ``node`` would build: each name, and what it turns out to be once imported.

    Raises:
        FoveaError: a name that is not allowed or is not there, or something else by such a name: a
            function, a method, what a module imported.
    """
    check_names(node, key, own)
    for where, name in _targets(node, key):
        try:
            found = pkgutil.resolve_name(name)
        except (ImportError, AttributeError, ValueError) as error:
            raise FoveaError(f"{where}: there is no _target_={name}: {error}") from error
        identity = f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"
        mine = any(_is_below(identity, package) for package in (*_extended.get(), *own))
        known = any(_is_below(identity, package) for package in _packages(where))
        if not (name in NAMES or (known and inspect.isclass(found)) or (mine and callable(found))):
            raise _refusal(where, name, identity)


def check_plain(node: Any, key: str = "", own: Sequence[str] = ()) -> None:
    """Do the same for a node that was resolved and is about to be built.

    Raises:
        FoveaError: as above, or for an interpolation that is left, which Hydra would look up while
            it builds: ``${oc.create:{_target_: …}}`` becomes another node then.
    """
    check(node, key, own)
    for value in _texts(node):
        if "${" in value:
            raise FoveaError(f"{key}: the value {value!r} has a '${{' in it, which can't be used.")


def check_stored(node: Any, origin: str) -> None:
    """Check a configuration that a run left, before any of it is used.

    Raises:
        FoveaError: a name that is not allowed, or an interpolation. Runs store plain values, and
            one that is looked up here could carry this machine's environment elsewhere.
    """
    check_names(node, origin)
    for value in _texts(node):
        if "${" in value:
            raise FoveaError(
                f"{origin} holds the interpolation {value!r}, which runs never leave: somebody "
                "changed it, so it is not used."
            )


def _targets(node: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yield (key of the node, name) of each ``_target_`` in ``node``, a class by its name."""
    for name, child in _items(node):
        if name == "_target_":
            named = inspect.isclass(child) or inspect.isroutine(child)
            yield key, f"{child.__module__}.{child.__qualname__}" if named else str(child)
        yield from _targets(child, f"{key}.{name}" if key else str(name))


def _texts(node: Any) -> Iterator[str]:
    """Yield every text in ``node``, names of keys included."""
    for name, child in _items(node):
        yield from (name,) if isinstance(name, str) else ()
        yield from _texts(child)
    if isinstance(node, str):
        yield node


def _items(node: Any) -> Iterable[tuple[Any, Any]]:
    """Return the (key, value) pairs of a mapping or list; none of anything else.

    Values of OmegaConf as they stand: one that is missing or points elsewhere is no reason to fail.
    """
    if isinstance(node, DictConfig | ListConfig):
        if node._is_none() or node._is_missing() or node._is_interpolation():
            return ()
        if isinstance(node, DictConfig):
            return node.items_ex(resolve=False)
        return enumerate(node._iter_ex(resolve=False))
    if isinstance(node, Mapping):
        return node.items()
    return enumerate(node) if isinstance(node, list | tuple) else ()


def _packages(where: str) -> tuple[str, ...]:
    """Return what the node at key ``where`` may name."""
    # Of its own node Hydra itself takes only plugins, but callbacks and what is nested it builds.
    return (*(PLUGINS if where.startswith("hydra.") else CLASSES_OF), *_extended.get())


def _is_below(name: str, package: str) -> bool:
    """Return whether the dotted ``name`` is ``package`` or in it."""
    return _DOTTED.fullmatch(name) is not None and f"{name}.".startswith(f"{package}.")


def _refusal(where: str, name: str, identity: str = "") -> FoveaError:
    other = identity.strip(".") not in ("", name)
    shown = f" (which is {identity.strip('.')})" if other else ""
    allowed = "many classes of fovea, torch, torchvision, timm, Lightning and torchmetrics"
    if where.startswith("hydra."):
        allowed = "Hydra's plugins and classes of fovea here"
    top = name.partition(".")[0]
    known = {package.partition(".")[0] for package in CLASSES_OF}
    hint = ""
    if _DOTTED.fullmatch(name) and not other and top not in sys.stdlib_module_names:
        if top in known:
            hint = f" If you know what this one does, add allow_targets=[{name}]"
        else:
            hint = f" If you wrote it yourself, add allow_targets=[{top}]"
    return FoveaError(
        f"{where}: _target_={name}{shown} is refused. A configuration may name {allowed}.{hint}"
    )
