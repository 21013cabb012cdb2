from __future__ import annotations

import json
import multiprocessing
import random
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest

from talking_points.build_config import JudgeConfig, StepConfig
from talking_points.descriptions.asking import answer_identity
from talking_points.descriptions.backends.protocol import ChatRequest, Completion
from talking_points.descriptions.request_cache import RequestCache, entry_digest, request_key
from talking_points.sqlite_files import ForeignDatabaseError
from tests.descriptions.kept_answers import keep, look_up
from tests.test_sqlite_files import plant_journal

MODEL = {"backend": "openai", "model": "m", "revision": ""}


def request(number: int = 0, **changes: object) -> ChatRequest:
    values = {"id": f"row{number}", "step": "generate", "prompt": f"what is {number}?", "seed": number} | changes
    return ChatRequest(**values)  # type: ignore[arg-type]


def test_an_answer_is_found_again_by_its_request_and_model_alone(tmp_path: Path) -> None:
    answer = Completion("a dark edge", "stop", 12, 3)
    with RequestCache(tmp_path / "cache.sqlite") as cache:
        keep(cache, MODEL, request(), answer)
    with RequestCache(tmp_path / "cache.sqlite") as cache:
        assert look_up(cache, MODEL, [request(), request(1)]) == {"row0": answer}
        assert look_up(cache, MODEL, [request(0, id="renamed", facts={"x": 1})]) == {"renamed": answer}
        assert look_up(cache, MODEL | {"revision": "other"}, [request()]) == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": "another"},
        {"system": "be brief"},
        {"seed": 1},
        {"max_tokens": 9},
        {"temperature": 0.5},
        {"schema": {"type": "object"}},
        {"images": (np.zeros((2, 3, 3), np.uint8),)},
    ],
)
def test_the_key_follows_all_that_can_change_the_answer(changes: dict[str, object]) -> None:
    assert request_key(MODEL, request(0, **changes)) != request_key(MODEL, request())


BOX = {"keypoint": (1.0, 2.0), "object_bbox": (0.0, 0.0, 9.0, 9.0)}


@pytest.mark.parametrize("changed", [{"keypoint": (1.0, 3.0)}, {"object_bbox": None}])
def test_the_key_follows_visual_prompts(changed: dict[str, object]) -> None:
    image = (np.zeros((2, 3, 3), np.uint8),)
    one, other = (request(images=image, facts=facts) for facts in (BOX, BOX | changed))
    assert request_key(MODEL, one) != request_key(MODEL, other)
    assert request_key(MODEL, request(facts=BOX)) == request_key(MODEL, request()), "text steps are shown none"


BACKENDS: list[dict[str, object]] = [
    {"backend": "openai", "model": "m", "endpoint": "http://127.0.0.1:9/v1"},
    {"backend": "transformers", "model": "m"},
    {"backend": "vllm", "model": "m"},
    {"backend": "llama_cpp", "model": "m.gguf"},
    {"backend": "omg_llava", "model": "m"},
]


class Named:
    """As much of a backend as its answers' identity needs: its own names leave the settings out."""

    identity = MODEL


def key(config: dict[str, object]) -> str:
    return request_key(answer_identity(Named(), StepConfig.model_validate(config)), request())  # type: ignore[arg-type]


@pytest.mark.parametrize("config", BACKENDS, ids=lambda config: config["backend"])
@pytest.mark.parametrize(
    "changed",
    [
        {"options": {"top_p": 0.1}},
        {"options": {"quantization_config": {"load_in_4bit": True}}},
        {"options": {"rope_scaling": {"factor": 2.0}}},
        {"options": {"chat_format": "chatml"}},
        {"dtype": "float32"},
        {"revision": "abc"},
        {"temperature": 0.7},
        {"max_tokens": 99},
        {"structured": True},
    ],
    ids=str,
)
def test_every_setting_that_can_change_an_answer_is_in_the_key(
    config: dict[str, object], changed: dict[str, object]
) -> None:
    assert key(config | changed) != key(config)


