"""Requests sent as batches: whatever a provider does, each is answered once, given a second chance, or told why not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from talking_points.build_config import BatchConfig, Price, StepConfig
from talking_points.descriptions.asking import Answer, WholesaleFailure, ask
from talking_points.descriptions.backends import open_backend
from talking_points.descriptions.backends.protocol import BackendUnavailable, ChatRequest
from talking_points.descriptions.batches import collecting
from talking_points.descriptions.batches import provider as provider_module
from talking_points.descriptions.batches.outbox import Outbox
from talking_points.descriptions.batches.provider import Provider
from talking_points.descriptions.batches.records import CREATING, SENT, BatchFile, BatchFolder, write_record
from talking_points.descriptions.batches.stage import StageBatches
from talking_points.descriptions.request_cache import RequestCache
from talking_points.descriptions.spending import Ledger, Spending, Spent
from talking_points.errors import AnswersPending
from talking_points.stop_requests import clear_stop
from tests.batch_server import BatchServer, answer_line, serving_batches
from tests.fault_server import MODEL, right_answer


@pytest.fixture(autouse=True)
def _no_stop() -> None:
    clear_stop()


@pytest.fixture(scope="module")
def _running() -> Iterator[BatchServer]:
    with serving_batches(BatchServer()) as server:
        yield server


@pytest.fixture
def server(_running: BatchServer) -> BatchServer:
    """One server for all tests, as new."""
    fresh = BatchServer(url=_running.url)
    fresh.lock = _running.lock
    _running.__dict__.update(fresh.__dict__)
    return _running


def _body(text: str) -> dict[str, Any]:
    return {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}


def requests(count: int, start: int = 0) -> list[ChatRequest]:
    return [ChatRequest(f"r{n}", "generate", f"question {n}", "be brief", seed=n) for n in range(start, start + count)]


class Stage:
    """A stage of shards without a build around it: asks, waits and asks again, as ``tasks`` do."""

    def __init__(
        self, folder: Path, server: BatchServer | None, ledger: Spending | None = None, **batch: object
    ) -> None:
        self.folder, self.order = folder, ledger
        self.config = StepConfig(
            backend="openai",
            model=MODEL,
            endpoint=server.url if server else None,
            concurrency=4,
            batch=BatchConfig.model_validate({"poll": 0.01, **batch}),
        )
        self.said: list[str] = []

    def cache(self, shard: int | None = None) -> RequestCache:
        ledger = Ledger(self.order, f"{MODEL} (batch)") if self.order else None
        outbox = None if shard is None else Outbox(self.folder / "batches", shard, self.config)
        return RequestCache(self.folder / "stage.sqlite", ledger, outbox)

    def ask(self, shards: Sequence[list[ChatRequest]]) -> list[dict[str, Answer]]:
        backend = open_backend(self.config)
        found = []
        for number, shard in enumerate(shards):
            with self.cache(number) as cache:
                found.append(ask(backend, iter(shard), self.config, cache))
        return found

    def answer(self) -> None:
        with BatchFolder(self.folder / "batches") as folder, self.cache() as cache:
            StageBatches(folder, cache, self.config, self.said.append).answer()

    def begin(self) -> None:
        with BatchFolder(self.folder / "batches") as folder:
            folder.begin()

    def run(self, *shards: list[ChatRequest]) -> dict[str, Answer]:
        self.begin()
        while True:
            answers = {row: answer for found in self.ask(shards) for row, answer in found.items()}
            if not any(answer.pending for answer in answers.values()):
                return answers
            self.answer()


def is_right(answers: dict[str, Answer], count: int) -> bool:
    return {row: answer.text for row, answer in answers.items()} == {
        f"r{n}": right_answer(n) for n in range(count)
    } and not any(answer.error for answer in answers.values())


def test_shards_share_batches_within_the_limits_and_the_next_run_asks_nothing(tmp_path, server) -> None:
    stage = Stage(tmp_path, server, max_requests=10, at_once=2)
    assert is_right(stage.run(requests(9), requests(9, 9), requests(5, 18)), 23)
    assert [len(server.lines(batch)) for batch in server.batches.values()] == [10, 10, 3]
    assert server.most_at_once == 2
    line = server.lines(server.batches["batch-0"])[0]
    assert (line["method"], line["url"], line["body"]["model"]) == ("POST", "/v1/chat/completions", MODEL)
    assert [message["role"] for message in line["body"]["messages"]] == ["system", "user"]
    assert server.batches["batch-0"]["completion_window"] == "24h"
    assert "r0" in stage.run(requests(23))
    assert len(server.batches) == 3, "everything was kept"
    assert not list((tmp_path / "batches").glob("*.jsonl")), "files are kept no longer than their answers are awaited"


def test_the_size_of_a_file_is_bounded_and_images_go_with_it(tmp_path, server) -> None:
    shown = [
        ChatRequest(f"r{n}", "local_caption", "what?", seed=n, images=(np.full((40, 40, 3), n, np.uint8),))
        for n in range(6)
    ]
    assert is_right(Stage(tmp_path, server, max_megabytes=0.001).run(shown), 6)
    sizes = [len(server.lines(batch)) for batch in server.batches.values()]
    assert sum(sizes) == 6
    assert len(sizes) > 1
    content = server.lines(server.batches["batch-0"])[0]["body"]["messages"][0]["content"]
    assert content[0]["image_url"]["url"].startswith("data:image/png;base64,")


def shuffled(number, lines):
    return [answer_line(line) for line in reversed(lines)]


def repeated(number, lines):
    first = [answer_line(line) for line in lines]
    return first + [answer_line(line, "another text that came second") for line in lines]


def with_strangers(number, lines):
    stranger = answer_line(lines[0]) | {"custom_id": "f" * 64}
    return [b"{", b"[]", b"null", b'{"custom_id": 5}', b"\xff\xfe", stranger, *map(answer_line, lines)]


def cut_off(number, lines):
    """A line of the first batch ends in the middle, so it has to be asked again."""
    whole = [json.dumps(answer_line(line)).encode() for line in lines]
    return whole if number else [*whole[:-1], whole[-1][:50]]


def with_missing(number, lines):
    return [answer_line(line) for line in (lines if number else lines[2:])]


def some_unusable(number, lines):
    return [
        answer_line(line, None if number or at else "", "stop" if number else "length") for at, line in enumerate(lines)
    ]


def with_a_huge_line(number, lines):
    huge = json.dumps(answer_line(lines[0], "x" * 9_000)).encode()
    return [huge if not number else answer_line(lines[0]), *map(answer_line, lines[1:])]


@pytest.mark.parametrize(
    ("answers", "batches"),
    [
        (shuffled, 1),
        (repeated, 1),
        (with_strangers, 1),
        (cut_off, 2),
        (with_missing, 2),
        (some_unusable, 2),
        (with_a_huge_line, 2),
    ],
)
def test_odd_outputs_lose_nothing(tmp_path, server, monkeypatch, answers, batches) -> None:
    monkeypatch.setattr(collecting, "LONGEST_LINE", 4_000)
    server.answers = answers
    assert is_right(Stage(tmp_path, server).run(requests(8)), 8)
    assert len(server.batches) == batches


@pytest.mark.parametrize(
    "told",
    [
        {"error": {"code": "insufficient_quota", "message": "over"}},
        {
            "error": {
                "type": "error",
                "error": {"type": "invalid", "message": "Your credit balance is too low to go on"},
            }
        },
        {"response": {"status_code": 429, "body": {"error": {"type": "insufficient_quota", "message": "over"}}}},
    ],
    ids=str,
)
def test_what_was_refused_for_want_of_money_is_asked_for_once_there_is_some(tmp_path, server, told) -> None:
    server.answers = lambda number, lines: [answer_line(line) for line in lines[: 5 if number == 0 else None]]
    server.errors = lambda number, lines: [{"custom_id": x["custom_id"], **told} for x in lines[5:]] * (number == 0)
    with pytest.raises(BackendUnavailable, match="account without money"):
        Stage(tmp_path, server).run(requests(8))
    assert is_right(Stage(tmp_path, server).run(requests(8)), 8)
    assert [len(server.lines(batch)) for batch in server.batches.values()] == [8, 3]


@pytest.mark.parametrize("status", ["expired", "cancelled", "failed"])
def test_what_a_batch_left_gets_a_second_chance_and_then_a_reason(tmp_path, server, status: str) -> None:
    half = status != "failed"
    server.ends = lambda number: status
    server.answers = lambda number, lines: [answer_line(line) for line in lines[:5]] if not number else []
    server.errors = lambda number, lines: (
        [{"custom_id": lines[-1]["custom_id"], "response": None, "error": {"code": "batch_expired", "message": "late"}}]
        if status == "expired"
        else []
    )
    stage = Stage(tmp_path, server)
    stage.begin()
    assert all(answer.pending for answer in stage.ask([requests(10)])[0].values())
    stage.answer()
    pending = [row for row, answer in stage.ask([requests(10)])[0].items() if answer.pending]
    assert len(pending) == (5 if half else 10)
    stage.answer()
    if not half:
        with pytest.raises(WholesaleFailure, match="out of luck"):
            stage.ask([requests(10)])
        return
    answers = stage.ask([requests(10)])[0]
    assert len(server.batches) == 2
    reasons = {answer.error.reason for answer in answers.values() if answer.error}
    assert reasons == {f"batch_{status}"}
    assert sum(answer.error is None for answer in answers.values()) == 5


@pytest.mark.parametrize("status", ["COMPLETED", "Succeeded", "done", "JOB_STATE_SUCCEEDED", "BATCH_STATE_SUCCEEDED"])
def test_a_batch_that_has_ended_is_known_in_the_words_of_every_provider(tmp_path, server, status: str) -> None:
    """Whoever knows OpenAI's word alone waits without end."""
    server.ends = lambda number: status
    assert is_right(Stage(tmp_path, server).run(requests(3)), 3)
    assert len(server.batches) == 1


