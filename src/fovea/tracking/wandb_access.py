"""Whether W&B can be reached with a key: decided without asking, failing, or a long wait."""

from __future__ import annotations

import http.client
import logging
import netrc
import os
import queue
import ssl
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

Mode = Literal["online", "offline", "disabled"]

logger = logging.getLogger(__name__)


def wandb_mode(timeout_s: float = 3.0) -> Mode:
    """Return the mode in which ``wandb.init`` will neither prompt nor fail nor hang.

    ``WANDB_MODE`` and the mode that ``wandb offline`` or ``wandb disabled`` stored are followed.
    Otherwise the run is online if there is a key (``WANDB_API_KEY``, an identity token, the netrc
    file, wandb's settings) and the server answers within ``timeout_s`` seconds. A key without a
    server gives a warning, as does ``WANDB_MODE=online`` without a key.
    """
    import wandb

    settings = wandb.setup().settings
    if settings.mode == "disabled":
        return "disabled"
    if settings.mode in ("offline", "dryrun"):
        return "offline"
    if not (settings.api_key or settings.identity_token_file or _netrc_key(settings.base_url)):
        if os.environ.get("WANDB_MODE"):
            logger.warning("W&B: no API key, so this run is logged offline. Log in: wandb login")
        return "offline"
    if not answers(settings.base_url, timeout_s):
        logger.warning(
            "W&B: %s does not answer (waited up to %g s), so this run is logged offline.",
            settings.base_url,
            timeout_s,
        )
        return "offline"
    return "online"


def answers(url: str, timeout_s: float) -> bool:
    """Return whether the server at ``url`` sends any HTTP answer in time, by proxy if one is set.

    An error status is an answer, and so is a certificate that is not trusted here: what to make of
    them is up to the client.
    """
    outcome: queue.SimpleQueue[bool] = queue.SimpleQueue()
    # Looking up a name takes as long as the resolver likes: hence a thread that can be left alone.
    threading.Thread(target=lambda: outcome.put(_ask(url, timeout_s)), daemon=True).start()
    try:
        return outcome.get(timeout=timeout_s)
    except queue.Empty:
        return False


def _ask(url: str, timeout_s: float) -> bool:
    try:
        urllib.request.urlopen(url, timeout=timeout_s).close()
    except urllib.error.HTTPError as error:
        error.close()
    except (OSError, ValueError, http.client.HTTPException) as error:
        return isinstance(getattr(error, "reason", error), ssl.SSLCertVerificationError)
    return True


def _netrc_key(base_url: str) -> bool:
    """Return whether the netrc file holds a password for the W&B server."""
    named = os.environ.get("NETRC")
    candidates = [Path(named)] if named else [Path("~/.netrc"), Path("~/_netrc")]
    for path in candidates:
        try:
            entries = netrc.netrc(path.expanduser())
        except (OSError, RuntimeError, UnicodeDecodeError, netrc.NetrcParseError):
            continue
        logins = [entries.authenticators(host) for host in _netrc_hosts(base_url)]
        return any(login and login[2] for login in logins)
    return False


def _netrc_hosts(base_url: str) -> list[str]:
    """Return the machine names under which ``wandb login`` files the key of a server.

    The public service goes by two names since wandb 0.31; keys of old logins bear the first one.
    """
    import wandb

    hosts = [urlsplit(base_url).netloc]
    if base_url.rstrip("/") == str(wandb.Settings.model_fields["base_url"].default).rstrip("/"):
        hosts.append("api.wandb.ai")
    return hosts
