"""A branch that moves while a process reads: all files are of one commit, never some of one and some of the next."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from talking_points.models.localizer import PointLocalizer
from tests.publishing.conftest import Run
from tests.publishing.local_hub import LocalHub
from tests.training.conftest import small, write_dataset

READ = """
import json, sys
from talking_points.examples.points import load_points
from talking_points.models.localizer import PointLocalizer
found = {"model": float(next(PointLocalizer.from_pretrained("org/model").parameters()).sum())}
for split in ("train", "test"):
    found[split] = [example.text for example in load_points("org/data", split).examples][:1]
print(json.dumps(found))
"""


@pytest.mark.slow
def test_a_branch_that_moves_meanwhile_is_read_as_it_was(reached: LocalHub, run: Run, tmp_path: Path) -> None:
    sums = {}
    for kind, name in (("model", "org/model"), ("dataset", "org/data")):
        repository = reached.create(name, private=True, kind=kind)
        for number, text in enumerate(("first", "second")):
            folder = tmp_path / kind / text
            if kind == "model":
                model = small(PointLocalizer, seed=number)
                model.save_pretrained(folder)
                sums[text] = float(next(model.parameters()).detach().sum())
            else:
                write_dataset(folder, description=text)
                train = next((folder / "data").glob("train-*"))
                (train.parent / train.name.replace("train", "test")).write_bytes(train.read_bytes())
            HfApi().upload_folder(folder_path=folder, repo_id=name, repo_type=kind)
        repository.branches["main"] = repository.commits[1].oid
    assert sums["first"] != sums["second"]

    def move(kind: str, name: str) -> None:
        repository = reached.repository(name, kind)
        repository.branches["main"] = repository.commits[2].oid

    # The first file of each is asked for by the commit that was found; then the branch moves.
    with (
        reached.fault(r"org/model/resolve/", "call", call=lambda: move("model", "org/model")),
        reached.fault(r"org/data/resolve/", "call", call=lambda: move("dataset", "org/data")),
    ):
        done = run(READ)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["model"] == pytest.approx(sums["first"])
    assert found["train"] == found["test"] == ["first"]
    for kind, name in (("model", "org/model"), ("dataset", "org/data")):
        repository = reached.repository(name, kind)
        assert repository.branches["main"] == repository.commits[2].oid, "it has moved"