@pytest.mark.parametrize(
    "form", [{"extra_body": {"reasoning_effort": "low"}}, {"temperature": False}, {"image_format": "jpeg"}]
)
def test_the_form_of_requests_is_in_the_key(form: dict[str, object]) -> None:
    assert key(BACKENDS[0] | {"request": form}) != key(BACKENDS[0])


@pytest.mark.parametrize(
    "changed",
    [
        {"batch_size": 2},
        {"concurrency": 2},
        {"timeout": 9},
        {"endpoint": "http://127.0.0.1:8/v1"},
        {"api_key_env": "K"},
    ],
    ids=str,
)
def test_what_cannot_change_an_answer_is_not_in_the_key(changed: dict[str, object]) -> None:
    assert key(BACKENDS[0] | changed) == key(BACKENDS[0])


@pytest.mark.parametrize("changed", [{"reject_below": 4}, {"scale": (1, 10)}, {"shows": "crop"}], ids=str)
def test_what_becomes_of_a_score_is_not_in_the_key(changed: dict[str, object]) -> None:
    judges = [JudgeConfig.model_validate(BACKENDS[0] | more) for more in ({}, changed)]
    identities = [answer_identity(Named(), judge) for judge in judges]  # type: ignore[arg-type]
    assert identities[0] == identities[1]


def test_a_key_among_the_options_is_not_in_the_key() -> None:
    one, other = ({"options": {"token": f"hf_secret{n}", "top_p": 0.5}} for n in range(2))
    assert key(BACKENDS[1] | one) == key(BACKENDS[1] | other) != key(BACKENDS[1])


def test_answers_under_keys_without_the_settings_are_not_found(tmp_path: Path) -> None:
    with RequestCache(tmp_path / "cache.sqlite") as cache:
        keep(cache, MODEL, request(), Completion("told under other settings"))
        identity = answer_identity(Named(), StepConfig.model_validate(BACKENDS[0]))  # type: ignore[arg-type]
        assert look_up(cache, identity, [request()]) == {}


def test_images_of_the_same_bytes_and_another_shape_differ() -> None:
    wide, high = np.zeros((2, 3, 3), np.uint8), np.zeros((3, 2, 3), np.uint8)
    assert request_key(MODEL, request(images=(wide,))) != request_key(MODEL, request(images=(high,)))


def test_two_shards_and_many_threads_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    with RequestCache(path) as one, RequestCache(path) as other, ThreadPoolExecutor(8) as pool:
        caches = (one, other)
        list(pool.map(lambda n: keep(caches[n % 2], MODEL, request(n), Completion(f"answer {n}")), range(200)))
        found = look_up(one, MODEL, [request(n) for n in range(200)])
    assert found == {f"row{n}": Completion(f"answer {n}") for n in range(200)}


def open_together(paths: list[Path], start: Barrier) -> None:
    for path in paths:
        start.wait(60)
        with RequestCache(path):
            pass


