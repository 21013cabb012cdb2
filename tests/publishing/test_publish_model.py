"""From a training to the Hub and back: its card, ``publish-model``, and ``from_pretrained`` by the Hub's id."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from commands import cli  # noqa: F401  (registers all commands)
from commands.console import app
from talking_points.examples.config import FeatureConfig
from talking_points.sources.drawn import drawn_roots
from talking_points.training.config import LocalizerConfig, StageConfig, TrainConfig
from tasks.model_cards import train_with_card
from tests.publishing.conftest import Run
from tests.publishing.hub_card import card_problems
from tests.publishing.local_hub import WRITER, LocalHub
from tests.publishing.test_model_card import report
from tests.training.conftest import write_dataset

REPORT = report() | {
    "localizer": "x", "images": 9, "levels": {}, "words": {}, "categories": {}, "inside_part": 50.0, "undescribed": 0,
}  # fmt: skip
ROLES = {"descriptor": "PointDescriptor", "localizer": "PointLocalizer"}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """Both models of two steps each, trained on a dataset that says it was drawn."""
    root = tmp_path_factory.mktemp("training")
    dataset = write_dataset(root / "dataset", rows=12)
    manifest = {"name": "LlamaPointInPart", "sources": {"pascal_part116": {"drawn": True}}}
    (dataset / "manifest.json").write_text(json.dumps(manifest))
    stage: dict[str, Any] = {"max_steps": 2, "batch_size": 4, "eval_steps": 2, "save_steps": 2, "validation": 0.34}
    settings = TrainConfig(
        output=root / "train", dataset=str(dataset), image_size=64, vocabulary_size=300, threads=1,
        features=FeatureConfig(folder=root / "features", limit_gb=1.0),
        descriptor=StageConfig(**stage, model={"max_new_tokens": 4}), localizer=LocalizerConfig(**stage),
    )  # fmt: skip
    for kind in ROLES:
        assert not train_with_card(kind, settings)["reused"]
    return settings


def code_of(card: str) -> str:
    """All Python of a card, as one program."""
    return "\n".join(re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL))


@pytest.mark.parametrize("role", ROLES)
def test_every_training_writes_its_card(
    config: TrainConfig, role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = config.output / role
    text = (folder / "README.md").read_text()
    assert card_problems(text) == []
    assert re.search(r"Trained on LlamaPointInPart, built on drawn stand-ins .* at revision `[0-9a-f]{16}`", text)
    assert "Starts from random weights." in text
    assert re.search(r"\| eval metric \| -?[\d.]+ \|", text)
    assert f"\n{role}:\n  epochs: 10" in text
    assert "- Pascal-Part-116: Stand-in drawn by" in text
    assert "![What training logged over its steps](curves.png)" in text
    assert ModelCard(text).data.to_dict()["license"] == "apache-2.0", "drawn images and random weights"
    for written in ("README.md", "card.json"):
        assert str(config.output.parent) not in (folder / written).read_text()

    # Its code runs as it stands, in the model's own folder.
    for file in folder.glob("*.*"):
        if file.is_file():
            shutil.copy(file, tmp_path)
    Image.new("RGB", (320, 240), (90, 120, 60)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code_of(text), names)
    assert type(names["model"]).__name__ == ROLES[role]


def test_a_card_is_written_once_and_again_where_it_is_missing(config: TrainConfig) -> None:
    card = config.output / "descriptor" / "README.md"
    before = card.read_text()
    card.write_text("by a person")
    assert train_with_card("descriptor", config)["reused"]
    assert card.read_text() == "by a person"
    card.unlink()
    assert train_with_card("descriptor", config)["reused"]
    assert card.read_text() == before


def test_what_real_images_or_a_checkpoint_gave_is_under_their_terms(config: TrainConfig, tmp_path: Path) -> None:
    from talking_points.publishing.training_cards import trace_origins

    start = tmp_path / "omg"
    start.mkdir()
    assert trace_origins(config)["free"]
    for change in ({"dataset": "org/name"}, {"start": str(start)}):
        found = trace_origins(config.model_copy(update=change))
        assert not found["free"]
        assert str(tmp_path) not in json.dumps(found)
    sources = {"partimagenet": drawn_roots(tmp_path)["partimagenet"]}
    vision = config.vision.model_copy(update={"steps": 1, "sources": sources})
    real = trace_origins(config.model_copy(update={"vision": vision}))
    assert not real["free"], "nothing says that these images are drawn"
    assert [item["name"] for item in real["terms"]] == ["Pascal-Part-116", "PartImageNet"]


LOADED = """
import hashlib, sys
def digest(model):
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(name.encode() + tensor.numpy().tobytes())
    return found.hexdigest()
for card, folder in zip(sys.argv[1::2], sys.argv[2::2]):
    names = {}
    exec(card, names)
    model = names["model"]
    print(type(model).__name__, digest(model) == digest(type(model).from_pretrained(folder)))
