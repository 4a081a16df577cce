"""Makes the project's own environment, `.venv`, with the locked packages. Standard library only.

For machines that have Python, pip and git, and nothing else.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
_VENV = ROOT / ".venv"
_LOCK = ROOT / "requirements.lock"
_STAMP = _VENV / "installed"
_PYTHON = _VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
_VERSIONS = ((3, 10), (3, 14))


def run_inside(module: str) -> None:
    """Go on as `python -m module` inside the environment; does nothing where that is so already.

    Raises:
        SystemExit: This Python is too old or too new, or the environment can't be made.
    """
    if Path(sys.prefix).resolve() == _VENV.resolve():
        return
    if not _VERSIONS[0] <= sys.version_info[:2] < _VERSIONS[1]:
        raise SystemExit(f"Python 3.10 to 3.13 is needed, and this is {sys.version.split()[0]}")
    if not _is_installed():
        _install()
    os.chdir(ROOT)
    os.execv(str(_PYTHON), [str(_PYTHON), "-m", module, *sys.argv[1:]])


def _wanted() -> str:
    described = _LOCK.read_bytes() + (ROOT / "pyproject.toml").read_bytes()
    return f"{hashlib.sha256(described).hexdigest()} {sys.version_info[:2]}"


def _is_installed() -> bool:
    return _STAMP.exists() and _STAMP.read_text() == _wanted()


def _install() -> None:
    print(f"making {_VENV} with the packages of {_LOCK.name}; this takes a minute or two, once", flush=True)
    pip = _environment_with_pip()
    quiet = ("install", "--quiet", "--disable-pip-version-check")
    _run(*pip, *quiet, "--requirement", str(_LOCK))
    _run(*pip, *quiet, "--no-deps", "--editable", str(ROOT))
    _STAMP.write_text(_wanted())


def _environment_with_pip() -> tuple[str, ...]:
    """Make the environment anew and return a command that installs into it.

    Debian ships Python without ensurepip; then this Python's own pip (22.3 or newer) installs into it from outside.
    """
    venv = (sys.executable, "-m", "venv", "--clear")
    if subprocess.run([*venv, str(_VENV)], capture_output=True, check=False).returncode == 0:
        return (str(_PYTHON), "-m", "pip")
    _run(*venv, "--without-pip", str(_VENV))
    return (sys.executable, "-m", "pip", "--python", str(_PYTHON))


def _run(*command: str) -> None:
    if subprocess.run(command, check=False).returncode != 0:
        raise SystemExit(f"this failed: {' '.join(command)}")
