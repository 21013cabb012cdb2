"""Damaged inputs for each reader of what somebody else wrote: used, or refused by a documented error.

Two thousand for each; ``FUZZ_CASES=10000`` asks for more.
"""

from __future__ import annotations

import copy
import json
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from talking_points.config import ConfigError
from talking_points.dataset_files import DatasetError, read_groups
from talking_points.dataset_manifest import read_audit_summary, read_manifest
from talking_points.dataset_schema import triplet_schema
from talking_points.evaluation.description_sets import read_descriptions
from tests.publishing.small_dataset import write_dataset
from tests.test_dataset_files import DAMAGE, _damaged
from tests.test_dataset_manifest import HOSTILE_NAMES, JSON, places

pytestmark = pytest.mark.slow

MANY = settings(
    max_examples=int(os.environ.get("FUZZ_CASES", "2000")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("fuzz") / "dataset", rows={"train": 3})


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object) -> None:
        raise AssertionError(f"a connection was tried: {arguments[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refused)


@MANY
@given(data=st.data())
def test_manifests(output: Path, data: st.DataObject) -> None:
    path = output / "manifest.json"
    original = path.read_text()
    manifest = copy.deepcopy(json.loads(original))
    *above, last = data.draw(st.sampled_from(places(manifest)))
    holder = manifest
    for key in above:
        holder = holder[key]
    holder[last] = data.draw(JSON | st.sampled_from([name for name in HOSTILE_NAMES if name is not None]))
    try:
        path.write_text(json.dumps(manifest))
        with suppress(DatasetError):
            for file in read_manifest(output)["files"]:
                assert (output / file["path"]).resolve().is_relative_to(output / "data")
    finally:
        path.write_text(original)


@MANY
@given(content=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_summaries_of_the_human_check(output: Path, content: bytes) -> None:
    (output / "audit").mkdir(exist_ok=True)
    (output / "audit" / "report.json").write_bytes(content)
    with suppress(DatasetError):
        read_audit_summary(output)


@MANY
@given(damage=DAMAGE)
def test_parquet(output: Path, tmp_path: Path, damage: Any) -> None:
    content = next((output / "data").iterdir()).read_bytes()
    path = tmp_path / "train-0.parquet"
    path.write_bytes(_damaged(content, *damage))
    with suppress(DatasetError):
        for table in read_groups(path, triplet_schema().names):
            table.to_pylist()


LINES = st.lists(
    st.binary(max_size=60)
    | st.fixed_dictionaries({"id": JSON, "description": JSON}).map(lambda row: json.dumps(row).encode())
    | st.fixed_dictionaries({"id": st.text(max_size=5), "description": st.text()}).map(
        lambda row: json.dumps(row).encode()
    ),
    max_size=5,
)


@MANY
@given(lines=LINES)
def test_descriptions(tmp_path: Path, lines: list[bytes]) -> None:
    path = tmp_path / "descriptions.jsonl"
    path.write_bytes(b"\n".join(lines))
    with suppress(ConfigError):
        assert all(isinstance(text, str) for text in read_descriptions(path).values())
