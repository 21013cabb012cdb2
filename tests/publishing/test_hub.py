"""Publishing through the Hub's own clients to a Hub on this machine, undisturbed and disturbed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from talking_points.errors import InputError, RunError
from talking_points.publishing.card import image_modes
from talking_points.publishing.hub import PublishError, explaining
from talking_points.publishing.hub import publish as publish_here
from talking_points.publishing.read_back import file_digests
from talking_points.publishing.release import prepare_release
from talking_points.whole_files import file_sha256
from tests.publishing.conftest import PUBLISH, ROOT, Run
from tests.publishing.local_hub import READER, WRITER, LocalHub
from tests.publishing.small_dataset import ROWS, noise_jpeg, write_dataset

READ = """
import hashlib, json
from datasets import Image, load_dataset
found = {}
for streaming in (False, True):
    dataset = load_dataset("org/name", streaming=streaming)
    found[str(streaming)] = {
        split: [[row["id"], row["description"], row["image"] and hashlib.sha256(row["image"]["bytes"]).hexdigest()]
                for row in dataset[split].cast_column("image", Image(decode=False))]
        for split in sorted(dataset)
    }
    found["features"] = str(dataset["train"].features)
print(json.dumps(found))
"""


def report_of(process: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert process.returncode == 0, process.stderr
    report: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return report


def head_files(hub: LocalHub) -> dict[str, str]:
    """Path -> sha256 at the head of org/name."""
    repository = hub.repository("org/name")
    commit = repository.commit("main")
    assert commit is not None
    return {path: blob.digest for path, blob in commit.tree.items()}


def assert_published(hub: LocalHub, output: Path) -> None:
    """The head holds exactly the data of ``output``, with one tag on it."""
    expected = {f"data/{path.name}": file_sha256(path) for path in (output / "data").iterdir()}
    found = head_files(hub)
    assert {name: digest for name, digest in found.items() if name.startswith("data/")} == expected
    repository = hub.repository("org/name")
    assert list(repository.tags.values()) == [repository.branches["main"]]


@pytest.mark.slow
def test_round_trip(hub: LocalHub, publish: Run, run: Run, tmp_path: Path) -> None:
    output = write_dataset(tmp_path / "dataset")
    report = report_of(publish(output))
    assert report["verified"]
    assert report["rows"] == ROWS
    assert_published(hub, output)
    assert len(hub.repository("org/name").commits) == 3, "the first, the card, the data"
    summaries = [commit.message for commit in hub.repository("org/name").commits]
    assert summaries.index("Update the dataset card") < summaries.index("Upload the data")

    found = report_of(run(READ))
    for split, first in (("train", 0), ("test", ROWS["train"])):
        rows = found["False"][split]
        assert rows == found["True"][split]
        assert [row[0] for row in rows] == [f"{n:016x}" for n in range(first, first + ROWS[split])]
        assert [row[1].split(":")[0] for row in rows] == [f"Row {n}" for n in range(first, first + ROWS[split])]

    uploads = len([item for item in hub.served if item.method == "PUT"])
    repeated = publish(output, verify=False)
    assert report_of(repeated)["commit"] == report["commit"]
    assert repeated.stderr.splitlines() == ["org/name: update the dataset card", "org/name: upload the data"]
    assert len([item for item in hub.served if item.method == "PUT"]) == uploads, "nothing is sent twice"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_environment_with_datasets_alone_reads_it(hub: LocalHub, publish: Run, tmp_path: Path) -> None:
    report_of(publish(write_dataset(tmp_path / "dataset"), verify=False))
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "requirements.lock"), "datasets"]
    if subprocess.run(install, capture_output=True, check=False).returncode:
        pytest.skip("no package registry can be reached")
    code = READ.replace("import hashlib", "import importlib.util, hashlib") + (
        "assert not importlib.util.find_spec('talking_points')\n"
    )
    done = subprocess.run(
        [python, "-c", code],
        env={"PATH": os.environ["PATH"]} | hub.environment(tmp_path / "home", WRITER),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert len(report_of(done)["True"]["train"]) == ROWS["train"]


def test_a_new_build_replaces_the_files_of_the_old_one(hub: LocalHub, publish: Run, tmp_path: Path) -> None:
    report_of(publish(write_dataset(tmp_path / "first", rows_per_file=4), verify=False))
    second = write_dataset(tmp_path / "second", rows_per_file=12, images="reference")
    report_of(publish(second, verify=False))
    found = head_files(hub)
    data = {name for name in found if name.startswith("data/")}
    assert data == {f"data/{path.name}" for path in (second / "data").iterdir()}
    assert "figures/examples.png" not in found, "images go where the pixels go"
    assert len(hub.repository("org/name").tags) == 2


@pytest.mark.parametrize(
    ("moment", "kind"),
    [
        pytest.param(r"POST .*/preupload/", "drop", marks=pytest.mark.slow),
        (r"POST .*/commit/", "drop"),
        (r"POST .*/commit/", "lose"),
        pytest.param(r"PUT /lfs/", "cut", marks=pytest.mark.slow),
    ],
)
def test_cut_connection_then_the_same_command_again(
    hub: LocalHub, publish: Run, tmp_path: Path, moment: str, kind: str
) -> None:
    output = write_dataset(tmp_path / "dataset")
    with hub.fault(moment, kind, times=100):
        failed = publish(output, verify=False)
    assert failed.returncode == 1
    assert "run the same command again" in failed.stderr
    assert not hub.repository("org/name").tags
    report_of(publish(output, verify=False))
    assert_published(hub, output)


@pytest.mark.parametrize("moment", [r"PUT /lfs/", r"POST .*/commit/", r"POST .*/tag/"])
def test_killed_then_the_same_command_again(
    hub: LocalHub, start: Callable[..., subprocess.Popen[str]], publish: Run, tmp_path: Path, moment: str
) -> None:
    output = write_dataset(tmp_path / "dataset")
    process = start(PUBLISH, output, json.dumps({"verify": False}))
    with hub.fault(moment, "call", call=process.kill):
        process.communicate(timeout=60)
    assert process.returncode == -9
    report_of(publish(output, verify=False))
    assert_published(hub, output)


def test_two_publishers_at_once(
    hub: LocalHub, start: Callable[..., subprocess.Popen[str]], publish: Run, tmp_path: Path
) -> None:
    """The second publishes between the first one's card and its data."""
    mine = write_dataset(tmp_path / "mine")
    theirs = write_dataset(tmp_path / "theirs", encode=lambda n: noise_jpeg(n + 100))
    others: list[subprocess.CompletedProcess[str]] = []
    data_commit = rf"PUT /lfs/org/name/{file_sha256(mine / 'data' / 'test-00000-of-00001.parquet')}"
    with hub.fault(data_commit, "call", call=lambda: others.append(publish(theirs, verify=False))):
        first = publish(mine, verify=False)
    assert report_of(others[0])
    assert first.returncode == 1
    assert "HTTP 412" in first.stderr
    assert "somebody else committed" in first.stderr
    assert_published(hub, theirs)


