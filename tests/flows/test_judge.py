"""The optional judge, and texts that say almost the same: what they add, what they reject, and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from talking_points.dataset_schema import COLUMNS, features
from talking_points.errors import InputError
from talking_points.models.localizer import PointLocalizer
from talking_points.models.presets import tiny_config, train_tokenizer
from talking_points.publishing.quality import write_quality_report
from talking_points.publishing.release import prepare_release
from tests.batch_server import BatchServer, Line, answer_line, serving_batches
from tests.fault_server import MODEL
from tests.flows.building import build, data_digests, is_kept, made

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("orchestrator")]
GIVEN = ("limit=6", "shard_size=3", "resume=if_possible", "verification.max_rejected_share=1")


@pytest.fixture(scope="module")
def built(drawn: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build without a judge."""
    output = tmp_path_factory.mktemp("judge") / "out"
    build(output, drawn, *GIVEN)
    return output


def rows_of(output: Path) -> list[dict]:
    return [row for path in sorted((output / "data").iterdir()) for row in pq.read_table(path).to_pylist()]


def test_the_localizer_judges_through_its_own_files(drawn, built: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    tokenizer = train_tokenizer([row["description"] for row in rows_of(built)], 300)
    localizer = PointLocalizer(tiny_config(tokenizer)).eval()
    localizer.tokenizer = tokenizer
    localizer.save_pretrained(tmp_path / "localizer")
    before, plain = rows_of(built), data_digests(built)
    output = tmp_path / "out"
    shutil.copytree(built, output)
    with pytest.raises(InputError, match=r"judge\.model: expected a Point Localizer"):
        build(output, drawn, *GIVEN, f"judge={{by: localizer, model: {tmp_path / 'nothing'}}}")

    judge = f"judge={{by: localizer, model: {tmp_path / 'localizer'}}}"
    build(output, drawn, *GIVEN, judge)
    assert {"judge": 2, "assemble": 1}.items() <= made(output).items()
    assert is_kept(output, drawn, *GIVEN, judge)
    assert not is_kept(output, drawn, *GIVEN, judge.replace("}", ", normalizer: bbox_max_side}"))
    after = rows_of(output)
    scores = [row.pop("judge_score") for row in after]
    assert after == before
    pixels = [np.asarray(datasets.Image().decode_example(row["image"]).convert("RGB")) for row in before]
    found = localizer.localize(pixels, [row["description"] for row in before])
    away = (found - [row["keypoint"] for row in before]) / [(r["image_width"], r["image_height"]) for r in before]
    assert scores == pytest.approx(np.clip(1 - np.linalg.norm(away, axis=1), 0, 1), abs=1e-4)

    manifest = json.loads((output / "manifest.json").read_text())
    assert sum(manifest["judge"]["histogram"].values()) == len(after)
    assert "judge_score" in (output / "README.md").read_text()
    loaded = datasets.load_dataset(str(output))
    assert set(loaded["train"].features) == {*COLUMNS, "judge_score"}
    assert loaded["train"].features["keypoint"] == features()["keypoint"]
    page = write_quality_report(output)[0].read_text()
    assert "<h2>Judge</h2>" in page
    release = prepare_release(output, "org/name", tmp_path / "work", images="reference", allow_partial=True)
    assert any("parquet" in name for name in release.files)
    copied = pq.read_table(next((tmp_path / "work").rglob("*.parquet")))
    assert "judge_score" in copied.column_names

    # Without the judge the bytes are those of before; with a threshold, rows go with their reason.
    build(output, drawn, *GIVEN)
    assert data_digests(output) == plain
    middle = sorted(scores)[3]
    kept = sum(score >= middle for score in scores)
    result = build(output, drawn, *GIVEN, judge.replace("}", f", reject_below: {middle:.6f}}}"))
    assert abs(result["rows"] - kept) <= 1
    rejected = pq.read_table(output / "rejected" / "judge.parquet").to_pylist()
    assert {row["reason"] for row in rejected} == {"judged_too_low"}
    assert result["rows"] + len(rejected) == len(scores)
    assert all(row["text"] and "below" in row["detail"] for row in rejected)


def test_a_model_judges_and_what_it_does_not_say_is_no_score(drawn, built: Path, tmp_path: Path) -> None:
    def answers(number: int, lines: list[Line]) -> list[Line | bytes]:
        said = ["5", "Score: 2", "great!", "4/5", "1", '{"score": 3}']
        return [answer_line(line, said[at] if not number else "great!") for at, line in enumerate(lines)]

    output = tmp_path / "out"
    shutil.copytree(built, output)
    with serving_batches(BatchServer(answers=answers)) as server:
        step = f"backend: openai, model: {MODEL}, endpoint: '{server.url}', batch: {{poll: 0.05}}"
        result = build(output, drawn, *GIVEN, f"judge={{{step}, reject_below: 2, shows: crop}}")
        assert [len(server.lines(batch)) for batch in server.batches.values()] == [6, 1]
        assert made(output) == {"judge": 2, "assemble": 1}
    # With the server gone.
    assert is_kept(output, drawn, *GIVEN, f"judge={{{step}, reject_below: 2, shows: crop}}")
    assert not is_kept(output, drawn, *GIVEN, f"judge={{{step}, reject_below: 3, shows: crop}}")
    scores = sorted((row["judge_score"] for row in rows_of(output)), key=lambda score: score or 0)
    assert scores == [None, 2.0, 3.0, 4.0, 5.0], "a row without a score stays"
    assert result["rejected"] == 1
    judge = json.loads((output / "manifest.json").read_text())["judge"]
    assert judge["histogram"] == {"1": 0, "2": 1, "3": 1, "4": 1, "5": 1}
    assert judge["unscored"] == {"malformed_score": 1}
    assert "url" not in json.dumps(judge)


def test_near_duplicates_are_counted_and_left_out_where_that_is_set(drawn, built: Path, tmp_path: Path) -> None:
    output, plain = tmp_path / "out", data_digests(built)
    shutil.copytree(built, output)
    build(output, drawn, *GIVEN, "near_duplicates={threshold: 0.1}")
    assert data_digests(output) == plain
    found = json.loads((output / "manifest.json").read_text())["near_duplicates"]
    assert found["rows"] > found["groups"] > 0, "the rules' texts are of one pattern"
    result = build(output, drawn, *GIVEN, "near_duplicates={threshold: 0.1, remove: true}")
    assert made(output) == {"assemble": 1}
    rejected = pq.read_table(output / "rejected" / "assemble.parquet").to_pylist()
    assert len(rejected) == result["rejected"] == found["rows"] - found["groups"] == 6 - result["rows"]
    kept = {row["id"] for row in rows_of(output)}
    assert all(row["reason"] == "near_duplicate" and row["detail"].split()[-1] in kept for row in rejected)
    assert "were left out" in (output / "README.md").read_text()
