"""One stage in several processes, each with a copy of the model and batches of its own.

The flows start it where a stage's ``processes`` is above 1. By hand, for example on more than one machine::

    accelerate launch --multi_gpu --num_processes 8 \\
        -m talking_points.training.launcher localizer configs/train/paper.yaml
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import deque
from pathlib import Path
from typing import Annotated

import typer
import yaml
from torch.distributed.elastic.multiprocessing.errors import record

from talking_points.config import load_config
from talking_points.errors import TrainingStoppedError
from talking_points.parents import request_parent_signal
from talking_points.plotting import trust_no_matplotlibrc
from talking_points.terminal import tell
from talking_points.training.config import TrainConfig


def launch(kind: str, config: TrainConfig, name: str, count: int) -> None:
    """Train ``config``'s stage ``kind`` in ``count`` processes into ``output/<name>``, and wait for them.

    Raises ``TrainingStoppedError`` with the end of what they wrote when one of them fails.
    """
    with tempfile.TemporaryDirectory(prefix="talking-points-launch-") as folder:
        settings = Path(folder, "train.yaml")
        settings.write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")
        command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(count)]
        command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        command += ["--main_process_port", "0", "-m", __name__, kind, str(settings), "--name", name]
        last: deque[str] = deque(maxlen=40)
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            preexec_fn=request_parent_signal if sys.platform == "linux" else None,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    tell(line.rstrip())
                    last.append(line)
            except BaseException:
                process.terminate()
                raise
    if process.returncode:
        raise TrainingStoppedError(
            f"training the {kind} in {count} processes ended with exit code {process.returncode}: put right what they "
            f"wrote last, below, and run again to go on from the last complete checkpoint in {config.output / name}:\n"
            + "".join(last)
        )


def main(
    kind: Annotated[str, typer.Argument(help="the stage to train: localizer, descriptor")],
    config: Annotated[Path, typer.Argument(help="YAML file with a training configuration")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value settings applied on top")] = None,
    name: Annotated[str | None, typer.Option(help="folder below the output; default: the stage's own")] = None,
) -> None:
    """Train one stage as one of the processes that a launcher started."""
    trust_no_matplotlibrc()
    from talking_points.training.stages import STAGES, run_stage

    run_stage(kind, load_config(STAGES[kind].config, config, overrides or []), name)


if __name__ == "__main__":
    typer.run(record(main))  # the launcher then ends with the error of the process that failed first
