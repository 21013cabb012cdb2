"""What makes a run of retraining another run, and which of two runs is the champion afterwards."""

from __future__ import annotations

import ast
import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from talking_points.config import ConfigError
from talking_points.evaluation.champions import RetrainConfig
from talking_points.evaluation.digests import PACKAGE, digest_code, digest_images, digest_weights
from talking_points.evaluation.reports import Report
from talking_points.evaluation.retraining import Retraining
from talking_points.models.descriptor import PointDescriptor
from talking_points.models.localizer import PointLocalizer
from talking_points.sources import SourceError
from talking_points.training.config import VisionConfig
from tests.publishing.local_hub import LocalHub
from tests.training.conftest import small, write_dataset


def retraining(folder: Path, dataset: str, revision: str | None = None, **fields: Any) -> Retraining:
    train = {"output": folder, "dataset": dataset, "revision": revision, **fields}
    return Retraining(RetrainConfig.model_validate({"folder": folder, "train": train}))


def test_new_data_on_the_hub_is_a_new_run(reached: LocalHub, tmp_path: Path) -> None:
    repository = reached.create("org/name", private=False)
    before = retraining(tmp_path, "org/name")
    assert before.train.revision == repository.branches["main"]
    assert retraining(tmp_path, "org/name").fingerprint == before.fingerprint
    repository.tags["v1"] = repository.branches["main"]
    _upload("org/name")
    after = retraining(tmp_path, "org/name")
    assert after.train.revision == repository.branches["main"] != before.train.revision
    assert after.fingerprint != before.fingerprint
    assert retraining(tmp_path, "org/name", "v1").fingerprint == before.fingerprint, "a tag is a commit by another name"
    reached.served.clear()
    assert retraining(tmp_path, "org/name", before.train.revision).fingerprint == before.fingerprint
    assert not reached.served, "a commit needs no Hub"


def _upload(repo: str) -> None:
    from huggingface_hub import HfApi

    HfApi().upload_file(path_or_fileobj=b"rows", path_in_repo="data/rows.txt", repo_id=repo, repo_type="dataset")


def test_new_data_in_a_folder_is_a_new_run(tmp_path: Path) -> None:
    data = tmp_path / "dataset" / "data"
    data.mkdir(parents=True)
    before = retraining(tmp_path, str(data.parent)).fingerprint
    (data / "train-00000-of-00001.parquet").write_bytes(b"rows")
    assert retraining(tmp_path, str(data.parent)).fingerprint != before


@pytest.mark.parametrize(("dataset", "revision"), [("org/absent", None), ("org/name", "v9"), ("not/a/name", None)])
def test_a_dataset_that_is_nowhere(reached: LocalHub, tmp_path: Path, dataset: str, revision: str | None) -> None:
    reached.create("org/name", private=False)
    with pytest.raises(ConfigError, match=f"cannot find the dataset {dataset} at {revision or 'main'}"):
        retraining(tmp_path, dataset, revision)


