"""What all commands share: the application, its options, and how errors become messages and exit codes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, NoReturn

import typer

from talking_points.errors import InputError, RunError
from talking_points.stop_requests import sigterm_as_interrupt

app = typer.Typer(
    name="talking-points",
    help="Describe and localize single pixels in natural language.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Config = Annotated[str, typer.Option("--config", "-c", help="YAML configuration; the shipped ones are in configs/")]
Overrides = Annotated[list[str] | None, typer.Option("--set", "-s", help="key=value, applied on top; may be repeated")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="show the orchestrator's own log")]

FAILED, WRONG_INPUT, STOPPED = 1, 2, 130
"""Exit codes besides 0: shards failed or too many rows were rejected; wrong input or configuration; Ctrl-C."""


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turn expected errors into one clear message on stderr and their exit code; others keep their traceback."""
    try:
        with sigterm_as_interrupt():
            yield
    except KeyboardInterrupt:
        _end("stopped; what is finished is kept, run the same command again to go on", STOPPED)
    except InputError as error:
        _end(f"error: {error}", WRONG_INPUT)
    except RunError as error:
        _end(f"failed: {error}", FAILED)


def _end(message: str, code: int) -> NoReturn:
    print(message, file=sys.stderr)
    raise typer.Exit(code)


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Around the imports of an optional part: a missing package names the extra that installs it."""
    try:
        yield
    except ImportError as error:
        _end(f"error: {error}; this command needs: pip install 'talking-points[{extra}]'", WRONG_INPUT)
