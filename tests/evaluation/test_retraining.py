"""What makes a run of retraining another run."""

from __future__ import annotations

import ast
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from talking_points.config import ConfigError
from talking_points.evaluation.digests import PACKAGE, code_digest, pictures_digest, weights_digest
from talking_points.evaluation.retraining import RetrainConfig, Retraining
from talking_points.sources import SourceError
from talking_points.training.config import VisionConfig
from tests.publishing.local_hub import LocalHub


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
    monkeypatch.setattr("talking_points.evaluation.retraining.code_digest", partial(code_digest, inputs / "code"))
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
            "sources/labels/partimagenet.json", "models/base.py", "training/features.py", "evaluation/pck.py",
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
    before = code_digest(tmp_path / "code")
    for path in reached:
        copy = tmp_path / "code" / path.relative_to(PACKAGE)
        content = copy.read_bytes()
        copy.write_bytes(content + b"#")
        assert code_digest(tmp_path / "code") != before, path
        copy.write_bytes(content)
    (tmp_path / "code" / "publishing" / "card.py").write_text("# other words on a card")
    assert code_digest(tmp_path / "code") == before


def test_inputs_that_are_not_there(tmp_path: Path) -> None:
    nowhere = VisionConfig(sources={"partimagenet": tmp_path / "absent"})
    assert pictures_digest(nowhere) is None, "without pretraining no picture is looked at"
    with pytest.raises(SourceError, match="absent"):
        pictures_digest(nowhere.model_copy(update={"steps": 1}))
    assert weights_digest(None) is weights_digest("org/on-the-hub") is None
    with pytest.raises(ConfigError, match="is empty"):
        weights_digest(str(tmp_path))