@pytest.fixture(scope="module")
def inputs(drawn: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that a run reads, in one folder: a dataset, a source with label maps and one without, a start, the code."""
    folder = tmp_path_factory.mktemp("inputs")
    for name in ("pascal_part116", "partimagenet"):
        shutil.copytree(drawn[name], folder / name)
    for name in ("dataset/data/train-00000-of-00001.parquet", "start/model.safetensors", "start/config.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"first")
    shutil.copytree(PACKAGE, folder / "code", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def run_of(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The fingerprint of a run on ``inputs`` as they are now."""
    monkeypatch.setattr("talking_points.evaluation.retraining.digest_code", partial(digest_code, inputs / "code"))
    vision = {"steps": 1, "sources": {name: inputs / name for name in ("pascal_part116", "partimagenet")}}
    given = {"vision": vision, "start": str(inputs / "start"), "preset": "paper"}
    return lambda **fields: retraining(tmp_path, str(inputs / "dataset"), **(given | fields)).fingerprint


def test_nothing_new_is_no_new_run(inputs: Path, run_of: Callable[..., str]) -> None:
    before = run_of()
    for path in inputs.rglob("*"):
        os.utime(path, (1, 1))  # as of a copy that keeps no times
    assert run_of() == before
    assert run_of(threads=1) == run_of(features={"limit_gb": 3}) == before, "of no influence on the weights"


@pytest.mark.parametrize(
    "changed",
    [
        "dataset/data/*.parquet", "start/model.safetensors", "start/config.json",
        "pascal_part116/images/*/*.jpg", "pascal_part116/annotations_detectron2_part/*/*.png",
        "partimagenet/**/*.JPEG", "partimagenet/**/train.json",
        *(f"code/{file}" for file in (
            "records.py", "config.py", "candidates/spatial.py", "descriptions/verification.py", "sources/images.py",
            "sources/labels/partimagenet.json", "models/base.py", "examples/features.py", "evaluation/pck.py",
        )),
    ],
)  # fmt: skip
def test_what_a_run_reads_is_known_by_its_content(inputs: Path, run_of: Callable[..., str], changed: str) -> None:
    """A change that keeps name, size and time of a file is a change."""
    before = run_of()
    path = sorted(inputs.glob(changed))[0]
    content, status = path.read_bytes(), path.stat()
    other = content.replace(b'"width": 4', b'"width": 3', 1) if path.name == "train.json" else content[:-1] + b"#"
    assert len(other) == len(content)
    try:
        path.write_bytes(other)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert run_of() != before
    finally:
        path.write_bytes(content)
    assert run_of() == before


@pytest.mark.parametrize(
    "fields", [{"seed": 1}, {"limit": 5}, {"localizer": {"learning_rate": 0.5}}, {"start_revision": "v2"}]
)
def test_another_configuration_is_a_new_run(run_of: Callable[..., str], fields: dict[str, Any]) -> None:
    assert run_of(**fields) != run_of()


def test_the_code_of_a_run_is_all_that_training_and_evaluation_can_reach(tmp_path: Path) -> None:
    def module(name: str) -> Path | None:
        path = PACKAGE.parent / name.replace(".", "/")
        return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)

    waiting = [*PACKAGE.glob("training/*.py"), *PACKAGE.glob("evaluation/*.py"), *PACKAGE.glob("models/**/*.py")]
    reached: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path in reached:
            continue
        reached.add(path)
        for node in ast.walk(ast.parse(path.read_text())):  # imports inside functions too
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            waiting += [file for name in names if name.startswith("talking_points") and (file := module(name))]
    assert {path.relative_to(PACKAGE).parts[0] for path in reached} >= {"candidates", "descriptions", "sources"}
    shutil.copytree(PACKAGE, tmp_path / "code", ignore=shutil.ignore_patterns("__pycache__"))
    before = digest_code(tmp_path / "code")
    for path in reached:
        copy = tmp_path / "code" / path.relative_to(PACKAGE)
        content = copy.read_bytes()
        copy.write_bytes(content + b"#")
        assert digest_code(tmp_path / "code") != before, path
        copy.write_bytes(content)
    (tmp_path / "code" / "publishing" / "card.py").write_text("# other words on a card")
    assert digest_code(tmp_path / "code") == before


def test_inputs_that_are_not_there(tmp_path: Path) -> None:
    nowhere = VisionConfig(sources={"partimagenet": tmp_path / "absent"})
    assert digest_images(nowhere) is None, "without pretraining no image is looked at"
    with pytest.raises(SourceError, match="absent"):
        digest_images(nowhere.model_copy(update={"steps": 1}))
    assert digest_weights(None) is digest_weights("org/on-the-hub") is None
    with pytest.raises(ConfigError, match="is empty"):
        digest_weights(str(tmp_path))


def test_a_blind_localizer_is_no_challenger(tmp_path: Path) -> None:
    train = {"output": tmp_path, "dataset": str(tmp_path), "localizer": {"blind": True}}
    with pytest.raises(ValueError, match="expected a localizer that sees images"):
        RetrainConfig.model_validate({"folder": tmp_path, "train": train})


# ---------------------------------------------------------------------- champion against challenger

