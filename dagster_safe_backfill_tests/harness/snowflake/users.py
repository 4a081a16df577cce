"""Users of the emulated account: what their sessions begin with, what they may, and how their logins end."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dagster_safe_backfill_tests.harness.snowflake import errors


@dataclass
class User:
    """One user, and the record of the logins."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    """What ALTER USER … SET has set: each session begins with it, unless its client says otherwise."""
    denied: frozenset[str] = frozenset()
    """Privileges that the roles lack, such as CREATE SCHEMA."""
    refusal: int | None = None
    """The number of the error that each login gets."""
    mfa: bool = False
    """Whether a person confirms each login that brings no token of an earlier one."""
    issues_tokens: bool = True
    """Whether ALLOW_CLIENT_MFA_CACHING is on."""
    logins: int = 0
    prompts: int = 0
    tokens: set[str] = field(default_factory=set)

    def log_in(self, data: Mapping[str, Any]) -> dict[str, str]:
        """Count a login; return what its reply has beside the session."""
        self.logins += 1
        if self.refusal is not None:
            raise errors.login_refused(self.refusal)
        if not self.mfa or data.get("TOKEN") in self.tokens:
            return {}
        self.prompts += 1
        if not self.issues_tokens or not data.get("SESSION_PARAMETERS", {}).get("CLIENT_REQUEST_MFA_TOKEN"):
            return {}
        token = secrets.token_urlsafe(8)
        self.tokens.add(token)
        return {"mfaToken": token}

    def check(self, privilege: str, target: str) -> None:
        """Refuse what the user may not."""
        if privilege in self.denied:
            raise errors.not_allowed(target)
