"""Sending GraphQL to Dagster over HTTP; `cli/api/workspace.py` does it inside the process."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import unquote, urlsplit, urlunsplit

from dagster_safe_backfill.cli.answers.answer import CommandError, unreachable, usage_error

_PASSING = {429, 502, 503, 504}
"""The HTTP statuses of a server or proxy that is busy or restarts, after which a query is sent again."""
_TRIES = 3
_SHOWN = 400


class Transport(ABC):
    """A way to Dagster's GraphQL API."""

    place: str
    """Where it leads, for messages."""

    @abstractmethod
    def query(self, document: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Return the data of a query, which may be sent several times.

        Raises:
            CommandError: Dagster can't be reached, or answers with an error.
        """

    def change(self, document: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Return the data of a mutation, which is sent once.

        Raises:
            CommandError: As of `query`. The mutation may have been carried out all the same.
        """
        return self.query(document, variables)

    def checked(self, answer: object) -> dict[str, Any]:
        """Return the data of an answer of GraphQL.

        Raises:
            CommandError: It has errors, or isn't one.
        """
        if not isinstance(answer, dict) or not ("data" in answer or "errors" in answer):
            raise unreachable("not_dagster", f"{self.place} answers, and not as Dagster's GraphQL does")
        told = cast("dict[str, Any]", answer)
        if told.get("errors"):
            raise unreachable("dagster_error", f"{self.place}: Dagster answered: {_messages(told['errors'])}")
        if not isinstance(told.get("data"), dict) or not told["data"]:
            raise unreachable("not_dagster", f"{self.place} answers, and not as Dagster's GraphQL does")
        return told["data"]


@dataclass(frozen=True, slots=True)
class HttpTransport(Transport):
    """The API of a webserver, or of Dagster+, by its URL.

    Attributes:
        url: The URL of the webserver, as one opens it in a browser; for Dagster+ with the deployment, such as
            `https://org.dagster.cloud/prod`.
        token: The user token of Dagster+.
        timeout: The seconds after which a query that isn't answered is given up.
    """

    url: str
    token: str | None = None
    timeout: float = 60.0

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            is_url = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_url = False
        if not is_url:
            # What is before an @ may be a password.
            shown = self.url.rpartition("@")[2]
            raise usage_error("bad_url", f"{shown!r} is not a URL of a webserver", hint="such as http://localhost:3000")
        if self.token is not None:
            # As of a variable from a file with Windows line ends.
            object.__setattr__(self, "token", self.token.strip())
            if not self.token.isascii() or not self.token.isprintable():
                raise usage_error("bad_token", "the token has characters that no token of Dagster+ has")

    @property
    def place(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]: read only
        """The URL, without a user and password."""
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))

    def query(self, document: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Return the data of a query; one that meets a busy or restarting server is sent again, twice at most."""
        for attempt in range(1, _TRIES):
            try:
                return self.checked(self._post(document, variables))
            except _PassingError:
                time.sleep(0.2 * 2**attempt)
        return self.change(document, variables)

    def change(self, document: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Return the data of a mutation, sent once: it may have been carried out though its answer was lost."""
        try:
            return self.checked(self._post(document, variables))
        except _PassingError as error:
            raise error.told from error

    def _post(self, document: str, variables: Mapping[str, Any]) -> object:
        body = json.dumps({"query": document, "variables": dict(variables)}).encode()
        parts = urlsplit(self.url)
        address = parts._replace(
            netloc=parts.netloc.rpartition("@")[2], path=f"{parts.path.rstrip('/')}/graphql", fragment=""
        )
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.token is not None:
            headers["Dagster-Cloud-Api-Token"] = self.token
        # As of a proxy before the webserver; urllib takes the user and password of a URL for a part of the host.
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            headers["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
        request = urllib.request.Request(urlunsplit(address), data=body, headers=headers)
        try:
            with _OPENER.open(request, timeout=self.timeout) as response:
                raw = response.read()
        except urllib.error.HTTPError as error:
            with error:
                return self._refused(error)
        # A URLError of a name, a refused connection, a timeout, a reply that breaks off, a bad TLS certificate.
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            told = unreachable(
                "unreachable", f"no Dagster at {self.place}: {reason}", hint="is the webserver up, and the URL right?"
            )
            raise _PassingError(told) from error
        except http.client.HTTPException as error:
            told = unreachable("unreachable", f"{self.place} broke off its answer: {type(error).__name__}")
            raise _PassingError(told) from error
        try:
            return json.loads(raw)
        except ValueError as error:
            raise unreachable(
                "not_dagster",
                f"{self.place} answers, and not as Dagster's GraphQL does",
                hint="give the URL under which you see Dagster's UI",
            ) from error

    def _refused(self, error: urllib.error.HTTPError) -> object:
        """Return the GraphQL answer of an HTTP error, or raise.

        Dagster 1.13.27 answers some bad requests with HTTP 500 and the message in a GraphQL answer.
        """
        if error.code in {401, 403}:
            raise unreachable(
                "unauthorized",
                f"{self.place} refuses the token (HTTP {error.code})",
                hint="give a valid one by --token or SAFE_BACKFILL_TOKEN",
            ) from error
        try:
            text = error.read().decode(errors="replace")
        except OSError:
            text = ""
        if error.code not in _PASSING:
            try:
                answer: object = json.loads(text)
            except ValueError:
                answer = None
            if isinstance(answer, dict) and "errors" in answer:
                return cast("object", answer)
        told = unreachable("http_error", f"{self.place} answered HTTP {error.code}: {_first_line(text)}")
        if error.code in _PASSING:
            raise _PassingError(told) from error
        raise told from error


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect, which would send the token to another host."""

    def redirect_request(self, *_args: object, **_settings: object) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


class _PassingError(Exception):
    """An error after which a query may succeed when it is sent again."""

    def __init__(self, told: CommandError) -> None:
        super().__init__(str(told))
        self.told = told


def _first_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[0][:_SHOWN] if lines else "(no text)"


def _messages(errors: Any) -> str:
    found: list[str] = []
    for one in errors:
        found.append(_first_line(str(one.get("message", one))))
    return "; ".join(dict.fromkeys(found))
