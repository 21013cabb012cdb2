"""Model servers that misbehave: every row is right or quarantined with the true reason, none is silently empty."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from talking_points.descriptions.asking import WholesaleFailure
from talking_points.records import derive_seed
from tests.fault_server import MODEL, REASONS, RETRY_AFTER, FaultServer, right_answer, serving
from tests.flows.building import build, made

pytestmark = pytest.mark.usefixtures("orchestrator")

EACH = 0.05
"""Share of requests that meet each fault."""


@pytest.fixture(scope="module")
def drawn_many(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Enough images to meet every fault."""
    from talking_points.sources.drawn import draw_sample

    return draw_sample(tmp_path_factory.mktemp("many"), 60, 4, workers=2)


def mixed(seed: int, attempt: int) -> str:
    """Every fault as often as any other; one request in twenty never gets a usable answer."""
    draw = random.Random(f"{seed} {attempt}").random()
    stubborn = random.Random(seed).random() < EACH
    if stubborn:
        return ("truncated", "empty", "error_500", "malformed_json")[seed % 4]
    number = int(draw / EACH)
    return list(REASONS)[number] if number < len(REASONS) else "right"


def step(server: FaultServer, **further: object) -> str:
    values = {"backend": "openai", "model": MODEL, "endpoint": server.url, "concurrency": 8} | further
    return "local_caption={" + ", ".join(f"{key}: {value}" for key, value in values.items()) + "}"


@pytest.mark.slow
def test_every_row_is_right_or_quarantined_with_the_true_reason(drawn_many: dict[str, Path], tmp_path: Path) -> None:
    with serving(FaultServer(mixed)) as server:
        overrides = ("shard_size=30", step(server, timeout=1.0, options="{attempts: 3}"))
        result = build(tmp_path, drawn_many, *overrides)
        asked = len(server.seen)
        again = build(tmp_path, drawn_many, *overrides)
    assert again["executed_shards"] == 0
    assert len(server.seen) == asked

    met = {seen.kind for seen in server.seen}
    assert met == {*REASONS, "right"}, "the run must meet every fault"
    candidates = read(tmp_path, "sample", "*.rows.parquet")
    texts = {row["id"]: row["text"] for row in read(tmp_path, "local_caption", "[0-9]*[0-9].parquet")}
    rejected = {row["id"]: row for row in read(tmp_path, "local_caption", "*.rejected.parquet")}
    assert len(texts) + len(rejected) == len(candidates)
    assert 0 < len(rejected) < len(candidates) / 4
    seeds = {row["id"]: derive_seed(0, row["id"], "local_caption", 0) for row in candidates}
    in_order = sorted(server.seen, key=lambda seen: seen.came)
    by_seed = {seed: [seen for seen in in_order if seen.seed == seed] for seed in seeds.values()}
    for row, text in texts.items():
        assert text == right_answer(seeds[row])
        assert by_seed[seeds[row]][-1].kind == "right"
    for row, rejection in rejected.items():
        last = by_seed[seeds[row]][-1].kind
        assert (rejection["stage"], rejection["reason"]) == ("local_caption", REASONS[last])
        assert rejection["detail"]
    assert result["rows"] + result["rejected"] >= len(candidates)
    for requests in by_seed.values():
        for before, after in pairwise(requests):
            if before.kind == "rate_limit":
                assert after.came - before.answered >= 0.9 * RETRY_AFTER


@pytest.mark.parametrize("kind", ["empty", "truncated", "malformed_json"])
def test_a_wholesale_failure_stops_the_run_at_once_and_says_why(
    kind: str, drawn: dict[str, Path], tmp_path: Path
) -> None:
    with serving(FaultServer(lambda seed, attempt: kind)) as server:
        options = step(server, options="{attempts: 1}")
        with pytest.raises(WholesaleFailure, match=rf"(?s){REASONS[kind]}.*check the endpoint"):
            build(tmp_path / "out", drawn, "shard_size=12", "workers=1", options)
        assert len(server.seen) <= 24, "no second shard was tried"
        server.fault = lambda seed, attempt: "right"
        build(tmp_path / "out", drawn, "shard_size=12", "workers=1", options)
    assert "object_caption" not in made(tmp_path / "out")


def test_a_server_that_is_gone_stops_the_run_and_says_what_to_start(drawn: dict[str, Path], tmp_path: Path) -> None:
    with serving(FaultServer()) as server:
        pass
    with pytest.raises(WholesaleFailure, match=r"(?s)expected an OpenAI-compatible server.*run again"):
        build(tmp_path / "out", drawn, step(server))


def test_an_unknown_model_is_named(drawn: dict[str, Path], tmp_path: Path) -> None:
    with serving(FaultServer()) as server, pytest.raises(WholesaleFailure, match=f"other.*{MODEL}"):
        build(tmp_path / "out", drawn, step(server, model="other"))


def read(output: Path, stage: str, pattern: str) -> list[dict]:
    return [row for path in (output / ".work" / stage).glob(pattern) for row in pq.read_table(path).to_pylist()]
