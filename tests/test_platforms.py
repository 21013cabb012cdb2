"""What Linux can tell of other systems: nothing of POSIX is needed to import the project, and paths of theirs work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace

import pytest

from talking_points.build_config import BuildConfig
from talking_points.config import ConfigError, load_config
from talking_points.descriptions.backends import server_command
from talking_points.descriptions.backends.protocol import BackendUnavailable
from talking_points.evaluation.config import EvaluateConfig
from talking_points.shipped import config_names, find_config
from talking_points.whole_files import write_text
from tests.blocks import LONG, WINDOWS, printed_by
from tests.test_architecture import FILES, ROOT, module_of

WITHOUT_POSIX = """
import builtins, importlib, os, signal, sys, types

ours = ("talking_points", "tasks", "flows", "commands")
hidden = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "readline"}
missing = {
    os: "fork forkpty killpg getuid geteuid getgid getpgid setsid setpgid mkfifo uname sysconf statvfs getloadavg "
        "chown fchmod sched_getaffinity openpty waitid WNOHANG O_NOFOLLOW O_DIRECTORY O_NONBLOCK",
    signal: "SIGKILL SIGHUP SIGALRM SIGUSR1 SIGUSR2 SIGPIPE SIGCHLD SIGSTOP SIGCONT setitimer alarm pthread_sigmask",
}


class Poor(types.ModuleType):
    def __init__(self, full, names):
        super().__init__(full.__name__)
        self.__dict__.update({name: value for name, value in vars(full).items() if name not in names})


poor = {full.__name__: Poor(full, set(names.split())) for full, names in missing.items()}
real = builtins.__import__


def as_on_windows(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {}).get("__name__", "")
    if importer.split(".")[0] in ours:
        if name.split(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if name in poor:
            return poor[name]
    return real(name, globals, locals, fromlist, level)


builtins.__import__ = as_on_windows
failed = []
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except (ImportError, AttributeError) as error:
        if getattr(error, "name", None) in ("vllm", "llama_cpp", "prefect_dask"):
            continue  # an extra that is not installed
        failed.append(f"{name}: {error}")
sys.exit("\\n".join(failed) or 0)
"""


@pytest.mark.slow
def test_every_module_is_imported_without_what_only_posix_has() -> None:
    names = [module_of(path) for path in FILES if path.stem != "__main__"]
    command = [sys.executable, "-c", WITHOUT_POSIX, *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "typed", [r"C:\data\new set", r"D:\temp\run#2", "C:/data/new", r"\\server\share\out", r"relative\folder"]
)
def test_paths_of_windows_are_taken_as_they_are_typed(typed: str) -> None:
    root = f"sources.partimagenet.root={typed}"
    config = load_config(BuildConfig, None, [f"output={typed}", root])
    assert config.output == typed
    assert str(config.sources["partimagenet"].root) == typed
    assert PureWindowsPath(str(config.sources["partimagenet"].root)) == PureWindowsPath(typed)


@pytest.mark.parametrize("name", ["con", "NUL.json", "com1", "a/b", r"a\b", "..", "", "x:y"])
def test_sets_of_descriptions_have_names_that_files_can_have(name: str) -> None:
    sets = {name: {"descriptor": "some/where"}}
    with pytest.raises(ConfigError, match="sets"):
        load_config(EvaluateConfig, None, output="out", dataset="data", localizer="localizer", sets=sets)


def test_shipped_configurations_are_named_with_slashes_and_found_with_backslashes() -> None:
    assert all("\\" not in name and find_config(name).is_file() for name in config_names())


def test_texts_have_the_same_bytes_on_every_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.linesep", "\r\n")
    write_text(tmp_path / "card.md", "one\ntwo\n")
    assert (tmp_path / "card.md").read_bytes() == b"one\ntwo\n"


def test_servers_of_builds_are_refused_where_they_could_not_be_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    step = load_config(BuildConfig, None, ["output=x", "refine.backend=llama_server", "refine.model=m"]).refine
    monkeypatch.setattr(server_command, "os", SimpleNamespace(name="nt"))
    with pytest.raises(BackendUnavailable, match="WSL, or start the server yourself"):
        server_command.server_command(step, "127.0.0.1", 1, "name")


def test_what_is_typed_on_windows_is_what_is_typed_on_macos() -> None:
    """Which is run by ``test_long_blocks``; of PowerShell, Linux can tell no more."""
    (windows,) = printed_by(WINDOWS)
    (macos,) = (block for block in printed_by(LONG) if block.page == windows.page)
    assert windows.commands[0] == r"py -3.11 -m venv .venv; .venv\Scripts\Activate.ps1"
    assert [line.replace("\\", "/") for line in windows.commands[1:]] == macos.commands[1:]