def test_answers_are_read_in_the_frames_of_every_provider(tmp_path, server) -> None:
    def frames(number: int, lines: list[dict[str, Any]]) -> list[dict[str, Any] | bytes]:
        own = [answer_line(line) for line in lines]
        own[0]["response"]["body"] = json.dumps(own[0]["response"]["body"])
        own[1]["response"] = own[1]["response"]["body"]
        own[2]["response"]["status_code"] = None
        del own[3]["error"], own[3]["response"]["status_code"]
        own[4]["response"]["body"]["usage"] = None
        return [*own]

    server.answers = frames
    assert is_right(Stage(tmp_path, server).run(requests(5)), 5)
    assert len(server.batches) == 1


def test_errors_of_rows_are_told_apart(tmp_path, server) -> None:
    def errors(number, lines):
        bodies: list[dict[str, Any]] = [
            {"response": {"status_code": 400, "body": {"error": {"message": "context length exceeded"}}}},
            {"response": {"status_code": 400, "body": {"error": {"message": "no such field"}}}},
            {"response": {"status_code": 500, "body": {"error": {"message": "sk-secretsecretsecret1234 is down"}}}},
            {"response": None, "error": {"code": "invalid_request", "message": "no"}},
            {"response": {"status_code": "x"}},
            {},
        ]
        return [{"custom_id": line["custom_id"], **body} for line, body in zip(lines, bodies * 2, strict=False)][
            : 6 if not number else 3
        ]

    server.answers = lambda number, lines: [answer_line(line) for line in lines[6:]]
    server.errors = errors
    answers = Stage(tmp_path, server).run(requests(8))
    found = [answers[f"r{n}"].error for n in range(8)]
    reasons = [error.reason if error else "" for error in found]
    assert reasons[:2] == ["too_long", "bad_request"], "not sent again"
    assert reasons[3] == "batch_error"
    assert reasons[6:] == ["", ""]
    sent_again = [line["body"]["seed"] for line in server.lines(server.batches["batch-1"])]
    assert sent_again == [2, 4, 5]
    database = (tmp_path / "batches" / "asked.sqlite").read_bytes() + b"".join(
        path.read_bytes() for path in (tmp_path / "batches").glob("*.json")
    )
    assert b"sk-secretsecret" not in database