MANY, FEW, NOWHERE = (5.0, 5.0), (40.0, 5.0), (45.0, 38.0)
"""Where points are, in pixels of images of 50x40: five at the first place, three at the second, none at the third."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset, a descriptor, and localizers that always point at one place."""
    folder = tmp_path_factory.mktemp("judged")
    write_dataset(folder / "dataset", places=[MANY, FEW, MANY, FEW, MANY, FEW, MANY, MANY], split="test")
    descriptor = small(PointDescriptor)
    descriptor.config.max_new_tokens = 4
    descriptor.save_pretrained(folder / "descriptor")
    for name, place in {"many": MANY, "few": FEW, "nowhere": NOWHERE}.items():
        localizer = small(PointLocalizer, seed=1)
        assert isinstance(localizer, PointLocalizer)
        with torch.no_grad():
            localizer.coordinate_head.output.weight.zero_()
            localizer.coordinate_head.output.bias.copy_(torch.tensor([place[0] / 50, place[1] / 40]).logit())
        localizer.save_pretrained(folder / name)
    return folder


def trained(folder: Path, models: Path, localizer: str, seed: int, *, control: bool = True) -> Retraining:
    """A run whose models are there: the descriptor, the named localizer, and one that finds nothing as its control."""
    train: dict[str, Any] = {"output": folder, "dataset": str(models / "dataset"), "seed": seed}
    train["features"] = {"folder": str(models / "features"), "limit_gb": 1.0}
    run = Retraining(RetrainConfig.model_validate({"folder": folder, "train": train}))
    stages = {"descriptor": "descriptor", "localizer": localizer} | ({"text-only": "nowhere"} if control else {})
    for stage, model in stages.items():
        shutil.copytree(models / model, run.run / stage)
    return run


@pytest.mark.parametrize(
    ("champion", "challenger", "difference", "promoted"),
    [
        ("nowhere", "many", 62.5, True),
        ("many", "nowhere", -62.5, False),
        ("few", "many", 25.0, False),  # better on five points, worse on three: within the interval
        ("many", "many", 0.0, False),
    ],
)
def test_only_what_is_better_beyond_its_interval_is_promoted(
    models: Path, tmp_path: Path, champion: str, challenger: str, difference: float, promoted: bool
) -> None:
    first, second = trained(tmp_path, models, champion, 1), trained(tmp_path, models, challenger, 2)
    entry = first.judge()
    assert entry["promoted"], "the first run needs no opponent"
    first.conclude(entry)
    entry = second.judge()
    found = entry["difference"]
    assert entry["against"] == first.fingerprint
    assert found["difference"] == pytest.approx(difference)
    assert found["points"] == 8
    assert found["interval"]["low"] <= difference <= found["interval"]["high"]
    assert (found["interval"]["low"] > 0) is promoted
    assert entry["promoted"] is promoted
    second.conclude(entry)
    winner = second if promoted else first
    assert second.champion is not None
    assert second.champion["run"] == winner.fingerprint
    assert [row["promoted"] for row in second.history()] == [True, promoted]


def test_both_runs_are_set_above_a_text_only_control(models: Path, tmp_path: Path) -> None:
    """Champions of before have no control of their own: that of the challenger is taken."""
    older, newer = trained(tmp_path, models, "few", 1, control=False), trained(tmp_path, models, "many", 2)
    champion = {"run": older.fingerprint, "mpck": 37.5, "previous": None}
    (tmp_path / "champion.json").write_text(json.dumps(champion))
    row = {"run": older.fingerprint, "at": "2026-01-01", "mpck": 37.5, "interval": {"low": 0.0, "high": 75.0}}
    row |= {"points": 8, "against": None, "difference": None, "promoted": True}
    (tmp_path / "history.jsonl").write_text(json.dumps(row) + "\n")
    entry = newer.judge()
    newer.conclude(entry)
    assert entry["above_text_only"]["difference"] == pytest.approx(62.5)
    for folder, above in ((newer.evaluation, 62.5), (newer.run / "champion", 37.5)):
        for name in ("descriptor", "ground_truth"):
            report = Report.load(folder / f"{name}.json")
            assert report.controls["text_only"] == 0
            assert report.above_text_only is not None
            assert report.above_text_only["difference"] == pytest.approx(above)
    lines = (tmp_path / "history.md").read_text().splitlines()
    assert "| above text only |" in lines[0]
    assert "| 0.0 to 75.0 |  |" in lines[2]
    assert "| +62.50 |" in lines[3]
