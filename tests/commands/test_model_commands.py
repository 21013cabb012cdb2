"""``convert-omg-llava``, ``describe`` and ``localize`` on tiny models in folders, as people call them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import commands.cli  # noqa: F401  (adds the commands to the application)
from commands.console import app
from talking_points.models.descriptor import PointDescriptor
from talking_points.models.localizer import PointLocalizer
from talking_points.models.presets import tiny_config, train_tokenizer


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An untrained Point Descriptor and Point Localizer, and an image."""
    root = tmp_path_factory.mktemp("models")
    tokenizer = train_tokenizer(["The point is on the dog."], 400)
    made = {"image": str(root / "image.png")}
    pixels = np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8)
    Image.fromarray(pixels).save(made["image"])
    for name, kind in (("descriptor", PointDescriptor), ("localizer", PointLocalizer)):
        torch.manual_seed(0)
        model = kind(tiny_config(tokenizer))
        model.config.max_new_tokens = 8
        model.tokenizer = tokenizer
        model.save_pretrained(root / name)
        made[name] = str(root / name)
    return made


def run(*arguments: str) -> tuple[int, str]:
    """Exit code, and what was printed: the answer on success, the message otherwise."""
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stderr if result.exit_code else result.stdout


def test_describe_prints_a_text_and_draws_it(folders: dict[str, str], tmp_path: Path) -> None:
    figure = tmp_path / "figure.png"
    code, output = run(
        "describe", folders["image"], "30", "20", "--model", folders["descriptor"], "--figure", str(figure)
    )
    assert code == 0, output
    assert Image.open(figure).width == 640


def test_localize_prints_a_point_of_the_image(folders: dict[str, str], tmp_path: Path) -> None:
    figure = tmp_path / "figure.png"
    code, output = run(
        "localize", folders["image"], "the nose of the dog", "--model", folders["localizer"], "--figure", str(figure)
    )
    assert code == 0, output
    x, y = map(float, output.splitlines()[-1].split()[-2:])
    assert -0.5 <= x < 89.5
    assert -0.5 <= y < 59.5
    assert figure.exists()


@pytest.mark.parametrize(("x", "y"), [("90", "20"), ("3", "60"), ("-4", "2")])
def test_a_point_outside_the_image_is_refused(folders: dict[str, str], x: str, y: str) -> None:
    code, output = run("describe", "--model", folders["descriptor"], "--", folders["image"], x, y)
    assert code == 2
    assert "90x60" in output


@pytest.mark.parametrize(
    ("image", "text", "says"), [(__file__, "text", "expected an image"), (None, " ", "expected the text to find")]
)
def test_what_is_no_image_or_no_text_is_refused(
    folders: dict[str, str], image: str | None, text: str, says: str
) -> None:
    code, output = run("localize", image or folders["image"], text, "--model", folders["localizer"])
    assert code == 2
    assert says in output


def test_a_photo_of_a_phone_has_the_frame_that_viewers_show(folders: dict[str, str], tmp_path: Path) -> None:
    lying, upright = tmp_path / "phone.jpg", Image.Exif()
    upright[0x0112] = 6  # turned by 90 degrees when shown: 60 wide, 90 high
    Image.new("RGB", (90, 60), (120, 160, 200)).save(lying, exif=upright)
    code, output = run("describe", str(lying), "30", "85", "--model", folders["descriptor"])
    assert code == 0, output
    code, output = run("describe", str(lying), "85", "30", "--model", folders["descriptor"])
    assert code == 2
    assert "60x90" in output


ROWS = [
    {"id": "first", "image": "image.png", "point": [30, 20], "text": "the nose of the dog"},
    {"id": "no image", "image": "none.png", "point": [30, 20], "text": "the nose of the dog"},
    {"id": "last", "image": "image.png", "point": [1, 2], "text": "an ear"},
]


@pytest.mark.parametrize(("command", "answer"), [("describe", "description"), ("localize", "point")])
def test_many_rows_are_answered_into_a_file(folders: dict[str, str], tmp_path: Path, command: str, answer: str) -> None:
    rows, output = tmp_path / "rows.jsonl", tmp_path / "answers.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    model = folders["descriptor" if command == "describe" else "localizer"]
    images = str(Path(folders["image"]).parent)
    many = [command, str(rows), "--images", images, "--model", model, "--output", str(output), "--batch-size", "2"]
    done = CliRunner().invoke(app, [*many, "--device", "cpu"])
    assert done.exit_code == 1, done.output
    assert done.stdout == f"{output}: 2 rows answered\n"
    assert "3 of 3 rows, 1 without an answer" in done.stderr
    assert "1 of 3 rows have no answer, such as row 'no image': no file" in done.stderr
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["id"] for line in lines] == ["first", "no image", "last"]
    assert [answer in line for line in lines] == [True, False, True]

    rows.write_text("".join(json.dumps(row) + "\n" for row in (ROWS[0], ROWS[2])))
    done = CliRunner().invoke(app, many)
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{output}: 0 rows answered, 2 were answered before\n"
    assert [json.loads(line)["id"] for line in output.read_text().splitlines()] == ["first", "last"]

    # A folder: one point or text for all images; without --output the lines are printed.
    asked = ["--", images, "3", "4"] if command == "describe" else ["--", images, "an ear"]
    code, printed = run(command, "--model", model, *asked)
    assert code == 0, printed
    (line,) = map(json.loads, printed.splitlines())
    assert (line["id"], line["model"]) == ("image.png", lines[0]["model"])


def test_convert_refuses_what_is_no_release(tmp_path: Path) -> None:
    # The refusals themselves, key by key, are tested with the conversion.
    torch.save({"unknown.weight": torch.zeros(2)}, tmp_path / "x.pth")
    code, output = run("convert-omg-llava", str(tmp_path / "x.pth"), "--output", str(tmp_path / "out"))
    assert code == 2, output
    assert "in the release" in output
    assert not (tmp_path / "out").exists()