def test_a_lost_answer_to_the_creation_creates_no_second_batch(tmp_path, server) -> None:
    server.create({"input_file_id": "file-x"})
    server.create({"input_file_id": "file-y"})
    server.lost = ["files", "batches"]
    assert is_right(Stage(tmp_path, server).run(requests(5)), 5)
    assert sum("metadata" in batch for batch in server.batches.values()) == 1
    server.unknown = 1  # the file that was uploaded a moment ago
    assert is_right(Stage(tmp_path / "next", server).run(requests(5)), 5)


@pytest.mark.parametrize("created", [True, False])
def test_a_kill_in_the_middle_of_the_creation_creates_no_second_batch(tmp_path, server, created: bool) -> None:
    stage = Stage(tmp_path, server)
    stage.begin()
    stage.ask([requests(5)])
    server.released.clear()
    stage.config = stage.config.model_copy(update={"batch": BatchConfig(wait=False, poll=0.01)})
    with pytest.raises(AnswersPending, match="run the build again"):
        stage.answer()
    # As the record was before the answer came.
    path = tmp_path / "batches" / "00000.json"
    record = BatchFile(**json.loads(path.read_text()))
    write_record(path.parent, BatchFile(**{**vars(record), "state": CREATING, "batch_id": ""}))
    if not created:
        server.batches.clear()
    server.released.set()
    assert is_right(Stage(tmp_path, server).run(requests(5)), 5)
    assert len(server.batches) == 1


