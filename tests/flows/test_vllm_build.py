"""The paper's build with vLLM itself on the CPU: a server of LLaVA that is killed, then one of a Llama (in AWQ)."""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

pytest.importorskip("torch", reason="needs the extra 'train'")

ENVIRONMENT = Path(os.environ.get("TALKING_POINTS_VLLM_ENV", "build/env-vllm")).absolute()
PAPER = "configs/build/paper.yaml"
CONCURRENCY = 2

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.usefixtures("orchestrator"),
    pytest.mark.timeout(1500),
    pytest.mark.skipif(
        not (ENVIRONMENT / ".ready").exists(),
        reason="needs the environment of 'make vllm-env' (make test-vllm)",
    ),
]


def test_a_build_outlives_the_kill_of_its_server_and_repeats_no_answer(drawn: dict[str, Path], tmp_path: Path) -> None:
    from commands.rehearsal import build_overrides
    from flows.build_llamapointinpart import build_llamapointinpart
    from talking_points.models.stand_in_chat import LOOK

    mark = uuid.uuid4().hex
    settings = build_overrides("out", tmp_path, drawn, ENVIRONMENT)
    for step in ("local_caption", "generate", "refine"):
        settings += (f"{step}.server.variables.MARK_OF_THE_TEST='{mark}'", f"{step}.concurrency={CONCURRENCY}")
        settings += (f"{step}.options.disable_uvicorn_access_log=false",)
    logs = tmp_path / "out" / ".work" / "servers"
    with _killing_after(3, logs, "llava") as killed:
        result = build_llamapointinpart(PAPER, [*settings, "workers=1"])

    rows = result["rows"]
    assert rows > 10
    assert result["rejected"] == 0
    assert killed, "the server was to be killed while it answered"
    llava, llama = _log(logs, "llava"), _log(logs, "llama")
    assert (_starts(llava), _starts(llama)) == (2, 1), "one after the kill; generate and refine share theirs"
    before, after = killed[0], _answered(llava) - killed[0]
    assert after > 0
    assert rows <= before + after <= rows + CONCURRENCY, "only what was being answered at the kill is asked again"
    assert llava.splitlines()[-1].startswith("ended with exit code")
    texts = [
        row["text"]
        for path in (tmp_path / "out" / ".work" / "local_caption").glob("[0-9]*[0-9].parquet")
        for row in pq.read_table(path).to_pylist()
    ]
    assert texts == [LOOK] * rows
    assert _answered(llama) >= rows
    assert not _running_with(mark)


@contextmanager
def _killing_after(answers: int, logs: Path, model: str) -> Iterator[list[int]]:
    """SIGKILLs the server of ``model`` once it has answered so often; holds how often it then had."""
    killed: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            log = _log(logs, model)
            if _answered(log) >= answers:
                pid = int(next(line for line in log.splitlines() if line.startswith("pid ")).split()[1])
                os.kill(pid, signal.SIGKILL)
                time.sleep(0.5)  # what it had written reaches the log
                killed.append(_answered(_log(logs, model).partition("ended with exit code")[0]))
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def _log(logs: Path, model: str) -> str:
    files = list(logs.glob(f"*-{model}.log"))
    return files[0].read_text(encoding="utf-8") if files else ""


def _starts(log: str) -> int:
    return sum(line.startswith("started: ") for line in log.splitlines())


def _answered(log: str) -> int:
    return sum("POST /v1/chat/completions" in line and " 200" in line for line in log.splitlines())


def _running_with(mark: str) -> list[str]:
    """Processes that were started with the mark in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found
