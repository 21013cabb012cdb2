"""A manifest that somebody else wrote: refused with a message wherever it says what a build would not."""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from talking_points.dataset_files import DatasetError, dataset_file
from talking_points.dataset_manifest import read_audit_summary, read_manifest
from talking_points.errors import InputError
from talking_points.publishing.comparison import compare_builds
from talking_points.publishing.quality import write_quality_report
from talking_points.publishing.rehydrate import rehydrate
from talking_points.publishing.release import data_fingerprint, prepare_release
from talking_points.records import STEPS
from tests.publishing.small_dataset import write_dataset, write_sources

HOSTILE_NAMES = [
    "/etc/passwd",
    "../../victim",
    "figures/../../../victim.png",
    "figures/..",
    "figures/.hidden.png",
    "figures\\..\\..\\victim.png",
    "C:\\victim.png",
    "figures/a.png\0.png",
    "figures/a\n.png",
    "figures/\x1b[31m.png",
    "figures/a b.png",
    "figures/con.png",
    "figures/LPT1.svg",
    "figures/a.html",
    "figures//a.png",
    "figures/sub/a.png",
    "figures/" + "a" * 300 + ".png",
    "https://example.org/figures/a.png",
    "file:///etc/passwd",
    "manifest.json",
    "audit/report.json",
    "",
    7,
    None,
    ["figures/a.png"],
]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "home" / "dataset", images="reference", rows={"train": 3, "test": 3})


def change(output: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((output / "manifest.json").read_text())
    edit(manifest)
    (output / "manifest.json").write_text(json.dumps(manifest))


def readers(output: Path, tmp_path: Path) -> dict[str, Callable[[], object]]:
    """Everything that reads the manifest of a finished dataset."""
    other = tmp_path / "other"
    if not other.exists():
        write_dataset(other, rows={"test": 3})
    return {
        "rehydrate": lambda: rehydrate(output, write_sources(tmp_path / "sources"), tmp_path / "home" / "restored"),
        "publish": lambda: prepare_release(output, "org/name", tmp_path / "work"),
        "report": lambda: write_quality_report(output),
        "compare": lambda: compare_builds(other, output),
        "audit": lambda: data_fingerprint(output),
    }


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=lambda name: ascii(name)[:24])
def test_no_name_leads_out_of_the_dataset(output: Path, tmp_path: Path, name: Any) -> None:
    """Figures and data of a foreign manifest: nothing is read or written outside (a token beside the Hub's cache)."""
    victim = tmp_path / "victim"
    victim.write_text("hf_token")
    pristine = (output / "manifest.json").read_text()

    def as_figure(manifest: dict[str, Any]) -> None:
        manifest["figures"] = [name]

    def as_data(manifest: dict[str, Any]) -> None:
        manifest["files"][0]["path"] = name

    for edit in (as_figure, as_data):
        (output / "manifest.json").write_text(pristine)
        change(output, edit)
        for reader, read in readers(output, tmp_path).items():
            with pytest.raises(InputError) as refused:
                read()
            message = str(refused.value)
            assert "manifest.json cannot be used" in message, reader
            assert message.isprintable(), "nothing of it moves a terminal's cursor"
    assert victim.read_text() == "hf_token"
    left = {path.name for path in (tmp_path / "home").iterdir()}
    assert left == {"dataset"}, "nothing was written"