def test_where_it_cannot_be_found_out_nothing_is_submitted(tmp_path, server) -> None:
    stage = Stage(tmp_path, server)
    stage.begin()
    stage.ask([requests(5)])
    with BatchFolder(tmp_path / "batches") as folder:
        record = BatchFile("00000", 5, state=CREATING, file_id="file-0")
        folder.attach(record, [row[0] for row in folder._execute("SELECT key FROM asked").fetchall()])
    server.lists_batches = False
    with pytest.raises(BackendUnavailable, match=r"cannot be found out.*delete .*00000\.json"):
        Stage(tmp_path, server).run(requests(5))
    assert not server.batches


def test_a_later_run_collects_what_was_submitted(tmp_path, server) -> None:
    server.released.clear()
    with pytest.raises(AnswersPending, match="run the build again"):
        Stage(tmp_path, server, wait=False).run(requests(7))
    with pytest.raises(AnswersPending):
        Stage(tmp_path, server, wait=False).run(requests(7))
    server.released.set()
    assert is_right(Stage(tmp_path, server).run(requests(7)), 7)
    assert len(server.batches) == 1


def test_requests_of_a_changed_prompt_are_asked_and_the_old_ones_not_waited_for(tmp_path, server) -> None:
    server.released.clear()
    with pytest.raises(AnswersPending):
        Stage(tmp_path, server, wait=False).run(requests(4))
    server.ends = lambda number: "completed" if number else "in_progress"
    server.released.set()
    changed = [ChatRequest(request.id, "generate", "another", seed=request.seed) for request in requests(4)]
    assert is_right(Stage(tmp_path, server).run(changed), 4)
    assert len(server.batches) == 2
    server.ends = lambda number: "completed"
    assert is_right(Stage(tmp_path, server).run(requests(4)), 4)
    assert len(server.batches) == 2, "their answers were on their way"


def test_a_batch_too_many_waits_for_the_others(tmp_path, server) -> None:
    server.failure = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}
    server.looks = 2
    server.ends = lambda number: "failed" if number == 1 else "completed"
    stage = Stage(tmp_path, server, max_requests=3)
    server.looks = 0
    order: list[int] = []
    look = server.look

    def second_first(batch):
        order.append(batch["number"])
        if batch["number"] == 0 and len(order) < 4:
            return batch
        return look(batch)

    server.look = second_first
    assert is_right(stage.run(requests(6)), 6)
    assert len(server.asked()) == 9
    server.ends = lambda number: "failed"
    with pytest.raises(BackendUnavailable, match=r"lower batch\.max_requests"):
        Stage(tmp_path, server, max_requests=3).run(requests(3, 50))


def test_a_stopped_build_cancels_where_it_is_told_to_and_loses_no_try(tmp_path, server, monkeypatch) -> None:
    from talking_points.descriptions.batches import stage as module

    server.released.clear()
    server.answers = lambda number, lines: [answer_line(line) for line in (lines[:2] if not number else lines)]

    def interrupted(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "pause", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Stage(tmp_path, server).run(requests(6))
    assert server.batches["batch-0"]["status"] == "in_progress"
    with pytest.raises(KeyboardInterrupt):
        Stage(tmp_path, server, cancel_on_stop=True).run(requests(6))
    assert server.batches["batch-0"]["status"] == "cancelled"
    monkeypatch.undo()
    server.released.set()
    assert is_right(Stage(tmp_path, server).run(requests(6)), 6)
    assert [len(server.lines(batch)) for batch in server.batches.values()] == [6, 4]


@pytest.mark.parametrize(("url", "message"), [("/v2", "expected a server with the batch API"), ("", "batch")])
def test_a_server_without_the_api_is_named(tmp_path, server, url: str, message: str) -> None:
    stage = Stage(tmp_path, server)
    stage.config = stage.config.model_copy(update={"endpoint": server.url.replace("/v1", url or "/v3")})
    with pytest.raises(BackendUnavailable, match=message):
        stage.run(requests(4))


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b"[" * 100_000, "no JSON object"),
        (b'{"data": 7, "has_more": true}', None),
        (b'{"data": [{"metadata": [1], "id": "x"}, {"id": {}}, 3], "has_more": false}', None),
    ],
)
def test_a_list_of_batches_of_another_form(tmp_path, server, monkeypatch, reply: bytes, message: str | None) -> None:
    answer = httpx.Response(200, content=reply)
    with Provider(Stage(tmp_path, server).config) as provider:
        monkeypatch.setattr(provider, "_call", lambda *_, **__: answer)
        with pytest.raises(BackendUnavailable, match=message) if message else nullcontext():
            assert provider.find("file", "mark") is None


