"""The checkpoints in a stage's folder: which are complete, and which is the newest."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from talking_points.errors import InputError
from talking_points.whole_files import describe_misfit, read_json

COMPLETE = "complete.json"
"""Written last into a checkpoint: without it the checkpoint is half a checkpoint, and never resumed from."""
_NAME = re.compile(r"checkpoint-[0-9]{1,12}")
STATE = "trainer_state.json"
Count = Annotated[int, Field(ge=0, le=10**15)]
Number = bool | Annotated[int, Field(ge=-(1 << 63), le=1 << 63)] | float


@with_config(ConfigDict(strict=True, extra="allow"))
class _Logged(TypedDict):
    step: Count


@with_config(ConfigDict(strict=True, extra="allow"))
class _State(TypedDict):
    """Of what the Trainer keeps, what is computed with, drawn or opened."""

    global_step: Count
    max_steps: Count
    epoch: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None
    log_history: list[_Logged]
    best_metric: float | None
    best_model_checkpoint: Annotated[str, Field(max_length=4096)] | None


_STATE: TypeAdapter[_State] = TypeAdapter(_State)
_VALUES: TypeAdapter[dict[str, Number | str | None]] = TypeAdapter(
    Annotated[dict[str, Number | str | None], Field(strict=True)]
)


def last_checkpoint(output: str | Path) -> Path | None:
    """The newest complete checkpoint in a stage's folder."""
    return next(reversed(complete_checkpoints(output)), None)


def complete_checkpoints(output: str | Path) -> list[Path]:
    """The complete checkpoints in a stage's folder, the oldest first."""
    complete = [path.parent for path in Path(output).glob(f"checkpoint-*/{COMPLETE}")]
    return sorted((path for path in complete if _NAME.fullmatch(path.name)), key=checkpoint_step)


def check_checkpoint(checkpoint: Path) -> None:
    """Before a training goes on from it: what the Trainer reads of itself there has the form that it writes.

    Raises ``InputError`` with the file and the way on.
    """
    path = checkpoint / STATE
    advice = f"remove {checkpoint} and run again to go on from the checkpoint before it"
    try:
        state = read_json(path, advice, _STATE)
        for entry in state["log_history"]:
            _VALUES.validate_python(entry)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} cannot be used ({describe_misfit(error)}): {advice}") from error
    if state["global_step"] != checkpoint_step(checkpoint):
        raise InputError(f"{path} is of step {state['global_step']:,}, not of that of its folder: {advice}")


def own_checkpoint(output: str | Path, name: str) -> Path:
    """The checkpoint in ``output`` that a state calls its best, by whatever path. Raises ``InputError`` without one.

    The state may say a place of somebody else's choice, or that of the folder before it was copied.
    """
    found = Path(output) / Path(name).name
    if found not in complete_checkpoints(output):
        raise InputError(
            f"the best checkpoint, {Path(name).name[:80]!a}, is not in {output}: put it back, or remove the other "
            "checkpoints to train anew"
        )
    return found


def checkpoint_step(checkpoint: Path) -> int:
    """The number of steps that were done when it was written."""
    return int(checkpoint.name.rpartition("-")[2])
