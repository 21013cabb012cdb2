"""Everything that only a GPU can tell, in one command of at most nine minutes, as one line of JSON at the end.

    python benchmarks/gpu.py --golden golden/omg_llava           on a bare machine with a GPU: the 7B, random weights
    python benchmarks/gpu.py --tiny                              the same steps on the CPU, to see that they run

- parity: the recorded outputs of the official code against ours on this device, in float32 and under bfloat16;
- inference: descriptions and localizations per second, memory, share of peak (``omg_llava.py``);
- training: samples per second of the supervised steps, of the localizer and of GRPO, memory, share of peak, and the
  hours that each of the paper's trainings would take (``training.py``);
- answering: all keypoints of an object against one (``answering.py``);
- text: rows per second through vLLM (``backends.py``), where ``--vllm-python`` names an environment that has it.

Each is a process of its own, so that memory is given back and one that fails leaves the others. What the time does not
suffice for is named. Ends with exit code 1 when a step failed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
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
    deadline = time.monotonic() + 60 * given.minutes
    found: dict[str, Any] = {"machine": describe_machine(given.tiny)}
    for name, command in plan_steps(given).items():
        print(f"{name}: {'is left out' if isinstance(command, str) else 'runs'}", file=sys.stderr, flush=True)
        found[name] = {"left_out": command} if isinstance(command, str) else run_step(command, deadline)
    print(json.dumps(found))
    return int(any("failed" in step for step in found.values()))


def plan_steps(given: argparse.Namespace) -> dict[str, list[str] | str]:
    """Name -> command line, or why there is none; the most telling first."""
    tiny = ["--tiny"] if given.tiny else []
    sizes = SIZES["tiny" if given.tiny else "7b"] + (
        ["--batch-size", str(given.batch_size)] if given.batch_size else []
    )
    python, answering = sys.executable, ["--rounds", "1"] if given.tiny else ["--preset", "small", "--device", "cuda"]
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


def run_step(command: Sequence[str], deadline: float) -> dict[str, Any]:
    """The JSON of a command's last line, with its seconds; or what failed, with the end of what it wrote."""
    start = time.monotonic()
    left = deadline - start
    if left <= 0:
        return {"left_out": "no time was left: give more --minutes"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=left, check=False)
    except subprocess.TimeoutExpired:
        return {"left_out": f"not done within the {left:.0f} s that were left: give more --minutes"}
    except OSError as error:
        return {"failed": f"{command[0]} cannot be run: {error}"}
    try:
        figures = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return {"failed": f"exit code {done.returncode}: {done.stderr[-1500:]}"}
    return {"seconds": round(time.monotonic() - start, 1), **figures}


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