def test_processes_that_begin_a_file_at_once_wait_for_each_other(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    paths = [tmp_path / f"{number}.sqlite" for number in range(40)]
    start = context.Barrier(4)
    processes = [context.Process(target=open_together, args=(paths, start)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4


def test_damage_never_gives_a_wrong_answer_and_never_stops_the_build(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    requests = [request(n) for n in range(40)]
    with RequestCache(path) as cache:
        for item in requests:
            keep(cache, MODEL, item, Completion(f"the right answer to {item.prompt}"))
    whole = path.read_bytes()
    draw = random.Random(3)
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(draw.choice((1, 20))):
            damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        path.write_bytes(bytes(damaged))
        with RequestCache(path) as cache:
            for name, answer in look_up(cache, MODEL, requests).items():
                assert answer.text == f"the right answer to what is {name.removeprefix('row')}?"
            keep(cache, MODEL, requests[0], Completion("the right answer to what is 0?"))
            assert look_up(cache, MODEL, requests[:1])["row0"].text == "the right answer to what is 0?"


@pytest.mark.parametrize(
    "planted",
    [
        {"text": "x", "sender": "me"},
        {"finish_reason": "stop"},
        {"text": 3},
        {"text": "x", "finish_reason": None},
        {"text": "x", "prompt_tokens": "many"},
        {"text": "x", "completion_tokens": -5},
        ["x"],
        7,
    ],
    ids=str,
)
def test_a_planted_answer_of_another_form_is_asked_for_again(tmp_path: Path, planted: object) -> None:
    path, key = tmp_path / "cache.sqlite", request_key(MODEL, request())
    with RequestCache(path) as cache:
        keep(cache, MODEL, request(1), Completion("kept"))
    answer = json.dumps(planted)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("INSERT INTO answers VALUES (?, ?, ?)", (key, answer, entry_digest(key, answer)))
    with RequestCache(path) as cache:
        assert look_up(cache, MODEL, [request(), request(1)]) == {"row1": Completion("kept")}


def test_a_planted_file_is_begun_anew_and_leads_nowhere(tmp_path: Path) -> None:
    path, outside = tmp_path / "cache.sqlite", tmp_path / "thesis.tex"
    outside.write_text("mine")

    def view() -> None:
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("CREATE VIEW answers AS SELECT 'k' AS key, 'a' AS answer, 'd' AS digest")

    for plant in (
        lambda: plant_journal(path, outside),
        lambda: path.symlink_to(outside),
        lambda: Path(f"{path}-wal").symlink_to(outside),
        view,
    ):
        plant()
        with RequestCache(path) as cache:
            keep(cache, MODEL, request(), Completion("kept"))
        with RequestCache(path) as cache:
            assert look_up(cache, MODEL, [request()]) == {"row0": Completion("kept")}
        assert outside.read_text() == "mine"
        path.unlink()
    path.mkdir()
    with pytest.raises(ForeignDatabaseError, match="no regular file"):
        RequestCache(path)


def damage_a_page(path: Path) -> None:
    """Overwrite one page in the middle of a file whose log has been written back."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 4096 // 2 * 4096)
        file.write(bytes(4096))


def test_a_damaged_file_is_put_aside_and_what_can_be_read_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    requests = [request(n) for n in range(300)]
    with RequestCache(path) as cache:
        for item in requests:
            keep(cache, MODEL, item, Completion(f"{item.prompt} {'x' * 300}"))
    damage_a_page(path)
    damaged = path.read_bytes()
    with RequestCache(path) as cache:
        found = look_up(cache, MODEL, requests)
        assert 250 < len(found) < 300
        assert all(found[item.id].text.startswith(item.prompt) for item in requests if item.id in found)
    assert path.with_name("cache.sqlite.damaged-1").read_bytes() == damaged
    assert not path.with_name("cache.sqlite.damaged-2").exists()


def test_an_open_connection_follows_when_another_puts_the_file_aside(tmp_path: Path) -> None:
    """Answers are paid for: none may go into a file that nobody reads any more."""
    path = tmp_path / "cache.sqlite"
    requests = [request(n) for n in range(300)]
    with RequestCache(path) as cache:
        for item in requests:
            keep(cache, MODEL, item, Completion("x" * 300))
    with RequestCache(path) as one, RequestCache(path) as other:
        damage_a_page(path)
        look_up(one, MODEL, requests)
        keep(other, MODEL, request(1000), Completion("paid by the other"))
        keep(one, MODEL, request(1001), Completion("paid by the one"))
        look_up(other, MODEL, requests)
    with RequestCache(path) as cache:
        texts = [answer.text for answer in look_up(cache, MODEL, [request(1000), request(1001)]).values()]
    assert texts == ["paid by the other", "paid by the one"]
    assert [file.name for file in tmp_path.glob("*.damaged-?")] == ["cache.sqlite.damaged-1"]
