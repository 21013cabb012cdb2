"""Programs for a shell in which blocks that would take hours, a GPU or a package index run as they are printed.

Each name in ``PROGRAMS``, put first on the PATH, hands its words to one process that has everything imported. That
runs commands of ``talking-points`` themselves, with ``--dry-run`` where they have it, and has pip, accelerate and the
learning runs read their options as they do, load the configurations and miss the files that are not there.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import os
import re
import runpy
import socketserver
import sys
import threading
import traceback
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import typer
import yaml

PROGRAMS = ("talking-points", "python", "python3", "python3.11", "pip", "accelerate", "docker")

CLIENT = """#!{python} -SE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as there:
    there.connect({address!r})
    words = [sys.argv[0], *sys.argv[1:]]
    there.sendall(json.dumps([words, os.getcwd(), dict(os.environ)]).encode() + b"\\n")
    code, said = json.loads(there.makefile().readline())
sys.stdout.write(said)
sys.exit(code)
"""

SMALLER = {"draw-sample": ["--images", "4", "--workers", "1"]}
"""What is added to the commands that have no ``--dry-run`` and would take long."""


class Refused(Exception):
    """A program would not take these words."""


def write_programs(folder: Path, address: str, names: tuple[str, ...] = PROGRAMS) -> None:
    """Put the stand-ins into a folder, which is to be first on the PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_text(CLIENT.format(python=sys.executable, address=address))
        (folder / name).chmod(0o755)


def talking_points(words: list[str]) -> int:
    """Run a command, as a plan where it makes one."""
    from commands import cli  # noqa: F401  (registers all commands)
    from commands.console import app

    command = typer.main.get_command(app).commands[words[0]]  # type: ignore[attr-defined]
    dry = any("--dry-run" in option.opts for option in command.params)
    more = SMALLER.get(words[0], ["--dry-run"] if dry and "--dry-run" not in words else [])
    return ended(lambda: app([*words, *more]))


def pip(words: list[str]) -> int:
    """Read the options as pip does, and the files that they name."""
    from pip._internal.commands import create_command

    assert words[0] == "install", words
    options, packages = create_command("install").parse_args(words[1:])
    for file in (*options.requirements, *options.constraints):
        if not re.search(r"^[\w.-]+==", Path(file).read_text(), flags=re.MULTILINE):
            raise Refused(f"{file} pins nothing")
    for package in (*options.editables, *packages):
        project = package.partition("[")[0]
        if project.startswith(".") and not Path(project, "pyproject.toml").is_file():
            raise Refused(f"{project} is no project")
    return 0


def accelerate(words: list[str]) -> int:
    """Read the launcher's options and those of the module that it launches, whose configuration is loaded."""
    from accelerate.commands.launch import launch_command_parser

    from talking_points.config import load_config
    from talking_points.training import launcher
    from talking_points.training.stages import STAGES

    assert words[0] == "launch", words
    given = launch_command_parser().parse_args(words[1:])
    assert given.module, given
    assert given.training_script == launcher.__name__, given
    found = options_of(launcher.main, given.training_script_args)
    load_config(STAGES[found["kind"]].config, found["config"], found["overrides"])
    return 0


def python(words: list[str]) -> int:
    """Make an environment, or have a module or a program of the project read its options and load its configuration."""
    if words[:2] == ["-m", "venv"]:
        (folder,) = words[2:]
        venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
        write_programs(Path(folder, "bin"), sys.argv[1])
    elif words[0] == "-c":
        exec(compile(words[1], "a block", "exec"), {"__name__": "__main__"})
    elif words[0] == "-m":
        assert words[1] in ("commands.learn", "commands.poses", "commands.outlines"), words
        found = options_of(importlib.import_module(words[1]).main, words[2:])
        flow = importlib.import_module(words[1].replace("commands", "flows"))
        configuration = getattr(flow, f"{words[1].partition('.')[2]}_config")
        configuration(found["output"], *([found["quick"]] if "quick" in found else []), found["overrides"] or [])
    else:
        beside = [str(Path(words[0]).parent), *sys.path]
        parser = mock.patch.object(argparse.ArgumentParser, "parse_args", parsed_only)
        with parser, mock.patch.object(sys, "path", beside), contextlib.suppress(Read):
            runpy.run_path(words[0], {}, "__main__")
    return 0


class Read(Exception):
    """A program has read its options: that is all."""


def parsed_only(parser: argparse.ArgumentParser, *_: object) -> None:
    """In place of ``parse_args``: reads them, and stops the program."""
    known, unknown = parser.parse_known_args(ARGUMENTS)
    if unknown:
        raise Refused(f"no such options: {unknown}")
    raise Read(known)


ARGUMENTS: list[str] = []


def docker(words: list[str]) -> int:
    """Whether the composed file has these profiles, and every variable that it needs is set."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    for option in ("-p", "-f", "--profile"):
        parser.add_argument(option)
    parser.add_argument("command", choices=["up"])
    for option in ("-d", "--build"):
        parser.add_argument(option, action="store_true")
    assert words[0] == "compose", words
    given = parser.parse_args(words[1:])
    text = Path(given.f).read_text()
    profiles = {name for service in yaml.safe_load(text)["services"].values() for name in service.get("profiles", ())}
    unset = {name for name in re.findall(r"\$\{(\w+):\?", text) if not os.environ.get(name)}
    if given.profile not in profiles or unset:
        raise Refused(f"profiles {profiles}, not set {unset}")
    return 0


def options_of(function: Any, words: list[str]) -> dict[str, Any]:
    """What a program of typer reads out of its words. Raises for options that it has not."""
    program = typer.Typer()
    program.command()(function)
    return dict(typer.main.get_command(program).make_context("program", list(words)).params)


def ended(run: Any) -> int:
    """The exit code of what ends with one."""
    try:
        run()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@contextlib.contextmanager
def as_called(folder: str, variables: dict[str, str]) -> Iterator[io.StringIO]:
    """In the caller's folder and environment, with what is printed."""
    here, before, said = Path.cwd(), dict(os.environ), io.StringIO()
    try:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(variables)
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            yield said
    finally:
        os.chdir(here)
        os.environ.clear()
        os.environ.update(before)


class Handler(socketserver.StreamRequestHandler):
    """One call of one program."""

    def handle(self) -> None:
        """Run it and answer with its exit code and what it printed."""
        (program, *words), folder, variables = json.loads(self.rfile.readline())
        name = Path(program).name
        variables |= {"PIP_CONFIG_FILE": os.devnull}  # constraints of this machine are none of the page's
        run = {"talking-points": talking_points, "pip": pip, "accelerate": accelerate, "docker": docker}
        with as_called(folder, variables) as said:
            ARGUMENTS[:] = words[1:]
            try:
                code = run.get(name, python)(words)
            except (Exception, SystemExit):  # which parsers of options raise
                traceback.print_exc()
                code = 3
        self.wfile.write(json.dumps([code, said.getvalue()]).encode() + b"\n")


def end_with(caller: Any) -> None:
    """End when ``caller``, the other end of standard input, is gone."""
    caller.read()
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=end_with, args=(sys.stdin,), daemon=True).start()
    with socketserver.UnixStreamServer(sys.argv[1], Handler) as server:
        print("ready", flush=True)
        server.serve_forever()
