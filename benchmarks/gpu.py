"""Everything that only a GPU can tell, in one command of at most nine minutes, as one line of JSON at the end.

    python benchmarks/gpu.py --golden golden/omg_llava           on a bare machine with a GPU: the 7B, random weights
    python benchmarks/gpu.py --tiny                              the same steps on the CPU, to see that they run

- parity: the recorded outputs of the official code against ours on this device, in float32 and under bfloat16;
- inference: descriptions and localizations per second, memory, share of peak (``omg_llava.py``);
- training: samples per second of the supervised steps, of the localizer and of GRPO, memory, share of peak, and the
  hours that each of the paper's trainings would take (``training.py``);
- answering: all keypoints of an object against one (``answering.py``);
- text: rows per second through vLLM (``backends.py``), where ``--vllm-python`` names an environment that has it.

Each is a process of its own, so that memory is given back and one that fails leaves the others. It may take its share
of the time that is left, and what it has found until then is kept. What the time does not suffice for is named, also
when the command is stopped with SIGTERM. Of the project nothing need be installed but what it depends on. Ends with
exit code 1 when a step failed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
# Of a script only its own folder is on the path, and on a bare machine the project is not installed.
sys.path.insert(0, str(HERE.parent))
SHARES = {"parity": 1.0, "inference": 4.0, "training": 5.0, "answering": 2.0, "text": 2.0}
"""How the time is divided; what a step leaves over goes to those behind it."""

SIZES = {"7b": ["--sizes", "7b"], "tiny": ["--sizes", "tiny", "--batch-size", "2", "--new-tokens", "2"]}


def main() -> int:
    """Run the steps and print what they found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="tiny models on the CPU")
    parser.add_argument("--golden", type=Path, help="folder with recorded outputs of OMG-LLaVA")
    parser.add_argument("--vllm-python", type=Path, help="Python of an environment with vLLM and this project")
    parser.add_argument("--minutes", type=float, default=9.0, help="for all steps together")
    parser.add_argument("--batch-size", type=int, help="of the 7B; default: each benchmark's own")
    parser.add_argument("--parity", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.parity:
        print(json.dumps(compare_recorded(given.golden, "cpu" if given.tiny else "cuda")))
        return 0
    if not given.tiny and not torch.cuda.is_available():
        parser.error("expected a GPU that torch can use, found none: use --tiny to see that the steps run")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    found: dict[str, Any] = {"machine": describe_machine(given.tiny)}
    try:
        run_steps(plan_steps(given), time.monotonic() + 60 * given.minutes, found)
    finally:  # what is there is told, whatever ends this
        print(json.dumps(without_nan(found)), flush=True)
    return int(any("failed" in step for step in found.values()))


def run_steps(steps: dict[str, list[str] | str], deadline: float, found: dict[str, Any]) -> None:
    """Run them one after the other until ``deadline``; each adds to ``found``."""
    waiting = {name: SHARES[name] for name, command in steps.items() if not isinstance(command, str)}
    for name, command in steps.items():
        print(f"{name}: {'is left out' if isinstance(command, str) else 'runs'}", file=sys.stderr, flush=True)
        if isinstance(command, str):
            found[name] = {"left_out": command}
            continue
        left = deadline - time.monotonic()
        share = waiting[name] / sum(waiting.values())
        del waiting[name]
        found[name] = {"left_out": "the command was stopped in it"}
        found[name] = run_step(command, left * share)


def without_nan(value: Any) -> Any:
    """The same with null for what is no number, such as the share of a peak that is not known: NaN is not JSON."""
    if isinstance(value, dict):
        return {name: without_nan(one) for name, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def plan_steps(given: argparse.Namespace) -> dict[str, list[str] | str]:
    """Name -> command line, or why there is none; the most telling first."""
    tiny = ["--tiny"] if given.tiny else []
    sizes = SIZES["tiny" if given.tiny else "7b"] + (
        ["--batch-size", str(given.batch_size)] if given.batch_size else []
    )
    python, answering = (
        sys.executable,
        ["--rounds", "1"] if given.tiny else ["--rounds", "3", "--preset", "small", "--device", "cuda"],
    )
    steps: dict[str, list[str] | str] = {
        "parity": [python, __file__, "--parity", *tiny, "--golden", str(given.golden)],
        "inference": [python, str(HERE / "omg_llava.py"), *sizes],
        "training": [python, str(HERE / "training.py"), *sizes, *(["--repeats", "1"] if given.tiny else [])],
        "answering": [python, str(HERE / "answering.py"), *answering],
        "text": [str(given.vllm_python), str(HERE / "backends.py"), "--rows", "256"],
    }
    if given.golden is None:
        steps["parity"] = "no --golden folder was named"
    if given.vllm_python is None:
        steps["text"] = "no --vllm-python was named: make vllm-env makes one"
    if given.tiny:
        steps["answering"] = "answering.py runs on a CPU by itself"
    return steps


def run_step(command: Sequence[str], seconds: float) -> dict[str, Any]:
    """The JSON of the last line that holds some, and what the command took; where it failed or was not done within
    ``seconds``, that with the figures until then.
    """
    if seconds <= 0:
        return {"left_out": "no time was left: give more --minutes"}
    start, ended = time.monotonic(), {}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])}
    # Files, not pipes: what a killed command has written is kept.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        try:
            done = subprocess.run(command, stdout=out, stderr=err, timeout=seconds, check=False, env=environment)
            code: int | None = done.returncode
        except subprocess.TimeoutExpired:
            code = None
            ended = {"left_out": f"not done within its {seconds:.0f} s: give more --minutes"}
        except OSError as error:
            return {"failed": f"{command[0]} cannot be run: {error}"}
        out.seek(0)
        err.seek(0)
        figures, said = last_figures(out.read()), err.read()[-1500:]
    if code or (code == 0 and figures is None):
        ended = {"failed": f"exit code {code}: {said}"}
    return {"seconds": round(time.monotonic() - start, 1), **(figures or {}), **ended}


def last_figures(written: str) -> dict[str, Any] | None:
    """The last line that is a JSON object, if there is one."""
    for line in reversed(written.splitlines()):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    return None


def compare_recorded(golden: Path, device: str) -> dict[str, Any]:
    """Errors against the recorded outputs, relative to each tensor's largest value, in both precisions.

    bfloat16 may choose another number of object tokens, and then nothing of that shape can be compared.
    """
    from talking_points.models.omg_llava.golden import check

    figures = {}
    for precision in ("float32", "bfloat16"):
        errors = dict(check(golden, device, bfloat16=precision == "bfloat16"))
        comparable = {name: error for name, error in errors.items() if error != float("inf")}
        worst = max(comparable, key=lambda name: comparable[name])
        figures[precision] = {
            "tensors": len(errors),
            "other_shape": len(errors) - len(comparable),
            "median_error": statistics.median(comparable.values()),
            "worst_error": comparable[worst],
            "worst": worst,
        }
    return figures


def describe_machine(tiny: bool) -> dict[str, Any]:
    """Device, its memory and the versions that the figures depend on."""
    versions = {"torch": torch.__version__, "python": sys.version.split()[0]}
    if tiny:
        return {"device": "cpu", **versions}
    properties = torch.cuda.get_device_properties(0)
    return {
        "device": properties.name,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "cuda": torch.version.cuda,
        **versions,
    }


if __name__ == "__main__":
    sys.exit(main())
