"""Models go to a Hub on this machine whole, once, and with nothing of their training beside them."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from talking_points.publishing.hub import PublishError
from talking_points.publishing.model_card import render_model_card
from talking_points.publishing.model_release import publish_model
from talking_points.publishing.release import ReleaseError
from tests.publishing.conftest import Run
from tests.publishing.local_hub import WRITER, LocalHub, Repository

CARD = render_model_card("point-descriptor", "descriptor", curves=True, repo="org/model")
PUBLISH_MODEL = """
import json, sys
from pathlib import Path
from talking_points.publishing.model_release import publish_model
print(json.dumps(publish_model(Path(sys.argv[1]), "org/model", **json.loads(sys.argv[2]))))
"""


def write_model(folder: Path, weights: dict[str, bytes] | None = None) -> Path:
    """A folder as training leaves it: a model, which is never loaded here, and what must not go up."""
    content = {"config.json": b"{}", "tokenizer.json": b"{}", "tokenizer_config.json": b"{}", "curves.png": b"PNG"}
    content |= weights or {"model.safetensors": b"weights" * 100}
    content |= {"started.json": b"{}", "stage.json": b"{}", "training_args.bin": b"args"}
    content |= {"checkpoint-2/optimizer.pt": b"state", "checkpoint-2/model.safetensors": b"old", "runs/events": b"log"}
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def held(repository: Repository, revision: str) -> dict[str, str]:
    """Path -> sha256 of what a revision holds, but for what every repository starts with."""
    commit = repository.commit(revision)
    assert commit is not None
    return {path: blob.digest for path, blob in commit.tree.items() if path != ".gitattributes"}


def digests(folder: Path, *names: str) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def test_the_model_goes_up_in_one_commit_and_nothing_else_does(reached: LocalHub, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    address = publish_model(folder, "org/model", tag="run-1", card=CARD)
    assert address == f"{reached.url}/org/model/tree/run-1"
    repository = reached.repository("org/model", "model")
    assert repository.private
    expected = digests(
        folder, "config.json", "curves.png", "model.safetensors", "tokenizer.json", "tokenizer_config.json"
    )
    expected["README.md"] = hashlib.sha256(CARD.encode()).hexdigest()
    assert held(repository, "run-1") == expected
    assert len(repository.commits) == 2, "the first, the model"
    assert repository.tags == {"run-1": repository.branches["main"]}

    uploads = [item for item in reached.served if item.method == "PUT"]
    assert publish_model(folder, "org/model", tag="run-1", card=CARD) == address
    assert len(repository.commits) == 2
    assert [item for item in reached.served if item.method == "PUT"] == uploads, "nothing is sent twice"


@pytest.mark.parametrize(
    ("moment", "kind"),
    [
        pytest.param(r"PUT /lfs/", "cut", marks=pytest.mark.slow),  # the client itself tries again for a while
        (r"POST .*/commit/", "lose"),
        (r"POST .*/tag/", "drop"),
    ],
)
def test_cut_connection_then_the_same_again(reached: LocalHub, tmp_path: Path, moment: str, kind: str) -> None:
    folder = write_model(tmp_path / "model")
    with reached.fault(moment, kind, times=100), pytest.raises(PublishError, match="run the same command again"):
        publish_model(folder, "org/model", tag="run-1", card=CARD)
    repository = reached.repository("org/model", "model")
    assert not repository.tags
    publish_model(folder, "org/model", tag="run-1", card=CARD)
    assert len(repository.commits) == 2
    assert repository.tags == {"run-1": repository.branches["main"]}


def test_the_next_model_replaces_the_files_of_the_one_before(reached: LocalHub, tmp_path: Path) -> None:
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    large = write_model(
        tmp_path / "large",
        {"model.safetensors.index.json": b"{}"} | dict(zip(shards, (b"one", b"two"), strict=True)),
    )
    small = write_model(tmp_path / "small")
    publish_model(large, "org/model", tag="run-1", card=CARD)
    repository = reached.repository("org/model", "model")
    repository.commit("main").tree["LICENSE"] = reached.store(b"added by a person")  # type: ignore[union-attr]
    publish_model(small, "org/model", tag="run-2", card=CARD)
    assert set(held(repository, "run-2")) == {
        "LICENSE", "README.md", "config.json", "curves.png", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    }  # fmt: skip
    assert set(shards) < set(held(repository, "run-1"))

    publish_model(large, "org/model", tag="run-1", card=CARD)
    assert held(repository, "main") == held(repository, "run-1"), "an earlier model that is the champion again"
    assert len(repository.commits) == 4


def test_a_tag_names_one_model_for_ever(reached: LocalHub, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    publish_model(folder, "org/model", tag="run-1", card=CARD)
    publish_model(folder, "org/model", tag="run-1", card=CARD + "\nMore is known today.\n")
    repository = reached.repository("org/model", "model")
    assert held(repository, "main")["README.md"] != held(repository, "run-1")["README.md"]
    other = write_model(tmp_path / "other", {"model.safetensors": b"trained elsewhere"})
    with pytest.raises(PublishError, match="the tag 'run-1' exists already"):
        publish_model(other, "org/model", tag="run-1", card=CARD)


def test_damage_on_the_way_is_found_and_not_tagged(reached: LocalHub, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    repository = reached.create("org/model", private=True, kind="model")

    def damage() -> None:
        repository.commits[-1].tree["config.json"] = reached.store(b"[]")

    with (
        reached.fault(rf"GET .*/tree/(?!{repository.branches['main']})", "call", call=damage),
        pytest.raises(PublishError, match=r"does not hold what was uploaded: config\.json"),
    ):
        publish_model(folder, "org/model", tag="run-1", card=CARD)
    assert not repository.tags


@pytest.mark.parametrize(
    ("prepare", "expected"),
    [
        (lambda hub: hub.create("org/model", private=False, kind="model"), "exists and is public"),
        (lambda hub: hub.faults.append(_fault(r"POST .*/validate-yaml", 400)), "HTTP 400"),
        (lambda hub: hub.faults.append(_fault(r"POST .*/commit/", 412)), "somebody else committed"),
    ],
)
def test_refusals_are_explained(reached: LocalHub, tmp_path: Path, prepare: Any, expected: str) -> None:
    prepare(reached)
    with pytest.raises(PublishError, match=expected) as caught:
        publish_model(write_model(tmp_path / "model"), "org/model", tag="run-1", card=CARD)
    assert WRITER not in str(caught.value)


def _fault(pattern: str, status: int) -> Any:
    from tests.publishing.local_hub import Fault

    return Fault(pattern, "status", status=status)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="no model in"):
        publish_model(tmp_path, "org/model", tag="run-1", card=CARD)


def test_no_token_anywhere(hub: LocalHub, run: Run, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    options = json.dumps({"tag": "run-1", "card": CARD})
    secret = "hf_secretsecretsecret"
    refused = run(PUBLISH_MODEL, folder, options, token=secret)
    done = run(PUBLISH_MODEL, folder, options)
    assert (refused.returncode, done.returncode) == (1, 0), done.stderr
    assert "HTTP 401" in refused.stderr
    assert_absent((WRITER, secret), [refused, done], [*hub.objects.iterdir(), *folder.rglob("*")])


def assert_absent(
    tokens: tuple[str, ...], processes: list[subprocess.CompletedProcess[str]], paths: list[Path]
) -> None:
    for token in tokens:
        assert not any(token in process.stdout + process.stderr for process in processes)
        assert not any(token.encode() in path.read_bytes() for path in paths if path.is_file())
