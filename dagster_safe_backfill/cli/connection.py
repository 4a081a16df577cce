"""What a call of the command connects to: a Dagster by URL or by its code locations, and the user's definitions."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import Self

from dagster_safe_backfill.cli.answers.answer import usage_error
from dagster_safe_backfill.cli.api.client import Dagster
from dagster_safe_backfill.cli.api.transport import HttpTransport

if TYPE_CHECKING:
    from dagster_safe_backfill.cli.api.workspace import WorkspaceTransport

_API = "dagster_safe_backfill.cli.api.workspace"
_DEFAULT_FILES = ("workspace.yaml", "pyproject.toml")


@dataclass(kw_only=True)
class Connection:
    """Opens what a verb asks for, once, and closes it at the end.

    Attributes:
        url: The URL of a webserver; None to go through the instance of `DAGSTER_HOME`.
        token: The token of Dagster+.
        modules: The modules of the definitions (`-m`).
        files: The files of the definitions (`-f`).
        workspaces: The workspace files (`-w`).
        working_directory: The directory from which they are loaded (`-d`).
        attribute: The name of the definitions in the module or file (`-a`).
        launches: True to start code servers, which launching runs without a daemon needs.
    """

    url: str | None = None
    token: str | None = None
    modules: Sequence[str] = ()
    files: Sequence[str] = ()
    workspaces: Sequence[str] = ()
    working_directory: str | None = None
    attribute: str | None = None
    launches: bool = False
    _stack: ExitStack = field(default_factory=ExitStack, repr=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    @property
    def has_code(self) -> bool:
        """True if the definitions can be loaded here: they are named, or those of the directory are found."""
        if self.modules or self.files or self.workspaces:
            return True
        # With a URL, code is loaded only if it is named: the URL may be of another project than the directory.
        return self.url is None and any(Path(name).exists() for name in _DEFAULT_FILES)

    @property
    def dagster(self) -> Dagster:
        """The Dagster to ask.

        Raises:
            CommandError: Nothing says which, or it can't be opened.
        """
        return self._dagster

    @cached_property
    def _dagster(self) -> Dagster:
        if self.url is not None:
            return Dagster(HttpTransport(url=self.url, token=self.token))
        return Dagster(self._workspace)

    @cached_property
    def definitions(self) -> Any:
        """The user's definitions, as a `cli.definitions.Definitions`.

        Verbs that need no warehouse don't import that module, nor know its type.

        Raises:
            CommandError: They aren't named, or can't be loaded.
        """
        if not self.has_code:
            raise usage_error(
                "no_code",
                "this reads the warehouse, which is reached through the definitions",
                hint="name them by -m, -f or -w",
            )
        # Imported here, and by name: these modules import Dagster, which takes a second.
        repositories = importlib.import_module(_API).repositories(self._code)
        kind = importlib.import_module("dagster_safe_backfill.cli.definitions").Definitions
        return kind(repositories, self._instance, None if self.url is None else self.dagster)

    @cached_property
    def _workspace(self) -> WorkspaceTransport:
        if not self.has_code:
            raise usage_error(
                "no_dagster",
                "nothing says which Dagster to ask",
                hint="give --url of its webserver, or the code by -m, -f or -w as `dagster dev` takes it",
            )
        self._check_home()
        made: WorkspaceTransport = importlib.import_module(_API).WorkspaceTransport(
            self._code, in_process=not self.launches
        )
        self._stack.callback(made.close)
        return made

    def daemon(self, backfill_id: str) -> AbstractContextManager[Any]:
        """Do what Dagster's daemon does for one backfill while the block runs; `launches` must be True."""
        return self._workspace.daemon(backfill_id)

    @property
    def instance(self) -> Any:
        """Dagster's instance, of `DAGSTER_HOME`; with a URL one in memory, which knows no runs and no events."""
        return self._instance

    @cached_property
    def _instance(self) -> Any:
        if self.url is None:
            return self._workspace.instance
        import dagster as dg

        # Not that of DAGSTER_HOME, which may be another one than the URL's.
        ephemeral: Any = dg.DagsterInstance.ephemeral  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]: untyped in Dagster
        return self._stack.enter_context(ephemeral())

    @property
    def _code(self) -> Mapping[str, Any]:
        """The code locations, by the names that Dagster's own command has for their options."""
        return {
            "workspace": [*self.workspaces] or None,
            "python_file": [*self.files] or None,
            "module_name": [*self.modules] or None,
            "working_directory": self.working_directory,
            "attribute": self.attribute,
        }

    def _check_home(self) -> None:
        home = os.environ.get("DAGSTER_HOME")
        if not home:
            raise usage_error(
                "no_dagster_home",
                "DAGSTER_HOME isn't set, so there is no instance that knows backfills",
                hint="set it to the directory that `dagster dev` uses, or give --url",
            )
        if not os.path.isdir(home):
            raise usage_error("no_dagster_home", f"DAGSTER_HOME is {home}, which is not a directory")
