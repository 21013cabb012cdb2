"""What makes a run of retraining another run."""

from __future__ import annotations

from pathlib import Path

import pytest

from talking_points.config import ConfigError
from talking_points.evaluation.retraining import RetrainConfig, Retraining
from tests.publishing.local_hub import LocalHub


def retraining(folder: Path, dataset: str, revision: str | None = None) -> Retraining:
    train = {"output": folder, "dataset": dataset, "revision": revision}
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