def test_a_file_of_answers_has_an_end(tmp_path, server, monkeypatch) -> None:
    monkeypatch.setattr(provider_module, "_FILE_BYTES", 1000)
    monkeypatch.setattr(provider_module, "FIRST_DELAY", 0.0)
    server.files["large"] = b"x" * (1001 + (1 << 20))
    with Provider(Stage(tmp_path, server).config) as provider:
        with pytest.raises(BackendUnavailable, match="a file of more than"):
            provider.fetch("large", tmp_path / "large", 1)
        assert not (tmp_path / "large").exists()
        assert provider.fetch("large", tmp_path / "large", 2)


def test_a_model_that_is_not_listed_is_told_before_anything_is_sent(tmp_path, server) -> None:
    stage = Stage(tmp_path, server)
    stage.config = stage.config.model_copy(update={"model": "fake-lava"})
    with pytest.raises(BackendUnavailable, match=f"does not serve 'fake-lava'.*did you mean '{MODEL}'"):
        stage.run(requests(4))
    assert not server.files


def test_costs_are_counted_once_at_the_providers_discount_and_capped(tmp_path, server) -> None:
    def order(budget: str) -> Spending:
        price = Price(tokens_in=50_000.0, tokens_out=100_000.0)
        return Spending(file=str(tmp_path / "spent.sqlite"), prices={f"{MODEL} (batch)": price}, budget=budget)

    # Ten tokens in and five out are one dollar; up to 256 out may come.
    with pytest.raises(BackendUnavailable, match=r"may cost .*larger budget, or a smaller batch\.max_requests"):
        Stage(tmp_path, server, order("60 USD"), max_requests=3).run(requests(6))
    assert not server.batches
    stage = Stage(tmp_path, server, order("90 USD"), max_requests=3, at_once=20)
    assert is_right(stage.run(requests(6)), 6)
    assert server.most_at_once == 1, "the second waits until the first has shown what it costs"
    ledger = Ledger(order("1 USD"), "any")
    assert ledger.read_spent() == {f"{MODEL} (batch)": Spent(6, 0, 60, 30)}
    ledger.close()


def test_files_are_written_answered_elsewhere_and_collected(tmp_path, server) -> None:
    stage = Stage(tmp_path, None, offline=True, max_requests=4)
    with pytest.raises(AnswersPending, match=r"2 files.*00000\.jsonl.*run-batch -i 00000\.jsonl"):
        stage.run(requests(6))
    folder = tmp_path / "batches"
    with pytest.raises(AnswersPending, match=r"2 files"):
        Stage(tmp_path, None, offline=True, max_requests=4).run(requests(6))
    for name in ("00000", "00001"):
        lines = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        answers = [json.dumps(answer_line(line)) for line in reversed(lines)]
        (folder / f"{name}.output.jsonl").write_text("\n".join(answers))
        if name == "00000":
            with pytest.raises(AnswersPending, match=r"1 file,.*00001\.jsonl"):
                Stage(tmp_path, None, offline=True).run(requests(6))
    assert is_right(Stage(tmp_path, None, offline=True).run(requests(6)), 6)


def test_records_from_elsewhere_are_not_believed(tmp_path, server) -> None:
    folder = tmp_path / "batches"
    stage = Stage(tmp_path, server)
    stage.begin()
    (folder / "00007.json").write_text("[]")
    (folder / "00008.json").write_text('{"name": "../x", "requests": 1}')
    (folder / "00009.json").write_text('{"name": "00009", "requests": 1, "batch_id": 7}')
    (folder / "1²²²².json").write_text('{"name": "1²²²²", "requests": null, "state": "sent"}')
    assert is_right(stage.run(requests(3)), 3)
    assert (folder / "00010.json").is_file(), "no number is used twice"
    assert BatchFile("00000", 1, file_id=f"file-{'bGl0_' * 100}==").ids, "gateways write what they know into an id"
    with pytest.raises(ValueError, match="expected an id"):
        _ = BatchFile("00000", 1, state=SENT, batch_id="../../models").ids
