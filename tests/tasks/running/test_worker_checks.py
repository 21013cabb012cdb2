"""What differs between a worker and the driver of a build: each thing in words, and nothing where all is the same."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from talking_points.build_config import BuildConfig, StepConfig
from talking_points.runner_config import RunnerConfig
from tasks.running import worker_checks
from tasks.running.worker_checks import Expectation, WorkerDiffers, check_worker, expect, find_differences, forget_marks

Change = Callable[[Expectation, Path], Expectation]


def changed(**other: object) -> Change:
    """What a driver of another kind would expect."""
    return lambda expected, _: expected.model_copy(update=other)


def other_version(name: str) -> Change:
    return lambda expected, _: expected.model_copy(update={"packages": expected.packages | {name: "0.0.1"}})


def other_torch(expected: Expectation, _: Path) -> Expectation:
    need = expected.needs["local_caption"]
    return expected.model_copy(
        update={"needs": {"local_caption": need.model_copy(update={"versions": {"torch": "0.0.1"}})}}
    )


def no_package(expected: Expectation, _: Path) -> Expectation:
    need = expected.needs["local_caption"]
    return expected.model_copy(update={"needs": {"local_caption": need.model_copy(update={"package": "nowhere"})}})


def no_root(expected: Expectation, folder: Path) -> Expectation:
    shutil.rmtree(folder / "source")
    return expected


def other_files(expected: Expectation, folder: Path) -> Expectation:
    (folder / "source" / "image.jpg").write_bytes(b"longer than before")
    return expected


def no_output(expected: Expectation, folder: Path) -> Expectation:
    shutil.rmtree(folder / "out")
    return expected


def no_results(expected: Expectation, folder: Path) -> Expectation:
    shutil.rmtree(folder / "results")
    return expected


DIFFERENCES: dict[str, tuple[Change, str]] = {
    "same": (changed(), r""),
    "python": (changed(python="3.9"), r"it runs Python 3\.\d+, the build 3\.9"),
    "code": (changed(code="0" * 16), r"its code in /.*/talking_points is not that of the build"),
    **{
        name: (other_version(name), rf"it has {name} \S+, the build 0\.0\.1; install what requirements\.lock pins")
        for name in ("talking-points", "pyarrow", "opencv-contrib-python", "jinja2", "prefect", "distributed")
    },
    "not there": (other_version("no-such-package"), r"it has no no-such-package, the build 0\.0\.1"),
    "model library": (other_torch, r"it has torch \S+, the build 0\.0\.1"),
    "extra": (no_package, r"the package 'nowhere', which local_caption needs, is not installed; .*\[train\]"),
    "root": (no_root, r"it has nothing at /.*/source, the root of drawn"),
    "files": (other_files, r"it has other files at /.*/source, the root of drawn"),
    "answers": (
        changed(answers="postgresql://ann:s3cretword@127.0.0.1:1/answers"),
        r"request_cache: the database 127\.0\.0\.1 cannot be used \((?!.*s3cret).*PGPASSWORD of every machine",
    ),
    "server": (
        changed(api="http://somebody:secret@127.0.0.1:1/api"),
        r"it does not reach the Prefect server of the build at 127\.0\.0\.1:1 \(.*refused\): PREFECT_API_URL has",
    ),
    "server behind a proxy": (changed(api="https://prefect.example/api"), ""),
    "output": (no_output, r"it does not see the output /.*/out, which has to be one place for all workers"),
    "results": (no_results, r"it does not see the result records in /.*/results: name a place that all workers see"),
}


@pytest.mark.parametrize("what", DIFFERENCES)
def test_every_difference_is_said(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "image.jpg").write_bytes(b"image")
    step = StepConfig(backend="transformers", model="build/tiny")
    config = BuildConfig(
        output=str(tmp_path / "out"),
        local_caption=step,
        runner=RunnerConfig(kind="dask"),
    )
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    made = expect(config, {"drawn": str(tmp_path / "source")}, 1, tmp_path / "results", None)
    change, words = DIFFERENCES[what]
    expected = change(made, tmp_path)
    found = find_differences(expected, ("local_caption", "verify"))
    if not words:
        assert found == []
        check_worker(expected, "local_caption")
        forget_marks(expected)
        assert len(find_differences(expected, ())) == 2, "a build that is over has left nothing to see"
        return
    (said,) = found
    assert re.fullmatch(f"{words}.*", said)
    monkeypatch.setattr(worker_checks, "set_up_worker", lambda: None)
    with pytest.raises(
        WorkerDiffers, match=rf"the worker process \d+ on \S+ cannot do the tasks of this build: {words}"
    ):
        check_worker(expected, "local_caption")