@pytest.mark.parametrize(
    ("token", "fault", "expected"),
    [
        ("hf_thisisnotatoken0", None, ["HTTP 401", "hf auth login"]),
        (None, None, ["HTTP 401", "HF_TOKEN"]),
        (READER, None, ["HTTP 403", "role 'write'"]),
        (WRITER, 404, ["HTTP 404", "check the spelling"]),
        (WRITER, None, ["HTTP 409", "choose another tag"]),
        (WRITER, 412, ["HTTP 412", "somebody else"]),
        (WRITER, 429, ["HTTP 429", "wait"]),
        (WRITER, 503, ["HTTP 503", "run the same command again"]),
    ],
)
def test_refusals_are_explained_and_never_show_the_token(
    hub: LocalHub, token: str | None, fault: int | None, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi

    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    hub.create("org/name", private=False).tags["v1"] = "0"
    api = HfApi(endpoint=hub.url, token=token or False)
    faults = hub.fault("/tag/", "status", status=fault) if fault else nullcontext()
    with faults, pytest.raises(PublishError) as caught, explaining("cannot publish"):
        api.create_tag("org/name", tag="v1", repo_type="dataset")
    assert caught.value.status == int(expected[0].split()[1])
    for piece in expected:
        assert piece in str(caught.value)
    assert (token or "hf_") not in str(caught.value)
    assert caught.value.__suppress_context__, "the frames of the client hold request headers"


@pytest.mark.slow
def test_no_token_anywhere(hub: LocalHub, publish: Run, tmp_path: Path) -> None:
    output = write_dataset(tmp_path / "dataset")
    done = publish(output, private=True)
    secret = "hf_secretsecretsecret"
    refused = publish(output, token=secret)
    assert refused.returncode == 1
    for process in (done, refused):
        for text in (process.stdout, process.stderr):
            assert WRITER not in text
            assert secret not in text
    for path in [*hub.objects.iterdir(), *(path for path in output.rglob("*") if path.is_file())]:
        content = path.read_bytes()
        assert WRITER.encode() not in content, path
        assert secret.encode() not in content, path


def test_a_private_dataset_never_goes_into_a_public_repository(hub: LocalHub, publish: Run, tmp_path: Path) -> None:
    hub.create("org/name", private=False)
    refused = publish(write_dataset(tmp_path / "dataset"), private=True)
    assert refused.returncode == 1
    assert "exists and is public" in refused.stderr
    assert len(hub.repository("org/name").commits) == 1


def test_a_taken_tag_is_refused(hub: LocalHub, publish: Run, tmp_path: Path) -> None:
    report_of(publish(write_dataset(tmp_path / "one"), tag="v1", verify=False))
    refused = publish(write_dataset(tmp_path / "two", images="reference"), tag="v1", verify=False)
    assert refused.returncode == 1
    assert "the tag 'v1' exists already" in refused.stderr


@pytest.mark.slow
def test_damage_on_the_way_is_found_and_not_tagged(hub: LocalHub, publish: Run, tmp_path: Path) -> None:
    output = write_dataset(tmp_path / "dataset")
    other = write_dataset(tmp_path / "other", encode=lambda n: noise_jpeg(n + 1))
    victim = "test-00000-of-00001.parquet"
    stored = hub.objects / file_sha256(output / "data" / victim)

    def damage() -> None:
        stored.write_bytes((other / "data" / victim).read_bytes())

    with hub.fault(r"GET .*/tree/\w{40}/data", "call", call=damage):
        failed = publish(output)
    assert failed.returncode == 1
    assert "reads back differently" in failed.stderr
    assert not hub.repository("org/name").tags


def test_dry_run_contacts_nobody(hub: LocalHub, publish: Run, tmp_path: Path) -> None:
    report = report_of(publish(write_dataset(tmp_path / "dataset"), dry_run=True))
    assert report["commit"] is None
    assert set(report["files"]) >= {"README.md", "manifest.json", "data/test-00000-of-00001.parquet"}
    assert hub.served == []


@pytest.mark.slow
def test_first_streamed_row_costs_one_row_group(hub: LocalHub, publish: Run, run: Run, tmp_path: Path) -> None:
    """Measured in bytes that the Hub sends; the only other reads are the footers."""
    rows, size = 600, 100_000
    output = write_dataset(
        tmp_path / "dataset",
        rows={"train": rows},
        rows_per_file=200,
        encode=lambda n: np.random.default_rng(n).bytes(size),
    )
    report_of(publish(output, verify=False))
    hub.served.clear()
    code = """
from datasets import Image, load_dataset
row = next(iter(load_dataset("org/name", split="train", streaming=True).cast_column("image", Image(decode=False))))
print(len(row["image"]["bytes"]))
"""
    assert report_of(run(code)) == size
    group = (output / "data" / "train-00000-of-00003.parquet").stat().st_size
    assert hub.bytes_sent(r"\.parquet$") <= group + 100_000
    assert hub.bytes_sent(r"\.parquet$") < rows * size / 2


@pytest.mark.parametrize(
    ("built", "asked", "config", "expected"),
    [
        ("embed", None, {"images": "embed"}, "embed"),
        ("embed", None, {}, "reference"),
        ("embed", "thumbnail", {}, "thumbnail"),
        ("embed", "embed", {}, "embed"),
        ("thumbnail", None, {}, "reference"),
        ("reference", None, {}, "reference"),
    ],
)
def test_pixels_that_go_up(tmp_path: Path, built: Any, asked: Any, config: dict[str, Any], expected: Any) -> None:
    """As asked for, as configured, or as the terms of the sources allow."""
    output = write_dataset(tmp_path / "dataset", images=built, config=config)
    release = prepare_release(output, "org/name", tmp_path / "work", images=asked)
    assert set(image_modes(release.manifest).values()) == {expected}
    assert bool(release.warnings) == (expected != "reference")
    rewritten = any(path.is_relative_to(tmp_path / "work") for path in release.data.values())
    assert rewritten == (built != expected)
    same_rows = write_dataset(tmp_path / "same", images=expected, config=config)
    assert file_digests(release.data.values()) == file_digests((same_rows / "data").iterdir())
    for file in release.manifest["files"]:
        assert file_sha256(release.data[file["path"]]) == file["sha256"]


def test_stand_ins_drawn_by_us_keep_their_pixels(tmp_path: Path) -> None:
    output = write_dataset(
        tmp_path / "dataset", config={}, sources={"partimagenet": {"train": 12, "test": 6, "drawn": True}}
    )
    release = prepare_release(output, "org/name", tmp_path / "work")
    assert release.manifest["images"] == "embed"
    assert not release.warnings


@pytest.mark.parametrize("what", ["gone", "changed"])
def test_a_file_that_goes_away_deletes_nothing(hub: LocalHub, reached: LocalHub, tmp_path: Path, what: str) -> None:
    """Between the check of the folder and the upload, another build puts its files there."""
    publish_here(write_dataset(tmp_path / "before", rows_per_file=4), "org/name", verify=False)
    kept = head_files(hub)
    output = write_dataset(tmp_path / "dataset")
    victim = output / "data" / "test-00000-of-00001.parquet"

    def interfere() -> None:
        victim.unlink() if what == "gone" else victim.write_bytes(b"PAR1 of another build")

    tags = dict(hub.repository("org/name").tags)
    with hub.fault(r"POST .*/commit/", "call", call=interfere), pytest.raises(InputError, match="another build"):
        publish_here(output, "org/name", verify=False)
    found = head_files(hub)
    assert {name: digest for name, digest in found.items() if name.startswith("data/")} == {
        name: digest for name, digest in kept.items() if name.startswith("data/")
    }
    assert hub.repository("org/name").tags == tags


def test_a_file_that_changes_while_it_is_sent_is_not_tagged(hub: LocalHub, reached: LocalHub, tmp_path: Path) -> None:
    output = write_dataset(tmp_path / "dataset")
    victim = output / "data" / "test-00000-of-00001.parquet"
    other = write_dataset(tmp_path / "other", encode=lambda n: noise_jpeg(n + 1))
    changed = (other / "data" / victim.name).read_bytes()
    calls: list[int] = []

    def interfere() -> None:
        calls.append(1)
        if len(calls) == 2:  # the data's, not the card's
            victim.write_bytes(changed)

    with (
        hub.fault(r"POST .*/preupload/", "call", times=2, call=interfere),
        pytest.raises((RunError, InputError, ValueError)),
    ):
        publish_here(output, "org/name", verify=False)
    assert not hub.repository("org/name").tags


def test_what_must_not_go_up(tmp_path: Path) -> None:
    def refusal(output: Path, **options: Any) -> str:
        with pytest.raises(InputError) as caught:
            prepare_release(output, "org/name", tmp_path / "work", **options)
        return str(caught.value)

    assert "a build writes last" in refusal(tmp_path)
    partial = write_dataset(tmp_path / "partial", partial=True)
    assert "partial build" in refusal(partial)
    release = prepare_release(partial, "org/name", tmp_path / "work", allow_partial=True)
    assert "partial build" in release.warnings[0]
    assert "This is a partial build" in str(release.files["README.md"])
    assert "built with images: reference" in refusal(write_dataset(tmp_path / "r", images="reference"), images="embed")
    damaged = write_dataset(tmp_path / "damaged")
    (damaged / "data" / "test-00000-of-00001.parquet").write_bytes(b"PAR1")
    assert "sha256 differs" in refusal(damaged)
    (damaged / "data" / "test-00000-of-00001.parquet").unlink()
    assert "is missing" in refusal(damaged)
    (damaged / "manifest.json").write_text("{}")
    assert "name: Field required" in refusal(damaged)
