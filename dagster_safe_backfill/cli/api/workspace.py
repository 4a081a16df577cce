"""Dagster's GraphQL API inside this process, for `-m`, `-f` and `-w`; its only module that uses Dagster's private API.

Dagster 1.13.27 has no public way to load a workspace, or to run its GraphQL schema, without a webserver.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any, cast

import dagster as dg
from dagster._cli.workspace.cli_target import workspace_opts_to_load_target
from dagster._core.errors import DagsterUserCodeLoadError, DagsterUserCodeProcessError
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._grpc.server import LoadedRepositories
from dagster_shared.cli import WorkspaceOpts

from dagster_safe_backfill.cli.answers.answer import unreachable, usage_error
from dagster_safe_backfill.cli.api.local_daemon import LocalDaemon
from dagster_safe_backfill.cli.api.transport import Transport


class WorkspaceTransport(Transport):
    """The API on the instance of `DAGSTER_HOME`, and on the code locations that `-m`, `-f` or `-w` name.

    Args:
        code: The code locations, as the fields of Dagster's `WorkspaceOpts`.
        in_process: True to load the code into this process, which is fastest; False to start a code server for each
            location, which launching runs needs.
    """

    def __init__(self, code: Mapping[str, Any], *, in_process: bool = True) -> None:
        self._stack = ExitStack()
        self.place = "the instance of DAGSTER_HOME"
        try:
            self.instance = self._stack.enter_context(dg.DagsterInstance.get())
        except Exception as error:
            raise unreachable("no_instance", f"Dagster's instance can't be opened: {error}") from error
        try:
            with _loading():
                target = workspace_opts_to_load_target(WorkspaceOpts(**code), allow_in_process=in_process)
                with _elsewhere(Path(self.instance.root_directory)):
                    self.process_context = self._stack.enter_context(WorkspaceProcessContext(self.instance, target))
        except BaseException:
            # Dagster keeps the open instance in a global, which would be used for whatever this process loads next.
            self.close()
            raise
        self._schema = _schema()

    def query(self, document: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Return the data of a query or a mutation."""
        # Each request sees the runs and backfills as they are now.
        context = self.process_context.create_request_context()
        work = self._schema.execute_async(document, context_value=context, variable_values=dict(variables))
        return self.checked(asyncio.run(work).formatted)

    def daemon(self, backfill_id: str) -> LocalDaemon:
        """Return what does the daemon's work for one backfill; it needs code servers (`in_process=False`)."""
        return LocalDaemon(self.process_context, self.instance, backfill_id)

    def close(self) -> None:
        """Stop the code servers, if there are any, and close the instance."""
        self._stack.close()


@contextlib.contextmanager
def _elsewhere(home: Path) -> Generator[None, None, None]:
    """Let the user's code, and processes that start in the block, print into a file of Dagster's home.

    Stdout is for answers. Dagster starts a code server for each of several locations, which print, as their runs do.
    """
    log = home / "logs" / "safe-backfill.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(number) for number in (1, 2)]
    try:
        with log.open("ab") as file:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, descriptor in zip((1, 2), kept, strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)


def repositories(code: Mapping[str, Any]) -> Sequence[Any]:
    """Return the repository definitions of the code locations, loaded into this process.

    Raises:
        CommandError: The code can't be loaded here.
    """
    found: list[Any] = []
    for origin in workspace_opts_to_load_target(WorkspaceOpts(**code), allow_in_process=True).create_origins():
        target = getattr(origin, "loadable_target_origin", None)
        if target is None:
            raise usage_error(
                "code_elsewhere",
                f"{getattr(origin, 'location_name', origin)} is served by a code server, and its warehouse is reached"
                " through definitions that are loaded here",
                hint="name the module or file of the definitions by -m or -f",
            )
        with _loading(), contextlib.redirect_stdout(sys.stderr):
            loaded = LoadedRepositories(target, None, ["dagster"], None)
        found += cast("Mapping[str, Any]", loaded.definitions_by_name).values()
    return found


@contextlib.contextmanager
def _loading() -> Any:
    try:
        yield
    except dg.DagsterError as error:
        raise _unloadable(error) from error
    except Exception as error:
        raise unreachable(
            "code_not_loaded", f"the definitions can't be loaded: {type(error).__name__}: {error}"
        ) from error


@cache
def _schema() -> Any:
    try:
        from dagster_graphql.schema import create_schema
    except ImportError as error:
        raise usage_error(
            "no_graphql",
            "the package dagster-graphql isn't installed",
            hint="pip install 'dagster-safe-backfill[cli]'",
        ) from error
    return create_schema()


def _unloadable(error: Exception) -> Exception:
    # The cause names what the user's own code raised.
    cause = error.__cause__ if isinstance(error, DagsterUserCodeLoadError | DagsterUserCodeProcessError) else None
    said = str(cause or error).strip().splitlines()
    return unreachable("code_not_loaded", f"the definitions can't be loaded: {said[0] if said else error}")
