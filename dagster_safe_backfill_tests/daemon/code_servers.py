"""Dagster's own code servers, whose runs are forks of a process that has imported the code before.

By itself a code server starts a new Python for each run, and that imports Dagster and the code for three seconds.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.server import wait_for_grpc_server

ROOT = Path(__file__).parents[2]
_SERVER = """
import multiprocessing, sys
from multiprocessing import forkserver
warm = multiprocessing.get_context("forkserver")
warm.set_forkserver_preload(["dagster._grpc.server", sys.argv[-1]])
forkserver.ensure_running()
multiprocessing.get_context = lambda method: warm
from dagster._cli.api import api_cli
api_cli()
"""


@contextmanager
def code_servers(workspace: Path) -> Iterator[Path]:
    """Serve a workspace's modules within the block, and yield the workspace of the servers."""
    modules: list[str] = [origin["python_module"] for origin in yaml.safe_load(workspace.read_text())["load_from"]]
    # A socket's path has at most 107 bytes, and that of a test's own folder may have more.
    with tempfile.TemporaryDirectory(prefix="code") as folder:
        sockets = {module: str(Path(folder, str(number))) for number, module in enumerate(modules)}
        servers = [_started(module, socket, workspace.parent) for module, socket in sockets.items()]
        try:
            for server, socket in zip(servers, sockets.values(), strict=True):
                wait_for_grpc_server(server, DagsterGrpcClient(socket=socket), [])
            yield _workspace_of(sockets, Path(folder, "workspace.yaml"))
        finally:
            _end(servers)


def _started(module: str, socket: str, folder: Path) -> subprocess.Popen[bytes]:
    options = ["grpc", "--socket", socket, "--location-name", module, "--module-name", module]
    with (folder / "code_server.log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", _SERVER, *options],
            cwd=ROOT,
            # Arrow's own allocator has a thread, and who forks should have one.
            env={**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"},
            start_new_session=True,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _workspace_of(sockets: dict[str, str], path: Path) -> Path:
    servers = [{"grpc_server": {"socket": socket, "location_name": name}} for name, socket in sockets.items()]
    path.write_text(yaml.safe_dump({"load_from": servers}))
    return path


def _end(servers: Sequence[subprocess.Popen[bytes]]) -> None:
    for server in servers:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
