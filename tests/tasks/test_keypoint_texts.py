"""``describe-keypoints``: three authors, the checks, what is asked again, what is composed and what is kept."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from talking_points.config import ConfigError
from talking_points.descriptions.backends.protocol import ChatRequest, Completion, RequestError
from talking_points.descriptions.keypoint_texts import RULES, load_texts, read_texts, rule_texts
from talking_points.descriptions.keypoint_writing import Draft, merge_seen, read_keypoint_texts
from talking_points.examples.keypoint_authors import DescribeKeypointsConfig, check_description_inputs
from talking_points.models.descriptor import PointDescriptor
from talking_points.sources.drawn import draw_sample
from talking_points.sources.keypoint_sets import keypoint_sets, swap_sides
from tasks.keypoint_texts import write_keypoint_texts
from tests.training.conftest import small

BODY = keypoint_sets()["quadruped_body"]
SEEN = (
    "The point is located on the object, which is close to the left edge of the image, specifically on its ear, "
    "situated close to the top and right of the object, and within the ear, the point lies toward the top, in a region "
    "that features narrow, dark hair."
)


class Writer(BaseHTTPRequestHandler):
    """A model that knows the rules' texts; some keypoints it gets wrong, the nose at first only."""

    prompts: list[str] = []  # noqa: RUF012
    wrong: dict[str, str] = {}  # noqa: RUF012

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""

    def do_GET(self) -> None:
        self._send({"data": [{"id": "m", "object": "model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][-1]["content"]
        self.prompts.append(prompt)
        again = "was refused" in prompt
        texts = {
            name: self.wrong[name] if name in self.wrong and not (again and name == "nose") else text
            for name, text in rule_texts(BODY).items()
            if f'- "{name}"' in prompt
        }
        text = f"Here they are:\n```json\n{json.dumps(texts)}\n```"
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        self._send({"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 4}})

    def _send(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def writing() -> Iterator[str]:
    """The address of a ``Writer``."""
    Writer.prompts, Writer.wrong = [], {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Writer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


@pytest.fixture
def endpoint() -> Iterator[str]:
    with writing() as url:
        yield url


def written(config: DescribeKeypointsConfig) -> dict[str, Any]:
    check_description_inputs(config)
    return write_keypoint_texts.fn(config)


def test_the_rules_write_all_612_without_a_model(tmp_path: Path) -> None:
    report = written(DescribeKeypointsConfig(output=tmp_path))
    assert (report["texts"], report["composed"], report["missing"]) == (612, 0, 0)
    assert load_texts(tmp_path / "texts.jsonl") == load_texts(RULES)


def test_a_model_is_asked_again_about_what_was_refused_and_the_rules_fill_in(tmp_path: Path, endpoint: str) -> None:
    # One text is right at the second asking, one never; of mirrored keypoints only one is asked for.
    Writer.wrong = {"nose": "The left one.", "neck": "<script>A very short text about the neck of it.</script>"}
    given = {"backend": "openai", "model": "m", "endpoint": endpoint, "max_tokens": 4000}
    values = {"output": tmp_path, "author": "model", "text": given, "sets": ["quadruped_body"]}
    config = DescribeKeypointsConfig.model_validate(values)
    report = written(config)
    assert (report["texts"], report["composed"], report["missing"]) == (17, 1, 0)
    assert list(report["sets"]["quadruped_body"]["refused"]) == ["neck"]
    rows = {row.keypoint: row for row in read_texts(tmp_path / "texts.jsonl")}
    assert (rows["neck"].author, rows["nose"].author) == ("rules", "m")
    assert load_texts(tmp_path / "texts.jsonl", [BODY])
    left, right = (rows[f"{side} eye"].text for side in ("left", "right"))
    assert swap_sides(left) == right
    assert len(Writer.prompts) == 2
    assert sum(f'- "{side} eye"' in Writer.prompts[0] for side in ("left", "right")) == 1
    assert Writer.prompts[1].count('- "') == 2
    written(config)
    assert len(Writer.prompts) == 2, "answers are kept"
    bare = written(config.model_copy(update={"compose_refused": False, "output": tmp_path / "bare"}))
    assert (bare["texts"], bare["missing"]) == (16, 1)


def test_the_descriptor_looks_at_one_training_image_and_a_program_merges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = draw_sample(tmp_path / "drawn", 30, 5, sources=["mp100"])["mp100"]
    asked: list[int] = []

    class Looker:
        def describe(self, images: list[Any], points: np.ndarray) -> list[str]:
            asked.append(len(points))
            assert len(images) == len(points)
            return [SEEN] * len(points)

    monkeypatch.setattr(PointDescriptor, "from_pretrained", lambda *_, **__: Looker())
    folder = str(tmp_path / "descriptor")
    small(PointDescriptor).save_pretrained(folder)
    values = {"output": tmp_path / "out", "author": "descriptor", "descriptor": folder, "poses": {"root": root}}
    report = written(DescribeKeypointsConfig.model_validate(values))
    assert report["sets"]
    assert report["missing"] == 0
    assert report["composed"] < report["texts"]
    for key, found in report["sets"].items():
        assert found["support"]["labelled"] <= len(keypoint_sets()[key])
    sets = [keypoint_sets()[key] for key in report["sets"]]
    texts = load_texts(tmp_path / "out" / "texts.jsonl", sets)
    assert any("part called ear" in text for text in texts.values())


def test_what_is_merged_has_no_side_and_nothing_of_the_image() -> None:
    text = merge_seen("left eye", "the face", SEEN)
    assert text == (
        "The left eye belongs to the face. Seen on a single example, a look at one object found it on the part called "
        "ear and the place is near its top."
    )
    for odd in ("", "nothing of use", "on the left ear, close to the left", "x" * 5000):
        draft = Draft(BODY)
        draft.take({"nose": merge_seen("nose", "the face", odd)})
        assert "nose" in draft.texts, draft.problems


@pytest.mark.parametrize(
    "answer", ["", "no object", "[]", "{", '{"nose": 3}', '{"hoof": "a text"}', '{"nose": ""}', "{" * 5000 + "}" * 5000]
)
def test_answers_without_texts_are_errors(answer: str) -> None:
    request = ChatRequest("quadruped_body/0/0", "generate", "p", facts={"points": [{"name": "nose"}]})
    found = read_keypoint_texts(Completion(answer), request)
    assert isinstance(found, RequestError)
    assert read_keypoint_texts(Completion('{"Nose ": "A text."}'), request) == '{"nose": "A text."}'


def test_wrong_settings_are_named(tmp_path: Path) -> None:
    for values, message in (
        ({"author": "model"}, "language model"),
        ({"author": "descriptor"}, "trained Point Descriptor"),
        ({"author": "somebody"}, "author"),
    ):
        with pytest.raises(ValueError, match=message):
            DescribeKeypointsConfig.model_validate(values)
    with pytest.raises(ConfigError, match="quadruped_body"):
        check_description_inputs(DescribeKeypointsConfig(output=tmp_path, sets=["unicorn"]))
