"""The commands that look at finished builds and evaluations, as people call them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from commands import publish_commands, report_commands, show_row  # noqa: F401  (they add their commands)
from commands.console import app
from talking_points.evaluation.pck import MP100
from talking_points.evaluation.reports import evaluate_predictions
from tests.publishing.small_dataset import write_dataset
from tests.training.conftest import points


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "160"})


def test_report_prints_what_it_wrote(tmp_path: Path) -> None:
    output = write_dataset(tmp_path / "dataset")
    done = run("report", output, "--seed", 3)
    assert done.exit_code == 0, done.output
    written = [Path(line) for line in done.stdout.splitlines()]
    assert [path.name for path in written] == ["index.html", "examples.png", "close_ups.png", "quality.json"]
    assert all(path.is_file() for path in written)


def test_a_row_is_shown_as_people_read_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_row.main(str(write_dataset(tmp_path / "dataset")))
    printed = capsys.readouterr().out
    assert re.search(r"^  image: (JPEG|PNG) of \d+ x \d+ pixels$", printed, flags=re.MULTILINE)
    assert re.search(r"^  source: [a-z]\w+$", printed, flags=re.MULTILINE), "its name, not its number"
    assert not re.search(r"\d\.\d{7}", printed), "no digits that mean nothing"


def test_compare_prints_the_numbers_side_by_side_and_writes_a_page(tmp_path: Path) -> None:
    first = write_dataset(tmp_path / "a")
    second = write_dataset(tmp_path / "b", rows={"train": 6})
    page = tmp_path / "ab.html"
    done = run("compare", first, second, "--html", page)
    assert done.exit_code == 0, done.output
    assert "self-BLEU" in done.stdout
    assert (
        "texts that are the same: 6, that differ: 0; rows in the first only: 12, in the second only: 0" in done.stdout
    )
    assert done.stdout.splitlines()[-1] == str(page)
    assert page.read_text().startswith("<!doctype html>")


def test_an_audit_without_answers_says_how_to_collect_them(tmp_path: Path) -> None:
    done = run("audit", write_dataset(tmp_path / "dataset", rows={"test": 2}), "--report")
    assert done.exit_code == 0, done.output
    assert "no answers yet: run this command without --report" in done.stdout
    assert "report in" not in done.stdout


def test_tables_prints_what_it_wrote(tmp_path: Path) -> None:
    data = points(4, 2)
    ours = evaluate_predictions("ours", data, data.keypoints)
    ours.save(tmp_path / "ours.json")
    evaluate_predictions("other", data, data.keypoints, definition=MP100).save(tmp_path / "mp100.json")
    done = run("tables", tmp_path / "tables", f"human={tmp_path / 'ours.json'}")
    assert done.exit_code == 0, done.output
    written = [Path(line) for line in done.stdout.splitlines()]
    assert [path.name for path in written] == ["tables.md", "tables.tex", "figure_1.png"]
    assert all(path.is_file() for path in written)
    assert f"| human | 56.00 |  |  | {ours.mpck:.2f} |" in written[0].read_text()
    for arguments, message in (
        (["people=ours.json"], "expected one of omg_llava"),
        ([f"human={tmp_path / 'ours.json'}", f"gpt={tmp_path / 'mp100.json'}"], "definitions of PCK"),
    ):
        done = run("tables", tmp_path / "others", *arguments)
        assert done.exit_code == 2
        assert message in done.stderr
    assert not (tmp_path / "others").exists()


@pytest.mark.parametrize("arguments", [["report", "."], ["compare", ".", "."]])
def test_a_folder_without_a_dataset_is_wrong_input(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert done.exit_code == 2
    assert "manifest.json" in done.stderr