def test_links_are_not_followed_out(output: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_text("hf_token")
    figure = output / "figures" / "composition.png"
    figure.unlink()
    figure.symlink_to(secret)
    for read in (
        lambda: rehydrate(output, write_sources(tmp_path / "sources"), tmp_path / "restored"),
        lambda: prepare_release(output, "org/name", tmp_path / "work"),
    ):
        with pytest.raises(DatasetError, match=r"a link to .*outside the dataset"):
            read()
    assert not (tmp_path / "restored").exists()
    figure.unlink()
    os.mkfifo(figure)
    with pytest.raises(DatasetError, match="expected a file"):
        dataset_file(output, "figures/composition.png")
    figure.unlink()
    (output / "report").symlink_to(tmp_path)
    with pytest.raises(DatasetError, match="found a link"):
        write_quality_report(output)
    assert not (tmp_path / "index.html").exists()


def test_the_hub_cache_keeps_its_links(output: Path, tmp_path: Path) -> None:
    """Snapshots hold links to the blobs of their repository: followed there, and nowhere else in the cache."""
    repository = tmp_path / "hub" / "datasets--org--name"
    snapshot, blobs = repository / "snapshots" / "abc", repository / "blobs"
    blobs.mkdir(parents=True)
    for path in sorted(path for path in output.rglob("*") if path.is_file()):
        link = snapshot / path.relative_to(output)
        link.parent.mkdir(parents=True, exist_ok=True)
        blob = blobs / path.name
        path.rename(blob)
        link.symlink_to(os.path.relpath(blob, link.parent))
    report = rehydrate(snapshot, write_sources(tmp_path / "sources"), tmp_path / "restored")
    assert sum(report.rows.values()) == 6
    for target in (tmp_path / "hub" / "token", tmp_path / "hub" / "datasets--org--private" / "blobs" / "x"):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("hf_token")
        link = snapshot / "figures" / "composition.png"
        link.unlink()
        link.symlink_to(target)
        with pytest.raises(DatasetError, match="outside the dataset"):
            rehydrate(snapshot, write_sources(tmp_path / "sources"), tmp_path / "restored_2")
    (blobs / "inner").symlink_to(tmp_path / "hub" / "token")
    link.unlink()
    link.symlink_to(blobs / "inner")
    with pytest.raises(DatasetError, match="outside the dataset"):
        dataset_file(snapshot, "figures/composition.png")


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


WRONG: list[tuple[str, Any]] = [
    ("rows", "many"),
    ("rows", {}),
    ("rows", {"train": -1}),
    ("rows", {"train": 1.5}),
    ("rows", {"train": 10**30}),
    ("rows", {"../x": 1}),
    ("files", {}),
    ("files", [{}]),
    ("files", [{"path": "data/a.parquet", "sha256": "z" * 64}]),
    ("files", [{"path": "data/a.parquet", "sha256": "a" * 64}] * 2),
    ("sources", {"../..": {}}),
    ("sources", {}),
    ("images", "everything"),
    ("images", {"pascal_part116": "embed"}),
    ("name", "a\nb"),
    ("name", "\x1b]0;title\x07"),
    ("name", "x" * 1000),
    ("seed", "0"),
    ("config", []),
    ("config", {"keypoints": 7}),
    ("config", nested(100)),
    ("stages", {"verify": {}}),
    ("stages", {"verify": {"rows_in": 1, "rows_out": 1, "rejected": {"a\x1b[2J": 1}}}),
    ("steps", {"refine": {"backend": ["x"]}}),
    ("composition", {"pascal_part116": {"dog": {"ear": "many"}}}),
    ("lengths", {"min": 1}),
    ("format_version", 2),
    ("created_with", {"a": {"b": "c"}}),
    ("cost", "text"),
    ("cost", {"currency": "EUR", "total": 1, "steps": [1]}),
    ("cost", {"currency": "EUR", "total": 1, "steps": {"refine": {"requests": 1}}}),
    ("cost", {"currency": "EUR", "total": "1", "steps": {}}),
    ("cost", {"currency": "E\nUR", "total": 1, "steps": {}}),
]


@pytest.mark.parametrize(("key", "value"), WRONG, ids=lambda value: ascii(value)[:30])
def test_wrong_values_are_named(output: Path, tmp_path: Path, key: str, value: Any) -> None:
    change(output, lambda manifest: manifest.update({key: value}))
    for read in readers(output, tmp_path).values():
        with pytest.raises(InputError) as refused:
            read()
        assert str(refused.value).isprintable()
        assert len(str(refused.value)) < 1000
    assert key in str(refused.value) or "nested" in str(refused.value) or "twice" in str(refused.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[]", b"null", b'{"rows": NaN}', b"[" * 200_000, b'{"a":' * 100_000, b"9" * 5_000],
    ids=lambda content: ascii(content)[:20],
)
def test_what_is_no_manifest_is_refused_at_once(output: Path, content: bytes) -> None:
    (output / "manifest.json").write_bytes(content)
    started = time.process_time()
    with pytest.raises(DatasetError, match=r"manifest\.json cannot be used .*run the build again"):
        read_manifest(output)
    assert time.process_time() - started < 3


@pytest.mark.parametrize(
    ("key", "text", "place"),
    [
        ("config", r'{"x": "\ud800"}', "config.x"),
        ("config", r'{"\udfff": 1}', "config"),
        ("config", '{"x": 1e999}', "config.x"),
        ("newer", r'{"a": [1, {"b": "\ud800"}]}', "newer.a.1.b"),
        ("newer", "[-1e999]", "newer.0"),
    ],
)
def test_what_no_file_can_hold_is_refused_with_its_place(
    output: Path, tmp_path: Path, key: str, text: str, place: str
) -> None:
    """JSON spells halves of characters and numbers too large for a float; a card and the next manifest cannot."""
    change(output, lambda manifest: manifest.update({key: "HERE"}))
    path = output / "manifest.json"
    path.write_text(path.read_text().replace('"HERE"', text))
    for reader, read in readers(output, tmp_path).items():
        with pytest.raises(DatasetError, match=rf"manifest\.json cannot be used \({place}: expected ") as refused:
            read()
        assert str(refused.value).isprintable(), reader


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("stages", {"verify": {"rows_in": 0, "rows_out": 5}}),
        ("steps", {name: {"backend": "rules"} for name in STEPS}),
        ("rows", {"validation": 6}),
        ("lengths", {"min": 1, "median": 2, "max": 3, "mean": 2}),
        ("cost", {"currency": "EUR", "total": 1, "steps": {}}),
    ],
)
def test_what_may_be_left_out_is_filled_in(output: Path, tmp_path: Path, key: str, value: Any) -> None:
    change(output, lambda manifest: manifest.update({key: value}))
    restored = readers(output, tmp_path)["rehydrate"]
    restored()
    assert read_manifest(tmp_path / "home" / "restored")["config"] == read_manifest(output)["config"]


