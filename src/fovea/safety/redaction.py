"""Secrets taken out of everything that is kept or shown; the run itself works with them.

`redact` is called where records are written (`fovea.run_folder`), where a configuration goes into
checkpoints and loggers (`fovea.experiment`), and on each line of the log (`fovea.console`).
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from fovea.errors import FoveaError

MASK = "***"

_SECRET_NAME = re.compile(
    r"(^|[._/-])(api[_-]?key|access[_-]?key(?:[_-]?id)?|secret[_-]?key|account[_-]?key|token"
    r"|passwo?r?d|passwd|secret|credentials?|auth|sas)$",
    re.I,
)
"""Of keys, options and environment variables whose values are secrets."""

_MIN_LENGTH = 8
"""Shorter values of such variables are not looked for in texts: "1" is in too many of them."""

_PATTERNS = (
    # tokens by their shape
    (
        re.compile(
            r"\b(?:(?:hf_|gh[pousr]_)[A-Za-z0-9]{30,}|(?:AKIA|ASIA)[A-Z0-9]{16}\b"
            r"|(?:github_pat_|wandb_v\d_|glpat-|sk-|xox[abp]-)[\w-]{20,})"
        ),
        MASK,
    ),
    # user and password of a URL; a password of AWS may hold a slash, a port is no password
    (
        re.compile(r"(?<=://)(?:[^/\s?#'\"]+|[^/\s:@'\"]+:(?!\d+/)[^\s@'\"]+)@"),
        f"{MASK}@",
    ),
    # signatures and keys in the query of a URL
    (
        re.compile(
            r"([?&][^=&\s'\"]*(?:sig|token|key|secret|passw|credential|auth)[^=&\s'\"]*=)"
            r"[^&#\s'\"]+",
            re.I,
        ),
        rf"\g<1>{MASK}",
    ),
)


def redact(value: Any) -> Any:
    """Return ``value``, nested plain types, with ``***`` for each secret in it."""
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, Mapping):
        return {key: MASK if _is_secret(key, item) else redact(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item) for item in value]
    return value


def redact_text(text: str) -> str:
    """Return ``text`` with ``***`` for tokens, secret parts of URLs, secrets of the environment.

    Those of the environment are the values of variables named like one, ``WANDB_API_KEY``: so an
    interpolation ``${oc.env:…}`` of it is not kept either.
    """
    for pattern, shown in _PATTERNS:
        text = pattern.sub(shown, text)
    for name, value in os.environ.items():
        if len(value) >= _MIN_LENGTH and value in text and _SECRET_NAME.search(name):
            text = text.replace(value, MASK)
    return text


def redact_words(words: Sequence[str]) -> list[str]:
    """Return the words of a command line, with the values of keys and passwords as ``***``."""
    masked, hide_next = [], False
    for word in words:
        name, equals, value = word.partition("=")
        secret = bool(_SECRET_NAME.search(name.lstrip("-+~")))
        if hide_next and not word.startswith("-"):
            word = MASK
        elif secret and value:
            word = f"{name}={MASK}"
        else:
            word = redact_text(word)
        masked.append(word)
        hide_next = secret and not equals and name.startswith("-")
    return masked


def redact_command(words: Sequence[str]) -> str:
    """Return the same as one line of shell."""
    return " ".join(
        word if MASK in word and not re.search(r"\s", word) else shlex.quote(word)
        for word in redact_words(words)
    )


def check_complete(config: Any, key: str) -> None:
    """Raise `FoveaError` if a value of ``config`` (at ``key``) is a record's, less its secret."""
    if isinstance(config, Mapping):
        for name, value in config.items():
            check_complete(value, f"{key}.{name}")
    elif isinstance(config, str) and MASK in config:
        raise FoveaError(
            f"{key}={config}: the records of a run leave passwords and tokens out, so this can't "
            f"be used as it stands. Type it again, whole: {key}='…'"
        )


def _is_secret(key: Any, value: Any) -> bool:
    return isinstance(value, str) and value != "" and bool(_SECRET_NAME.search(str(key)))
