"""The command line as people meet it: exit codes, messages, the last line."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

from commands import doctor
from talking_points.redacted_console import RedactedConsole
from tests.flows.building import CONFIG, SOURCES, overrides
from tests.prefect_database import prefect_home

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``talking-points`` in a process of its own, as installed."""
    command = [str(Path(sys.executable).with_name("talking-points")), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **environment}, timeout=300
    )


HEAVY = ("prefect", "torch", "transformers", "datasets", "matplotlib", "scipy", "pandas", "huggingface_hub", "httpx")


def run_light(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``talking-points`` in a process that has none of the heavy packages."""
    without = f"import sys; sys.modules.update(dict.fromkeys({HEAVY})); from commands.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", without, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        timeout=300,
    )


def build_arguments(output: Path, roots: dict[str, Path], *more: str) -> list[str]:
    given = overrides(output, roots, *more)
    return ["build", "--config", CONFIG, *(part for setting in given for part in ("--set", setting))]


@pytest.mark.slow
def test_draw_build_build_again_and_status(tmp_path: Path) -> None:
    drawing = run("draw-sample", str(tmp_path / "sample"), "--images", "6", "--seed", "2")
    assert drawing.returncode == 0, drawing.stderr
    roots = dict(line.split(": ") for line in drawing.stdout.splitlines())
    given = build_arguments(tmp_path / "out", {name: Path(roots[name]) for name in SOURCES})
    home = prefect_home(tmp_path / "prefect")
    whole, again = run(*given, PREFECT_HOME=home), run_light(*given, PREFECT_HOME=home)
    # A setting about results is for Prefect to judge: the flow runs, and finds the same.
    in_full = run(*given, PREFECT_HOME=home, PREFECT_TASKS_REFRESH_CACHE="false")
    for done in (whole, again, in_full):
        assert done.returncode == 0, done.stderr
    first, second, third = (json.loads(done.stdout.splitlines()[-1]) for done in (whole, again, in_full))
    assert again.stderr == in_full.stderr.replace("starting the orchestrator\n", "")
    assert second | {"seconds": 0} == third | {"seconds": 0}
    assert set(first) == {"dataset", "rows", "rejected", "reused_shards", "executed_shards", "seconds"}
    assert first["rows"] == second["rows"] > 0
    assert (first["reused_shards"], second["executed_shards"]) == (0, 0)
    status = run_light("status", str(tmp_path / "out"))
    assert status.returncode == 0
    assert "local_caption" in status.stdout
    assert run("status", str(tmp_path / "out"), "--rejected").stdout.startswith("stage\tid")
    refused = run(*given, "--set", "seed=9", PREFECT_HOME=home)
    assert refused.returncode == 2
    assert "seed: 0 -> 9" in refused.stderr


def test_dry_run_shows_the_plan_and_writes_nothing(drawn: dict[str, Path], tmp_path: Path) -> None:
    done = run(*build_arguments(tmp_path / "out", drawn), "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "at most 36 points" in done.stdout
    assert not (tmp_path / "out").exists()


def test_wrong_input_is_refused_with_exit_code_2(drawn: dict[str, Path], tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    broken = Path(shutil.copytree(drawn["ade20k_part234"], tmp_path / "broken"))
    joint = next(broken.glob("*train.json"))
    joint.write_text(joint.read_text()[: joint.stat().st_size // 2])
    file = tmp_path / "file"
    file.write_text("")
    occupied = tmp_path / "occupied"
    occupied.mkdir()
    (occupied / "thesis.tex").write_text("mine")
    cases = [
        (build_arguments(tmp_path / "out", {}), "no source has a root"),
        (build_arguments(tmp_path / "out", {"partimagenet": tmp_path / "missing"}), "expected the dataset folder"),
        (build_arguments(tmp_path / "out", {"partimagenet": empty}), "expected"),
        (build_arguments(tmp_path / "out", {"pascal_part116": drawn["partimagenet"]}), "expected"),
        ([*build_arguments(tmp_path / "out", {"ade20k_part234": broken}), "--dry-run"], joint.name),
        (build_arguments(occupied, drawn), "thesis.tex"),
        (build_arguments(tmp_path / "out", drawn, "refine.prompt=nowhere.jinja"), "nowhere.jinja"),
        (
            build_arguments(tmp_path / "out", drawn, "object_caption.backend=llama_cpp", "object_caption.model=x"),
            "serves",
        ),
        (["build", "--config", str(tmp_path / "none.yaml")], "no configuration at"),
        ([*build_arguments(file, drawn), "--dry-run"], "found the file"),
        (build_arguments(tmp_path / "out", drawn, "sources.partimagenet.options.masks=x"), "found masks"),
        (["draw-sample", str(file), "--images", "1"], "cannot draw into"),
        (["status", str(tmp_path)], "no build found"),
    ]
    for arguments, message in cases:
        done = run(*arguments)
        assert done.returncode == 2, (arguments, done.stdout, done.stderr)
        assert message in done.stderr, (arguments, done.stderr)
        assert "Traceback" not in done.stderr


def test_doctor_finds_this_machine_fit() -> None:
    token = "hf_" + "a1B2" * 8
    done = run("doctor", HF_TOKEN=token, PREFECT_API_URL="http://127.0.0.1:9/api", COLUMNS="200")
    assert done.returncode == 0, done.stdout
    assert "in HF_TOKEN, well-formed" in done.stdout
    assert token not in done.stdout + done.stderr
    assert "found none that answers" in done.stdout
    assert "cv2" in done.stdout
    assert "nicegui" in done.stdout
    assert re.search(r"│ GPU +│", done.stdout)
    assert "extra 'vllm'" not in done.stdout


def test_doctor_tells_a_token_that_cannot_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf-a-planted-word")
    found, advice = doctor._hub_login()
    assert found == "in HF_TOKEN, malformed"
    assert "planted" not in advice


def test_the_sources_that_are_named_are_drawn_alone(tmp_path: Path) -> None:
    done = run("draw-sample", str(tmp_path), "--images", "1", "--sources", "partimagenet, ap10k")
    assert dict(line.split(": ") for line in done.stdout.splitlines()).keys() == {"partimagenet", "ap10k"}
    assert not done.stderr
    again = run("draw-sample", str(tmp_path), "--images", "1", "--sources", "ap10k")
    assert again.stderr.strip() == f"replaces what was drawn before in {tmp_path / 'ap-10k'}"
    refused = run("draw-sample", str(tmp_path / "none"), "--images", "1", "--sources", "imagenet")
    assert refused.returncode == 2
    assert "expected sources of pascal_part116" in refused.stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_under_what_is_printed_is_told() -> None:
    command = [sys.executable, "-c", "from commands.cli import main; main()", "--version"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert done.returncode == 2
    assert "No space left on device" in done.stderr
    assert "make room" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_while_a_command_is_imported_is_told_as_later() -> None:
    # As in a terminal: what starts in the background of a script ignores Ctrl-C.
    at_once = "import os, signal, sys; import builtins; real = builtins.__import__\n"
    at_once += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    at_once += (
        "def stopped(name, *rest):\n"
        "    if name == 'typer': os.kill(os.getpid(), signal.SIGINT)\n"
        "    return real(name, *rest)\n"
        "builtins.__import__ = stopped\n"
        "import commands.cli"
    )
    done = subprocess.run([sys.executable, "-c", at_once], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "stopped; nothing was begun\n")


STOPS_WHILE = """
import builtins, os, signal, sys
import commands.answer, commands.batch, commands.cli, commands.model_commands, commands.segment
from unittest.mock import MagicMock
from PIL import Image

folder, real = sys.argv[1], builtins.__import__
Image.new("RGB", (90, 60)).save(folder + "/image.png")
commands.answer.check_model = commands.model_commands.check_model = commands.segment.check_model = MagicMock()

def stop(*_):
    try:
        os.kill(os.getpid(), number)
    except KeyboardInterrupt:
        pass  # as libraries do that look for others while they are loaded

def imports(name, *rest):
    if name.startswith("talking_points.models.loading_bars"):
        stop()
    return real(name, *rest)

for number in (signal.SIGINT, signal.SIGTERM):
    for command, *words in (("describe", "30", "20"), ("localize", "the dog"), ("answer", "nose"), ("segment", "dog")):
        for loading in (True, False):
            if pid := os.fork():
                print(command, loading, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file=sys.stderr, flush=True)
                continue
            signal.signal(signal.SIGINT, signal.default_int_handler)
            bars = MagicMock()
            bars.hide_loading_bars.side_effect = stop
            sys.modules |= {
                f"talking_points.models.{name}": MagicMock()
                for name in "descriptor localizer answerer segmenting figure pose_figure region_figure".split()
            } | {"talking_points.models.loading_bars": bars}
            sys.modules["talking_points.models.capellm.conversation"] = MagicMock(QueryError=ValueError)
            sys.modules["talking_points.models.capellm.crops"] = MagicMock(BoxError=ValueError)
            if loading:
                builtins.__import__ = imports
            sys.argv = ["talking-points", command, folder + "/image.png", *words, "--model", folder]
            commands.cli.main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_a_single_answer_that_is_stopped_is_not_said_to_be_kept(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STOPS_WHILE, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.stdout == ""
    expected = [
        line
        for _ in ("SIGINT", "SIGTERM")
        for command in ("describe", "localize", "answer", "segment")
        for loading, said in ((True, "stopped; nothing was begun"), (False, "stopped"))
        for line in (f"{command}: loading {tmp_path}", said, f"{command} {loading} 130")
    ]
    assert done.stderr.splitlines() == expected


def test_a_narrow_terminal_gets_whole_numbers() -> None:
    table = Table(*"abcdef")
    table.add_row(*["1,234,567"] * 6)
    console = RedactedConsole(file=io.StringIO(), width=40)
    console.print(table)
    assert console.file.getvalue().count("1,234,567") == 6  # type: ignore[attr-defined]
    assert console.width == 40


def test_the_help_and_the_status_wait_for_no_heavy_package() -> None:
    looked_at = "import sys, commands.cli, commands.status, commands.outputs; print(*sys.modules)"
    looked = subprocess.run([sys.executable, "-c", looked_at], check=True, capture_output=True, text=True)
    assert not {"numpy", "pyarrow", "cv2", "torch", "prefect", "talking_points.build_config"} & {*looked.stdout.split()}
