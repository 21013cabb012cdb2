from __future__ import annotations

import multiprocessing
import random
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest

from talking_points.descriptions.backends.protocol import ChatRequest, Completion
from talking_points.descriptions.request_cache import RequestCache, request_key

MODEL = {"backend": "openai", "model": "m", "revision": ""}


def request(number: int = 0, **changes: object) -> ChatRequest:
    values = {"id": f"row{number}", "step": "generate", "prompt": f"what is {number}?", "seed": number} | changes
    return ChatRequest(**values)  # type: ignore[arg-type]


def test_an_answer_is_found_again_by_its_request_and_model_alone(tmp_path: Path) -> None:
    answer = Completion("a dark edge", "stop", 12, 3)
    with RequestCache(tmp_path / "cache.sqlite") as cache:
        cache.store(MODEL, request(), answer)
    with RequestCache(tmp_path / "cache.sqlite") as cache:
        assert cache.lookup(MODEL, [request(), request(1)]) == {"row0": answer}
        assert cache.lookup(MODEL, [request(0, id="renamed", facts={"x": 1})]) == {"renamed": answer}
        assert cache.lookup(MODEL | {"revision": "other"}, [request()]) == {}


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


def test_images_of_the_same_bytes_and_another_shape_differ() -> None:
    wide, high = np.zeros((2, 3, 3), np.uint8), np.zeros((3, 2, 3), np.uint8)
    assert request_key(MODEL, request(images=(wide,))) != request_key(MODEL, request(images=(high,)))


def test_two_shards_and_many_threads_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    with RequestCache(path) as one, RequestCache(path) as other, ThreadPoolExecutor(8) as pool:
        caches = (one, other)
        list(pool.map(lambda n: caches[n % 2].store(MODEL, request(n), Completion(f"answer {n}")), range(200)))
        found = one.lookup(MODEL, [request(n) for n in range(200)])
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
            cache.store(MODEL, item, Completion(f"the right answer to {item.prompt}"))
    whole = path.read_bytes()
    draw = random.Random(3)
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(draw.choice((1, 20))):
            damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        path.write_bytes(bytes(damaged))
        with RequestCache(path) as cache:
            for name, answer in cache.lookup(MODEL, requests).items():
                assert answer.text == f"the right answer to what is {name.removeprefix('row')}?"
            cache.store(MODEL, requests[0], Completion("the right answer to what is 0?"))
            assert cache.lookup(MODEL, requests[:1])["row0"].text == "the right answer to what is 0?"
