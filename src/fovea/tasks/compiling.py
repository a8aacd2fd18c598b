"""torch.compile, where it works."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from fovea.errors import FoveaError, did_you_mean

log = logging.getLogger(__name__)


def compile_in_place(
    modules: list[nn.Module], backend: str | Callable[..., Any], device: torch.device
) -> bool:
    """Compile ``modules`` and return whether that is possible here; if not, say so and leave them.

    A backend needs more than torch: inductor a C++ compiler on a CPU and Triton on a GPU. That is
    tried on a single number, before the training, and a network is no reason to end a run either:
    what of it cannot be compiled runs as it is, and PyTorch warns of it.

    Args:
        modules: changed in place, so that the names in checkpoints stay what they are.
        backend: of ``torch.compile``, a name or the function itself.
        device: that they will run on.

    Raises:
        FoveaError: there is no such backend.
    """
    known = torch._dynamo.list_backends(exclude_tags=())
    if isinstance(backend, str) and backend not in known:
        raise FoveaError(
            f"compile={backend} is no backend of torch.compile.{did_you_mean(backend, known)}\n"
            f"  There are: {', '.join(known)}. compile=true takes inductor."
        )
    try:
        one = torch.ones(1, device=device)
        torch.compile(lambda x: x * 2 + 1, backend=backend)(one)
    except Exception as error:  # any: each backend has its own
        inner = getattr(error, "inner_exception", error)
        lines = str(inner).strip().splitlines()
        reason = f"{type(inner).__name__}: {lines[0] if lines else 'no reason given'}"
        log.warning(
            "compile=%s does not work on this machine, and training goes on without it. %s",
            *(backend, reason[:300]),
        )
        torch._dynamo.reset()
        return False
    torch._dynamo.config.suppress_errors = True
    for module in modules:
        module.compile(backend=backend)
    return True
