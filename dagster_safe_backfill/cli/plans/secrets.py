"""Secrets in a run configuration, which would be read by everyone who reads a plan, or Dagster's UI."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from dagster_safe_backfill.cli.answers.answer import usage_error

_NAMES = re.compile(
    r"(^|[_\-. ])(password|passwd|passphrase|pwd|token|secret|credentials?"
    r"|(api|private|secret|access|account|encryption|signing)[_\-]?key)$",
    re.IGNORECASE,
)
"""What the names of secrets end with, once `apiKey` is `api_Key`."""
_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_TEXTS = (
    re.compile(r"[a-z][a-z0-9+.\-]*://[^/\s:@]*:[^/\s@]+@", re.IGNORECASE),
    re.compile(r"(^|[\s;?&])(password|passwd|pwd|token|secret|api_?key)\s*=\s*[^\s;&]+", re.IGNORECASE),
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
)
"""Texts with a secret in them: a URL or a connection string with a password, and a private key."""


def check_no_secrets(config: Mapping[str, Any], *, file: object) -> None:
    """Refuse a run configuration that has a secret as it is, instead of the variable that has it.

    Raises:
        CommandError: It does. The message names where, and never the secret.
    """
    found = [*_secrets(config, ())]
    if not found:
        return
    raise usage_error(
        "secret_in_config",
        f"{file} has what looks like a secret at {', '.join(found)}, and everyone who reads the plan, or the run in"
        " Dagster, would read it",
        hint="name the environment variable that has it: {env: NAME}",
    )


def _secrets(value: object, path: tuple[str, ...]) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in cast("Mapping[object, object]", value).items():
            yield from _secrets(inner, (*path, str(name)))
    elif isinstance(value, list):
        for inner in cast("Sequence[object]", value):
            yield from _secrets(inner, path)
    elif _is_secret(value, path[-1] if path else ""):
        yield ".".join(path)


def _is_secret(value: object, name: str) -> bool:
    if isinstance(value, str) and any(one.search(value) for one in _TEXTS):
        return True
    # What is empty, or only says yes or no, is no secret.
    is_text = isinstance(value, str | int) and not isinstance(value, bool) and value != ""
    return is_text and _NAMES.search(_WORD.sub("_", name)) is not None