"""


def test_a_model_is_published_and_loaded_by_the_id_of_the_hub(
    config: TrainConfig, reached: LocalHub, run: Run, tmp_path: Path
) -> None:
    """The code of the card that stands there loads it: both ways."""
    Image.new("RGB", (320, 240), (90, 120, 60)).save(tmp_path / "photo.jpg")
    scores = tmp_path / "ground_truth.json"
    scores.write_text(json.dumps({**REPORT, "predictions": [{"id": "1"}]}))
    cards: list[object] = []
    for role in ROLES:
        folder = config.output / role
        planned = CliRunner().invoke(app, ["publish-model", str(folder), f"org/{role}", "--dry-run"])
        assert planned.exit_code == 0, planned.output
        assert "  curves.png: " in planned.stdout
        assert not any(name == f"org/{role}" for _, name in reached.repositories)
        arguments = ["publish-model", str(folder), f"org/{role}", "--report", str(scores)]
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        (tag,) = reached.repository(f"org/{role}", "model").tags
        assert f"org/{role}, revision {tag} (a new repository is private)" in planned.stdout
        assert done.stdout.endswith(f"{folder} published at {reached.url}/org/{role}/tree/{tag}\n")
        assert CliRunner().invoke(app, arguments).exit_code == 0
        repository = reached.repository(f"org/{role}", "model")
        assert repository.private
        assert len(repository.commits) == 2, "published again, nothing is sent"
        held = repository.commits[-1].tree
        expected = {"README.md", "config.json", "curves.png", "model.safetensors", "preprocessor_config.json"}
        assert expected <= set(held)
        assert set(held) <= expected | {"tokenizer.json", "tokenizer_config.json", ".gitattributes"}
        texts = {name: (reached.objects / blob.digest).read_bytes() for name, blob in held.items()}
        for content in texts.values():
            assert str(config.output.parent).encode() not in content
            assert WRITER.encode() not in content
        card = texts["README.md"].decode()
        assert card_problems(card) == []
        assert "| ground truth | 4,000 | 78.8 |" in card
        cards += [code_of(card), folder]
    loaded = run(LOADED, *cards)
    assert loaded.stdout == "PointDescriptor True\nPointLocalizer True\n", loaded.stderr


def spoil(config: TrainConfig, folder: Path, name: str) -> Path:
    """The trained descriptor with something in it that must not go up."""
    shutil.copytree(config.output / "descriptor", folder, ignore=shutil.ignore_patterns("checkpoint-*"))
    settings = json.loads((folder / "config.json").read_text())
    if name == "path":
        settings["question"] = "/home/someone/prompt.txt"
    elif name == "secret":
        settings["api_token"] = "hf_abcdefghijklmnopqrstuvwxyz"
    elif name == "answerer":
        settings |= {"architectures": ["PointAnswerer"], "model_type": "capellm"}
    elif name == "header":
        weights = folder / "model.safetensors"
        save_file(load_file(weights), weights, metadata={"format": "pt", "from": "/home/someone/model.bin"})
    elif name == "pickle":
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    elif name == "torn":
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1])
    elif name == "card":
        (folder / "card.json").write_text('{"role": "descriptor", "name": "x", "repo": "org/other"}')
    elif name.startswith("link "):
        outside = folder.parent / "outside"
        outside.write_text('{"a": "PRIVATE"}')
        (folder / name[5:]).unlink(missing_ok=True)
        (folder / name[5:]).symlink_to(outside)
    elif name == "pipe":
        os.mkfifo(folder / "chat_template.jinja")
    elif name == "template":
        (folder / "chat_template.jinja").write_text("{# hf_abcdefghijklmnopqrstuvwxyz #}")
    elif name == "vocabulary":
        tokens = {"model": {"vocab": {"hf_abcdefghijklmnopqrstuvwxyz": 1}}}
        (folder / "tokenizer.json").write_text(json.dumps(tokens))
    elif name == "notes":
        content = json.loads((folder / "card.json").read_text())
        content["name"] = "hf_abcdefghijklmnopqrstuvwxyz"
        (folder / "card.json").write_text(json.dumps(content))
    if name != "link config.json":
        (folder / "config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("path", "names '/home/someone/prompt.txt', a place of this machine"),
        ("secret", "holds what looks like a secret"),
        ("header", "names '/home/someone/model.bin'"),
        ("pickle", "has no weights: model.safetensors is not there"),
        ("torn", "bytes instead of"),
        ("answerer", "is not that of a Point Answerer"),
        ("card", "the card of .* cannot be written"),
        ("link chat_template.jinja", "found a link out of the folder"),
        ("link special_tokens_map.json", "found a link out of the folder"),
        ("link curves.png", "is a link to .*outside"),
        ("link card.json", "found a link out of the folder"),
        ("pipe", "chat_template.jinja that cannot be read .*found a pipe"),
        ("template", "chat_template.jinja holds what looks like a secret"),
        ("vocabulary", "tokenizer.json holds what looks like a secret"),
        ("notes", "the card of .* holds what looks like a secret"),
    ],
)
def test_what_must_not_go_up_is_refused(
    config: TrainConfig, reached: LocalHub, tmp_path: Path, name: str, expected: str
) -> None:
    folder = spoil(config, tmp_path / "model", name)
    done = CliRunner().invoke(app, ["publish-model", str(folder), "org/model"])
    assert done.exit_code == 2, done.output
    assert re.search(expected, done.stderr), done.stderr
    assert "hf_abc" not in done.output
    assert not reached.repositories


def test_a_folder_without_a_card_gets_one_from_what_it_holds(config: TrainConfig, tmp_path: Path) -> None:
    from talking_points.publishing.model_release import prepare_model

    shutil.copytree(config.output / "localizer", tmp_path / "model")
    for name in ("README.md", "card.json"):
        (tmp_path / "model" / name).unlink()
    release = prepare_model(tmp_path / "model", "org/model")
    assert card_problems(release.card) == []
    assert "| eval metric |" in release.card
    assert release.tag == prepare_model(config.output / "localizer", "org/model").tag, "named after the weights alone"
