"""``build-instructions`` as a flow and as a command: reused, resumed after a kill, looked at with ``status``."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prefect.settings import PREFECT_RESULTS_LOCAL_STORAGE_PATH, temporary_settings

from talking_points.config import ConfigError
from talking_points.instructions.rows import read_instructions
from tests.flows.building import made, published
from tests.flows.clusters import dask_cluster
from tests.prefect_records import prefect_api
from tests.test_readme import blocks, console_lines

ROOT = Path(__file__).resolve().parents[2]
PAGE = "docs/instructions.md"
CONFIG = str(ROOT / "configs" / "build" / "instructions.yaml")


def given(output: Path, drawn: dict[str, Path], *more: str) -> list[str]:
    roots = [f"sources.partimagenet.root={drawn['partimagenet']}", f"sources.refcoco.root={drawn['refcoco']}"]
    return [f"output={output}", *roots, "shard_size=4", *more]


def test_the_flow_builds_reuses_and_makes_anew_what_a_setting_changes(
    orchestrator: None, drawn: dict[str, Path], tmp_path: Path
) -> None:
    from flows.build_instructions import build_instructions

    output = tmp_path / "out"
    with temporary_settings({PREFECT_RESULTS_LOCAL_STORAGE_PATH: output / ".work" / "results"}):
        first = build_instructions(CONFIG, given(output, drawn))
        assert first["rows"] == len(list(read_instructions(output)))
        assert first["executed_shards"] > 3
        assert set(made(output)) == {"index", "regions", "assemble_instructions"}
        before = published(output)
        again = build_instructions(CONFIG, given(output, drawn))
        assert (again["executed_shards"], again["reused_shards"]) == (0, first["executed_shards"])
        # Which kinds are drawn, and in which words, measures no region anew.
        build_instructions(CONFIG, given(output, drawn, "resume=if_possible", "instructions.rows=2"))
        assert set(made(output)) == {"assemble_instructions"}
        assert published(output) != before
        build_instructions(CONFIG, given(output, drawn, "resume=if_possible", "instructions.outlines.points=8"))
        assert set(made(output)) == {"regions", "assemble_instructions"}
        assert all(row.points <= 8 for row in read_instructions(output, images=False))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_workers_of_a_cluster_write_the_same_bytes(orchestrator: None, drawn: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("prefect_dask", reason="the extra 'dask' is not installed")
    from flows.build_instructions import build_instructions

    def build(name: str, *more: str) -> dict[str, str]:
        output = tmp_path / name
        with temporary_settings({PREFECT_RESULTS_LOCAL_STORAGE_PATH: output / ".work" / "results"}):
            build_instructions(CONFIG, given(output, drawn, *more))
        return published(output)

    with dask_cluster(tmp_path / "dask", 2) as cluster:
        runner = f"kind: dask, address: '{cluster.address}', shards_per_task: 2"
        with pytest.raises(ConfigError, match=r"no worker has GPU: 1"):
            build("refused", f"runner={{{runner}, resources: {{regions: {{GPU: 1}}}}}}")
        assert not (tmp_path / "refused" / ".work" / "index").exists()
        assert build("cluster", f"runner={{{runner}}}") == build("here")
    assert (tmp_path / "cluster" / ".work" / "claims" / "regions").is_dir(), "made by workers of the cluster"


def command(output: Path, drawn: dict[str, Path]) -> list[str]:
    settings = [word for setting in given(output, drawn) for word in ("--set", setting)]
    return [sys.executable, "-m", "talking_points", "build-instructions", "--config", CONFIG, *settings]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_builds_go_on_and_end_with_the_same_bytes(
    orchestrator: None, drawn: dict[str, Path], tmp_path: Path
) -> None:
    environment = os.environ | {"PREFECT_API_URL": prefect_api(), "PYTHONUNBUFFERED": "1"}
    whole = subprocess.run(command(tmp_path / "whole", drawn), env=environment, capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr
    result = json.loads(whole.stdout.splitlines()[-1])
    output, draw = tmp_path / "killed", random.Random(3)
    for _ in range(3):
        process = subprocess.Popen(
            command(output, drawn), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # Killed once it works: some time after it has begun with the output.
        while process.poll() is None and not (output / ".work" / "index").is_dir():
            time.sleep(0.05)
        time.sleep(draw.uniform(0, 1.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = subprocess.run(command(output, drawn), env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["rows"] == result["rows"]
    assert published(output) == published(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_page_works_as_printed(orchestrator: None, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path / "home")}
    environment["PREFECT_API_URL"] = prefect_api()
    (tmp_path / "home").mkdir()
    printed = []
    for line in console_lines(PAGE):
        command = [sys.executable, "-m", *line.replace("talking-points", "talking_points").split()]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        printed.append(done.stdout)
    assert "pascal_part116" in printed[1]
    assert json.loads(printed[2].splitlines()[-1])["rows"] > 500
    assert "assemble_instructions" in printed[3]
    (block,) = blocks(PAGE, "python")
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("text_to_mask\n")
