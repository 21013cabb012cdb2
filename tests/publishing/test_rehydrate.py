"""Images published by reference come back from the user's own copies, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from talking_points.publishing.read_back import file_digests
from talking_points.publishing.rehydrate import RehydrateError, rehydrate
from talking_points.publishing.rewriting import rewrite_images
from talking_points.records import SOURCES
from tests.publishing.conftest import Run
from tests.publishing.local_hub import LocalHub
from tests.publishing.small_dataset import FOLDERS, image_path, write_dataset, write_sources

REHYDRATE = """
import json, sys
from pathlib import Path
from talking_points.publishing.rehydrate import rehydrate
roots = {source: Path(root) for source, root in json.loads(sys.argv[1]).items()}
print(rehydrate("org/name", roots, Path(sys.argv[2])).images)
"""


@pytest.mark.slow
@pytest.mark.parametrize("published", ["reference", "thumbnail"])
def test_round_trip_over_the_hub(hub: LocalHub, publish: Run, run: Run, tmp_path: Path, published: str) -> None:
    """Published without pixels and put back, the files equal those built with pixels, bit for bit."""
    embedded = write_dataset(tmp_path / "embedded")
    assert publish(embedded, images=published, verify=False).returncode == 0
    roots = {source: str(root) for source, root in write_sources(tmp_path / "sources").items()}
    done = run(REHYDRATE, json.dumps(roots), tmp_path / "restored")
    assert done.returncode == 0, done.stderr
    for path in (embedded / "data").iterdir():
        assert (tmp_path / "restored" / "data" / path.name).read_bytes() == path.read_bytes()
    assert "image` is null there" not in (tmp_path / "restored" / "README.md").read_text()


def test_features_and_rows_are_those_of_the_embedded_dataset(tmp_path: Path) -> None:
    reference = write_dataset(tmp_path / "reference", images="reference")
    embedded = write_dataset(tmp_path / "embedded")
    report = rehydrate(reference, write_sources(tmp_path / "sources"), tmp_path / "restored")
    assert report.images == dict.fromkeys(SOURCES, 6)
    restored = (report.dataset / "data").iterdir()
    assert file_digests(restored) == file_digests((embedded / "data").iterdir())


def test_what_cannot_be_put_back(tmp_path: Path) -> None:
    reference = write_dataset(tmp_path / "reference", images="reference")
    roots = write_sources(tmp_path / "sources")
    output = tmp_path / "restored"

    def refusal(roots: dict[str, Path] = roots, output: Path = output) -> str:
        with pytest.raises(RehydrateError) as caught:
            rehydrate(reference, roots, output)
        assert not output.exists() or output == reference, "nothing is written"
        return str(caught.value)

    assert "--partimagenet DIR" in refusal({name: roots[name] for name in SOURCES[:2]})
    assert "is not empty" in refusal(output=reference)
    assert "expected a folder" in refusal(roots | {"partimagenet": tmp_path / "nowhere"})
    assert "and more" in refusal(dict.fromkeys(SOURCES, tmp_path))
    changed = tmp_path / "sources" / FOLDERS["partimagenet"] / image_path(2)
    changed.write_bytes(changed.read_bytes() + b"\0")
    assert "other sha256" in refusal()
    changed.unlink()
    assert "No such file" in refusal()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("file", "found a link or a file"),
        ("file/new", "no folder can be made in"),
        ("dangling", "found a link or a file"),
        ("loop", "found a link or a file"),
        ("loop/new", "no folder can be made in"),
        ("n" * 256, "File name too long"),
        ("nul\0", "printed in UTF-8"),
        ("byte\udcff", "printed in UTF-8"),
        ("escape\x1b[2J", "printed in UTF-8"),
        ("a[b]", "for a pattern"),
    ],
    ids=lambda text: ascii(text)[:20],
)
def test_an_output_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(RehydrateError, match=reason) as refused:
        rehydrate(tmp_path / "no dataset", {}, tmp_path / name)
    assert str(refused.value).isprintable()
    assert sorted(tmp_path.iterdir()) == before


def test_of_two_at_once_the_second_leaves_what_the_first_has_put_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = write_dataset(tmp_path / "dataset", images="reference", rows={"test": 1})
    roots, output = write_sources(tmp_path / "sources"), tmp_path / "restored"

    def meanwhile(*arguments: Any) -> Any:
        output.mkdir()
        (output / "README.md").write_text("of the first")
        return rewrite_images(*arguments)

    monkeypatch.setattr("talking_points.publishing.rehydrate.rewrite_images", meanwhile)
    with pytest.raises(RehydrateError, match="choose another output"):
        rehydrate(dataset, roots, output)
    assert (output / "README.md").read_text() == "of the first"
    assert not list(tmp_path.glob(".rehydrate-*"))


def test_the_longest_name_is_an_output(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "dataset", images="reference", rows={"test": 1})
    report = rehydrate(dataset, write_sources(tmp_path / "sources"), tmp_path / ("n" * 255))
    assert (report.dataset / "README.md").is_file()


def test_paths_cannot_leave_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roots = write_sources(tmp_path / "sources")
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    monkeypatch.setattr("tests.publishing.small_dataset.image_path", lambda number: "../../secret.jpg")
    reference = write_dataset(tmp_path / "reference", images="reference")
    with pytest.raises(RehydrateError, match="path_outside_root"):
        rehydrate(reference, roots, tmp_path / "restored")