def test_a_huge_manifest_is_not_read(output: Path) -> None:
    with (output / "manifest.json").open("wb") as file:
        file.truncate(1 << 34)
    with pytest.raises(DatasetError, match="more than the 16,777,216 that are read"):
        read_manifest(output)


def test_unknown_keys_are_kept(output: Path) -> None:
    change(output, lambda manifest: manifest.update({"from_a_newer_version": {"a": [1, 2]}}))
    assert read_manifest(output)["from_a_newer_version"] == {"a": [1, 2]}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"answers": "x"}', '{"shares": [{"share": 7, "threshold": 1}]}'])
def test_a_torn_summary_of_the_human_check_says_how_to_go_on(output: Path, tmp_path: Path, content: str) -> None:
    (output / "audit").mkdir()
    (output / "audit" / "report.json").write_text(content)
    for read in (lambda: read_audit_summary(output), lambda: prepare_release(output, "org/name", tmp_path / "work")):
        with pytest.raises(DatasetError, match=r"audit/report\.json cannot be used .*audit --report"):
            read()


@pytest.mark.parametrize("extra", ['{"files": null}', '{"files": [{}]}', '{"files": 3}', '{"images": {}, "files": []}'])
def test_a_summary_with_keys_of_a_manifest_is_none(output: Path, extra: str) -> None:
    (output / "audit").mkdir()
    (output / "audit" / "report.json").write_text(extra)
    summary = read_audit_summary(output)
    assert summary is not None
    assert summary["answers"] == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("fuzz") / "dataset", rows={"test": 3})


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where the values of a manifest are, containers included."""
    found = [path] if path else []
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        found += places(item, (*path, key))
    return found


def _fuzz(folder: Path, data: st.DataObject) -> None:
    original = json.loads((folder / "manifest.json").read_text())
    manifest = copy.deepcopy(original)
    *above, last = data.draw(st.sampled_from(places(original)))
    holder = manifest
    for key in above:
        holder = holder[key]
    holder[last] = data.draw(JSON | st.sampled_from([name for name in HOSTILE_NAMES if name is not None]))
    changed = folder / "manifest.json"
    try:
        changed.write_text(json.dumps(manifest))
        for read in (
            lambda: prepare_release(folder, "org/name", folder / "work"),
            lambda: compare_builds(folder, folder),
        ):
            with suppress(InputError):
                read()
    finally:
        changed.write_text(json.dumps(original))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_value_in_any_place_is_used_or_refused(folder: Path, data: st.DataObject) -> None:
    _fuzz(folder, data)
