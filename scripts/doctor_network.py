"""What is reached from here: W&B with its account, and the hubs that weights come from."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
from pathlib import Path

from doctor_finding import Finding, Options, first_line, note, ok, problem
from doctor_software import module_alone

ANSWER_S = 3.0
HUBS = {
    "Hugging Face (timm's weights)": "https://huggingface.co",
    "torchvision's weights": "https://download.pytorch.org",
}


def check_wandb(options: Options) -> Finding:
    """Say in which mode a run would log, and what of earlier ones waits to be uploaded."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    access = module_alone("tracking/wandb_access")
    access.logger.addHandler(handler)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        try:
            mode = access.wandb_mode(ANSWER_S)
        except Exception as error:  # a WANDB_* variable it cannot read
            return problem(
                f"its settings can't be read: {first_line(error)}", "look at: env | grep WANDB"
            )
    waiting = _waiting(options.outputs)
    offline = " ".join(said).rstrip(".") or "no account: runs are logged offline, which is fine"
    text = {"online": "logged in, and the server answers", "disabled": "disabled"}.get(
        mode, offline
    )
    if not waiting:
        return ok(text) if mode != "offline" else note(text, "to log in: wandb login")
    sync = f"wandb sync {shlex.join(map(str, waiting[:3]))}" + (" …" if waiting[3:] else "")
    return note(
        f"{text}; {len(waiting)} offline runs below {options.outputs}", f"to upload: {sync}"
    )


def _waiting(outputs: Path) -> list[Path]:
    """Return the offline runs that were not uploaded, oldest first."""
    found = [*outputs.glob("*/wandb/offline-run-*"), *outputs.glob("*/*/wandb/offline-run-*")]
    return sorted(run for run in found if not list(run.glob("*.synced")))


def check_hubs(_options: Options) -> Finding:
    """Ask the servers of pre-trained weights for any answer."""
    if os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"):
        return note("not asked: HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE to download weights")
    hubs = dict(HUBS)
    if endpoint := os.environ.get("HF_ENDPOINT"):
        hubs["Hugging Face (timm's weights)"] = endpoint
    access = module_alone("tracking/wandb_access")
    silent = [name for name, url in hubs.items() if not access.answers(url, ANSWER_S)]
    if not silent:
        return ok(f"{' and '.join(hubs)} answer")
    return note(
        f"no answer within {ANSWER_S:g} s: {', '.join(silent)}",
        "name a file instead (model.weights=weights.pth), or set HTTPS_PROXY or HF_ENDPOINT",
    )
