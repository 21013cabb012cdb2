"""Which models of a series of runs go to the Hub, with which card, under which tag."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from talking_points.config import ConfigError, load_config
from talking_points.errors import InputError
from talking_points.evaluation.champions import restore_previous
from talking_points.evaluation.retraining import Retraining
from talking_points.evaluation.retraining_config import RetrainConfig
from talking_points.publishing.hub import PublishError
from talking_points.sources.drawn import draw_sample, drawn_roots
from talking_points.training.config import TrainConfig
from tasks.evaluate import judge
from tasks.model_cards import write_model_cards
from tasks.publish_models import publish_champion
from tests.publishing.hub_card import card_problems
from tests.publishing.local_hub import LocalHub
from tests.publishing.test_model_card import report
from tests.publishing.test_model_release import held, write_model

BOTH: dict[str, Any] = {"descriptor": "org/descriptor", "localizer": "org/localizer"}


def trained(folder: Path, seed: int, drawn: bool = False, **publish: Any) -> Retraining:
    """A run whose models are trained and evaluated, but not judged. Every seed has other weights."""
    dataset = folder / "dataset"
    dataset.mkdir(parents=True, exist_ok=True)
    manifest = {"name": "LlamaPointInPart", "sources": {"partimagenet": {"drawn": drawn}}}
    (dataset / "manifest.json").write_text(json.dumps(manifest))
    train = TrainConfig.model_validate(
        {"output": folder, "dataset": str(dataset), "seed": seed, "features": {"folder": str(folder / "features")},
         "vision": {"steps": 5, "sources": {"partimagenet": str(images(folder))}}}
    )  # fmt: skip
    retraining = Retraining(RetrainConfig.model_validate({"folder": folder, "train": train, "publish": publish}))
    for role in BOTH:
        write_model(retraining.run / role, {"model.safetensors": weights(seed, role)})
    retraining.evaluation.mkdir(exist_ok=True)
    for name, mpck in (("ground_truth", 78.83), ("descriptor", 61.25)):
        found = report(name, mpck=mpck, predictions=[{"id": "1", "distance": 0.5}])
        (retraining.evaluation / f"{name}.json").write_text(json.dumps(found))
    return retraining


def images(folder: Path) -> Path:
    """A source of the vision path, drawn once."""
    root = drawn_roots(folder / "images")["partimagenet"]
    if not root.exists():
        draw_sample(folder / "images", 1, sources=["partimagenet"])
    return root


def judged(folder: Path, seed: int, promoted: bool, **publish: Any) -> Retraining:
    retraining = trained(folder, seed, **publish)
    write_model_cards(retraining)
    assert not (retraining.run / "answerer").exists(), "a card for a model that no run of retraining makes"
    retraining.conclude(verdict(retraining, promoted))
    return retraining


def verdict(retraining: Retraining, promoted: bool) -> dict[str, Any]:
    champion = retraining.champion
    return {
        "run": retraining.fingerprint,
        "at": "2026-01-01T00:00:00",
        "mpck": 61.25,
        "points": 4000,
        "against": None if champion is None else champion["run"],
        "interval": {"low": 59.0, "high": 63.0},
        "difference": None,
        "promoted": promoted,
    }


def weights(seed: int, role: str) -> bytes:
    return f"weights of {role} {seed}".encode()


def weights_on(hub: LocalHub, repo: str) -> str:
    return held(hub.repository(repo, "model"), "main")["model.safetensors"]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_cards_say_how_good_the_models_are_and_what_they_come_from(tmp_path: Path) -> None:
    retraining = judged(tmp_path, 1, promoted=True)
    cards = {role: (retraining.run / role / "README.md").read_text() for role in BOTH}
    for role, card in cards.items():
        assert card_problems(card) == []
        assert "Trained on LlamaPointInPart at revision" in card
        assert "Starts from random weights." in card
        assert "preset: tiny" in card
        assert f"\n{role}:\n" in card
        assert "- partimagenet" in card
        assert "![What training logged over its steps](curves.png)" in card
        assert str(tmp_path) not in card
        assert f"Point{role.capitalize()}.from_pretrained" in card
    main = {role: ModelCard(card).data.to_dict()["model-index"][0] for role, card in cards.items()}
    assert main["descriptor"]["name"] == f"point-descriptor-tiny-{retraining.fingerprint}"
    first = {role: index["results"][0]["metrics"][0] for role, index in main.items()}
    assert first["descriptor"]["name"] == "mPCK (talking_points, descriptor)"
    assert (first["descriptor"]["value"], first["localizer"]["value"]) == (61.25, 78.83)
    assert "| descriptor | 4,000 | 61.2 | 77.0 to 80.1 |" in cards["localizer"]


def test_a_card_says_where_the_dataset_was_built_on_drawings(tmp_path: Path) -> None:
    retraining = trained(tmp_path, 1, drawn=True)
    write_model_cards(retraining)
    card = (retraining.run / "descriptor" / "README.md").read_text()
    assert "Trained on LlamaPointInPart, built on drawn stand-ins for its sources, at revision" in card


def test_no_run_ends_without_its_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    retraining = trained(tmp_path, 1)
    monkeypatch.setattr(Retraining, "judge", lambda self: verdict(self, True))
    kept = (retraining.evaluation / "descriptor.json").read_text()
    (retraining.evaluation / "descriptor.json").unlink()
    with pytest.raises(FileNotFoundError):
        judge.fn(retraining)
    assert retraining.find_finished() is None
    assert retraining.champion is None
    (retraining.evaluation / "descriptor.json").write_text(kept)
    assert judge.fn(retraining)["promoted"]
    assert retraining.find_finished() is not None
    assert (retraining.run / "localizer" / "README.md").exists()


def test_the_champion_is_published_and_a_challenger_that_lost_is_not(reached: LocalHub, tmp_path: Path) -> None:
    first = judged(tmp_path, 1, promoted=True, **BOTH)
    lost = judged(tmp_path, 2, promoted=False, **BOTH)
    addresses = publish_champion.fn(lost)
    assert addresses == {role: f"{reached.url}/{repo}/tree/{first.fingerprint}" for role, repo in BOTH.items()}
    for role, repo in BOTH.items():
        repository = reached.repository(repo, "model")
        assert repository.private
        assert repository.tags == {first.fingerprint: repository.branches["main"]}
        assert weights_on(reached, repo) == digest(weights(1, role))
        card = (reached.objects / held(repository, "main")["README.md"]).read_text()
        assert f'from_pretrained("{repo}")' in card
        assert not (reached.objects / digest(weights(2, role))).exists()

    better = judged(tmp_path, 3, promoted=True, **BOTH)
    publish_champion.fn(better)
    assert set(reached.repository("org/localizer", "model").tags) == {first.fingerprint, better.fingerprint}
    assert weights_on(reached, "org/localizer") == digest(weights(3, "localizer"))
    restore_previous(better.folder)
    publish_champion.fn(better)
    assert weights_on(reached, "org/localizer") == digest(weights(1, "localizer"))


def test_nothing_is_published_from_a_folder_that_is_no_run(reached: LocalHub, tmp_path: Path) -> None:
    retraining = judged(tmp_path, 1, promoted=True, **BOTH)
    private = tmp_path.parent / f"{tmp_path.name}-private"
    shutil.copytree(retraining.run, private)
    champion = {"run": f"../../{private.name}", "mpck": 61.25, "previous": None}
    (retraining.folder / "champion.json").write_text(json.dumps(champion))
    before = len(reached.served)
    with pytest.raises(InputError, match=r"champion.json is damaged.*run: String should match"):
        publish_champion.fn(retraining)
    assert len(reached.served) == before


def test_cut_between_the_two_models_then_run_again(reached: LocalHub, tmp_path: Path) -> None:
    run = judged(tmp_path, 1, promoted=True, **BOTH)
    with reached.fault("POST /api/models/org/localizer/commit/", "drop", times=100), pytest.raises(PublishError):
        publish_champion.fn(run)
    assert reached.repository("org/descriptor", "model").tags
    assert not reached.repository("org/localizer", "model").tags
    publish_champion.fn(run)
    assert [len(reached.repository(repo, "model").commits) for repo in BOTH.values()] == [2, 2]
    assert reached.repository("org/localizer", "model").tags


def test_one_model_alone(reached: LocalHub, tmp_path: Path) -> None:
    run = judged(tmp_path, 1, promoted=True, descriptor="org/descriptor", private=False)
    assert list(publish_champion.fn(run)) == ["descriptor"]
    assert set(reached.repositories) == {("model", "org/descriptor")}
    assert not reached.repository("org/descriptor", "model").private


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["publish.descriptor=point-descriptor"], "publish.descriptor"),
        (["publish.descriptor=org/model", "publish.localizer=org/model"], "one repository for each model"),
        (["publish.token=hf_secret"], "no such setting"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, settings: list[str], message: str) -> None:
    given = [f"folder={tmp_path}", f"train.output={tmp_path}", f"train.dataset={tmp_path}"]
    with pytest.raises(ConfigError, match=message):
        load_config(RetrainConfig, None, [*given, *settings])


def test_publishing_is_off_by_default_and_makes_no_other_run(tmp_path: Path) -> None:
    assert trained(tmp_path, 1).config.publish.repositories == {}
    assert trained(tmp_path, 1).fingerprint == trained(tmp_path, 1, **BOTH).fingerprint
