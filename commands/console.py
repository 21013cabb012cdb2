"""What all commands share: the application, its options, and how errors become messages and exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, suppress
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from commands import processes
from commands.config_kinds import whose_config
from commands.processes import STOPPED
from commands.usage import advice, at_home
from commands.working_folder import refuse_settings, trust_no_modules
from talking_points.errors import InputError, RunError
from talking_points.escaping import for_terminal
from talking_points.extras import how_to_install
from talking_points.owners import explain
from talking_points.proxies import reach_this_machine_directly
from talking_points.redaction import guard_process, protect_arguments, redact
from talking_points.stop_requests import end_at_once, sigterm_as_interrupt
from talking_points.terminal import show, tell

LONGEST = 10_000
"""Characters of an error that are shown: a file may have a name of a megabyte in the place of an id."""

FAILED, WRONG_INPUT = 1, 2
"""Exit codes besides 0 and ``STOPPED``: shards failed or too many rows were rejected; wrong input."""

EXIT_CODES = (
    "Exit codes: 0 done; 1 shards failed or too many rows were rejected; 2 wrong input or configuration, or a command "
    "or option that there is not; 130 stopped by Ctrl-C."
)
START, LOOK, SHARE, TRAIN, USE, OPERATE = (
    "Build a dataset",
    "Look at it",
    "Publish it, and check it by people",
    "Train and evaluate",
    "Use the models",
    "Operate",
)
"""Panels of the help, in the order of use."""

_ORDER = {
    START: ("doctor", "init", "draw-sample", "build", "build-instructions", "status", "stop"),
    LOOK: ("view", "report", "compare"),
    SHARE: ("publish", "publish-model", "rehydrate", "audit"),
    TRAIN: (
        "plan",
        "rehearse",
        "reproduce",
        "convert-omg-llava",
        "convert-capellm",
        "train-localizer",
        "train-descriptor",
        "adapt-descriptor",
        "describe-keypoints",
        "train-answerer",
        "write-pose-rows",
        "train-segmenter",
        "refine-segmenter",
        "evaluate",
        "evaluate-poses",
        "outline-points",
        "evaluate-segmentation",
        "tables",
        "retrain-and-evaluate",
        "restore-champion",
    ),
    USE: ("describe", "localize", "answer", "segment"),
    OPERATE: ("server", "deploy", "notify"),
}

_WRITTEN = {"repo": "ORG/NAME", "folder": "DIR", "expression": "PHRASE", "sources": "FILE"}
"""Arguments whose word in the help is not their name in capitals."""


class _InOrderOfUse(typer.core.TyperGroup):
    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **more: Any) -> Any:
        protect_arguments(args)
        with _redacted_usage():
            return super().make_context(info_name, at_home(args), *rest, **more)

    def invoke(self, ctx: Any) -> Any:
        with _redacted_usage():
            return super().invoke(ctx)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command: Any = super().get_command(ctx, cmd_name)
        if command is not None:
            command.rich_help_panel = next((panel for panel, names in _ORDER.items() if cmd_name in names), None)
            command.epilog = EXIT_CODES
            for argument in command.params:
                if argument.param_type_name == "argument" and argument.metavar is None:
                    argument.metavar = _WRITTEN.get(argument.name, argument.name.upper())
        return command

    def list_commands(self, ctx: Any) -> list[str]:
        order = [name for names in _ORDER.values() for name in names]
        return sorted(self.commands, key=lambda name: order.index(name) if name in order else len(order))


@contextmanager
def _redacted_usage() -> Iterator[None]:
    """Around what complains of the words of a command line: before the message is broken into lines and framed."""
    try:
        yield
    except Exception as error:
        if isinstance(getattr(error, "message", None), str) and hasattr(error, "format_message"):
            told, more = for_terminal(redact(vars(error)["message"])), advice(error)
            vars(error)["message"] = (told.removesuffix(".") if more.startswith(";") else told) + more
        raise


app = typer.Typer(
    name="talking-points",
    help="Describe and localize single pixels in natural language.",
    cls=_InOrderOfUse,
    epilog=EXIT_CODES,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)

Config = Annotated[str, typer.Option("--config", "-c", help="YAML configuration: a file, or the name of a shipped one")]
Overrides = Annotated[list[str] | None, typer.Option("--set", "-s", help="key=value, applied on top; may be repeated")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="show the orchestrator's own log")]

_quiet = False


def _print_version(wanted: bool) -> None:
    if wanted:
        show(f"talking-points {metadata.version('talking-points')}")
        raise typer.Exit


@app.callback()
def prepare(
    version: Annotated[
        bool, typer.Option("--version", help="print the version", callback=_print_version, is_eager=True)
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="print results and errors only, no progress")] = False,
) -> None:
    """Describe and localize single pixels in natural language."""
    global _quiet
    _quiet = quiet
    trust_no_modules()
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")  # commands have progress of their own
    with exit_codes():
        refuse_settings(Path.cwd())


KEPT = "stopped; what is finished is kept, run the same command again to go on"
"""What Ctrl-C is answered with by commands that go on from where they were."""


@contextmanager
def exit_codes(stopped: str = "stopped") -> Iterator[None]:
    """Turn expected errors into one clear message on stderr and their exit code; others keep their traceback.

    ``stopped`` is what Ctrl-C is answered with, ``KEPT`` where something is.
    Neither shows a secret. Servers that a command starts on this machine are reached without the environment's proxy.
    """
    guard_process()
    reach_this_machine_directly()
    try:
        with sigterm_as_interrupt(), _progress():
            yield
    except KeyboardInterrupt:
        _end(stopped, STOPPED)
    except InputError as error:
        _end(f"error: {error}{whose_config(error)}", WRONG_INPUT)
    except RunError as error:
        _end(f"failed: {error}", FAILED)
    except OSError as error:
        closed = explain(error)
        if closed is None:
            raise
        _end(f"error: {closed}", WRONG_INPUT)


@contextmanager
def _progress() -> Iterator[None]:
    """What a command tells on stderr while it works, unless nobody wants to hear it."""
    with open(os.devnull, "w") if _quiet else nullcontext() as nowhere, redirect_stderr(nowhere or sys.stderr):  # noqa: PTH123
        yield


def end_full(error: OSError) -> NoReturn:
    """End with a message where what is printed has no room; what could not be written is given up."""
    closed = explain(error)
    if closed is None:
        raise error
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    with suppress(OSError):
        tell(f"error: {closed}")
    sys.exit(WRONG_INPUT)


def _end(message: str, code: int) -> NoReturn:
    with suppress(OSError):  # nobody reads it, or its disk is full: the exit code is all that is left to say
        tell(message if len(message) <= LONGEST else f"{message[:LONGEST]} ...")
    end_at_once(code)
    raise typer.Exit(code)


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Around the imports of an optional part: a missing package names the extra that installs it."""
    try:
        with processes.end_at_once():
            yield
    except ImportError as error:
        _end(f"error: {error}; this command needs the extra '{extra}', {how_to_install(extra)}", WRONG_INPUT)
