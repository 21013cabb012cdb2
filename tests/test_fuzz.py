"""Damaged and invented inputs for each reader of what somebody else wrote: used, or refused by a documented error.

A seed is a case: ``Odd(seed)`` makes it again. Sources and images are in
``tests/sources/test_fuzz.py``, configurations in ``tests/test_fuzz_configs.py``.
"""

# ruff: noqa: PT017  (an error is one of the allowed results, and looked at)

from __future__ import annotations

import copy
import json
import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from talking_points.build_config import StepConfig
from talking_points.config import ConfigError
from talking_points.dataset_files import DatasetError, open_parquet, read_group
from talking_points.dataset_manifest import AuditSummary, Manifest, read_content
from talking_points.dataset_schema import triplet_schema
from talking_points.descriptions.backends.chat_completions import Retry, error_message, read_completion, retry_after
from talking_points.descriptions.backends.protocol import Completion, RequestError
from talking_points.descriptions.memory_plan import model_size
from talking_points.descriptions.model_identity import identify_model
from talking_points.errors import InputError, RunError
from talking_points.evaluation.description_sets import read_descriptions
from talking_points.evaluation.saved_reports import read_reports
from talking_points.grounding import grammar
from talking_points.hub_names import unavailable
from talking_points.models.model_folders import check_model
from talking_points.sources.coco_parts import BadAnnotationError
from talking_points.sources.keypoint_annotations import raw_keypoints, usable_skeleton
from talking_points.sources.plain_pickle import UnsafePickleError, load_plain
from talking_points.sources.reasons import SKIP_REASONS
from talking_points.sources.refs import _json_mapping, parse_ref
from talking_points.yaml_text import load_yaml
from tests.fuzz import CASES, Odd, harmless
from tests.publishing.small_dataset import write_dataset
from tests.test_dataset_manifest import HOSTILE_NAMES, places

pytestmark = pytest.mark.slow

JSON_PIECES = (
    b"NaN",
    b"[[",
    b'"',
    b"1e999",
    b"9" * 25,
    b"\xef\xbb\xbf",
    b"[" * 99,
    b'"\\ud800"',
    b"{}",
    b"null",
    b"\0",
)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("fuzz") / "dataset", rows={"train": 3})


@pytest.fixture(autouse=True)
def _fenced(tmp_path: Path) -> Iterator[None]:
    with harmless(tmp_path):
        yield


def changed(odd: Odd, value: Any, names: Sequence[Any] = ()) -> Any:
    """A copy of a value from JSON with something odd in one or two of its places."""
    value = copy.deepcopy(value)
    for _ in range(odd.randint(1, 2)):
        *above, last = odd.choice(places(value))
        holder = value
        for key in above:
            holder = holder[key]
        holder[last] = copy.deepcopy(odd.choice(names)) if names and odd.random() < 0.3 else odd.value(2)
    return value


def written(odd: Odd, value: Any, names: Sequence[Any] = ()) -> bytes:
    """The bytes of a file with the value, changed or damaged."""
    if odd.random() < 0.6:
        return json.dumps(changed(odd, value, names)).encode()
    return odd.damaged(json.dumps(value).encode(), JSON_PIECES)


def write_anew(path: Path, content: bytes) -> None:
    """A file in the place of another one: to shorten that one, ext4 waits for the disk, ten thousand times."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def outcomes(case: Callable[[Odd], object], *refusals: type[Exception], cases: int = CASES) -> None:
    """Each case ends, or with one of the refusals; a hundredth of them at least is not nonsense."""
    used = 0
    for seed in range(cases):
        try:
            case(Odd(seed))
        except refusals as error:
            assert len(str(error)) < 5000, seed
        except Exception as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
        else:
            used += 1
    assert used >= cases / 100


def test_manifests(output: Path) -> None:
    manifest = json.loads((output / "manifest.json").read_text())
    names = [name for name in HOSTILE_NAMES if name is not None]

    def case(odd: Odd) -> None:
        found = read_content(written(odd, manifest, names), output / "manifest.json", Manifest, "go on")
        for file in found["files"]:
            assert (output / file["path"]).resolve().is_relative_to(output / "data")
        json.dumps(found, ensure_ascii=False, allow_nan=False).encode()

    outcomes(case, DatasetError)


def test_summaries_of_the_human_check(output: Path) -> None:
    summary = {
        "answers": 3, "people": 1, "checked": 2, "rows": 9, "split": "test", "files": None,
        "shares": [{"threshold": 0.1, "share": 0.5, "low": 0.2, "high": 0.9}],
        "sources": [{"source": "partimagenet", "share": 0.5, "answers": 2}],
    }  # fmt: skip
    outcomes(lambda odd: read_content(written(odd, summary), output, AuditSummary, "go on"), DatasetError)


def test_parquet(output: Path, tmp_path: Path) -> None:
    file_of_case = tmp_path / "train.parquet"
    content = next((output / "data").iterdir()).read_bytes()
    columns = triplet_schema().names

    def case(odd: Odd) -> None:
        damaged = bytearray(content)
        for _ in range(odd.randint(1, 3)):
            # The footer, which says how the rest is read, is at the end.
            place = odd.randrange(len(damaged)) if odd.random() < 0.5 else len(damaged) - 1 - odd.randrange(4000)
            damaged[max(place, 0)] = odd.randrange(256)
        write_anew(file_of_case, bytes(damaged))
        some = odd.sample(columns, 6)
        with open_parquet(file_of_case, some) as file:
            for group in range(file.num_row_groups):
                read_group(file, group, some, file_of_case).to_pylist()

    outcomes(case, DatasetError)


def test_result_records() -> None:
    from tasks.running.kept_records import SERIALIZER, RefusedRecord, read_record
    from tasks.running.manifests import Manifest as Sealed
    from tasks.running.manifests import add_seal

    manifest = add_seal(
        Sealed(stage="verify", shard=1, path="a/b", rows=2, rejected={}, files={"a/b": "0"}, seconds=0.5, details={})
    )
    record = {
        "metadata": {"serializer": SERIALIZER | {"object_decoder": None}, "expiration": None, "storage_key": "k"},
        "result": json.dumps(manifest),
    }
    key = "verify-00001-0123456789abcdef"
    assert read_record(json.dumps(record).encode(), key)
    names = ["pickle", {"type": "pickle"}, "cloudpickle", "builtins.eval"]
    outcomes(lambda odd: read_record(written(odd, record, names), key), RefusedRecord)


def test_descriptions(tmp_path: Path) -> None:
    path = tmp_path / "descriptions.jsonl"
    rows = [{"id": "a", "description": "the tip of the left ear"}, {"id": "b", "description": "a paw"}]

    def case(odd: Odd) -> None:
        write_anew(
            path, b"\n".join(written(odd, row) if odd.random() < 0.5 else json.dumps(row).encode() for row in rows)
        )
        assert all(isinstance(text, str) for text in read_descriptions(path).values())

    outcomes(case, ConfigError)


def test_pickled_and_mirrored_references() -> None:
    ref = {"ann_id": 3, "image_id": 4, "ref_id": 5, "split": "val", "sentences": [{"sent": "Left Dog", "raw": "x"}]}
    reasons: set[str] = set()

    def case(odd: Odd) -> None:
        entry = changed(odd, ref) if odd.random() < 0.5 else ref
        entries = load_plain(
            odd.damaged(pickle.dumps([entry], odd.randrange(6)), (b"cos\nsystem\n", b"R", b"\x81", b"("))
        )
        for found in entries if isinstance(entries, list) else []:
            if isinstance(found, dict):
                parse_ref(found, "refs", lambda reason, _: reasons.add(reason))
        if mirrored := _json_mapping(written(odd, [ref])):
            json.dumps(mirrored, ensure_ascii=False).encode()

    outcomes(case, UnsafePickleError)
    assert reasons <= set(SKIP_REASONS)


def test_keypoint_annotations() -> None:
    def case(odd: Odd) -> None:
        usable_skeleton(odd.value(), 5)
        values: Any = [odd.randint(-5, 90) for _ in range(odd.choice((3, 6, 9, 10)))]
        if odd.random() < 0.5:
            values = [odd.scalar() if odd.random() < 0.2 else value for value in values]
        for x, y, _ in raw_keypoints({"keypoints": values, "num_keypoints": odd.value(1)}):
            assert isinstance(x + y, float)

    outcomes(case, BadAnnotationError)


def test_yaml() -> None:
    whole = b"a: &x [1, 2.5, {b: yes}]\nc: *x\nd:\n  - 'text'\n  - 2026-01-01\n"
    pieces = (b"&x ", b"*x", b"<<: *x\n", b"!!python/object:os.system ", b"!!float ", b"!!timestamp ", b"[", b"{",
              b"? ", b"- ", b".nan", b"\0", b"\xff", b"1:1:1", b"0x_", b"\t", b"!!binary ", b"!!set ")  # fmt: skip
    outcomes(lambda odd: load_yaml(odd.damaged(whole, pieces).decode(errors="replace")), yaml.YAMLError)


def test_coordinates_and_outlines() -> None:
    whole = ("[[[0.1, 0.2], [0.8, 0.2], [0.5, 0.9]], [[0.1, 0.1], [0.3, 0.1], [0.2, 0.4]]]", "[0.123, 0.456]",
             "[0.1, 0.2, 0.3, 0.4]", "[[[[0.1, 0.2], [0.8, 0.2], [0.5, 0.9]]]]")  # fmt: skip
    pieces = (
        b"[",
        b"]",
        b",",
        b"-",
        b"1e999",
        b"nan",
        b"0." + b"9" * 400,
        "٣".encode(),
        b"[" * 300,
        b"]]",
        b" ",
        b"\0",
    )

    def case(odd: Odd) -> None:
        chosen = odd.choice(whole).encode()
        text = (odd.damaged(chosen, pieces) if odd.random() < 0.7 else chosen).decode(errors="replace")
        scale = odd.choice(((1.0, 1.0), (1000.0, 1000.0)))
        strict, lenient = grammar.read_strict(text, scale=scale), grammar.read_lenient(text, scale=scale)
        assert (strict.outlines is None) != (strict.error is None)
        for ring in lenient.outlines.rings:
            assert all(0 <= value <= 1 for point in ring for value in point)
        with suppress(grammar.UnreadableError):
            assert all(0 <= value <= 1 for value in grammar.read_box(text, scale))
        assert all(0 <= value <= 1 for value in grammar.read_point(text, scale))

    outcomes(case, grammar.UnreadableError)


def test_answers_of_model_servers() -> None:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "a paw", "reasoning": None},
        "finish_reason": "stop",
    }
    answer = {"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 2}, "error": {"message": "no"}}
    waits = ("1", "-1", "nan", "1e999", "Wed, 21 Oct 2026 07:28:00 GMT", "\x00", "9" * 400, "Fri, 99 Foo 0000", "")
    kinds = ("application/json", "text/html; charset=no-such", "text/plain; charset=utf-7", "", "a;b;charset=")

    def case(odd: Odd) -> None:
        headers = {"Retry-After": odd.choice(waits), "Content-Type": odd.choice(kinds)}
        response = httpx.Response(odd.choice((200, 400, 429, 500)), headers=headers, content=written(odd, answer))
        error_message(response).encode()
        assert (wait := retry_after(response)) is None or wait >= 0
        found = read_completion(response)
        assert isinstance(found, Completion | RequestError)
        if isinstance(found, Completion):
            found.text.encode()

    outcomes(case, Retry)


def test_answers_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx2
    import huggingface_hub
    from huggingface_hub import constants

    from talking_points import hub_client
    from talking_points.publishing.hub import Repository, explaining

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_localwriter0000")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
    entry = {"type": "file", "path": "data/a.parquet", "size": 3, "oid": "a" * 40,
             "lfs": {"oid": "b" * 64, "size": 3, "pointerSize": 134}}  # fmt: skip
    bodies: dict[str, Any] = {
        "/api/repos/create": {"url": "https://huggingface.co/datasets/org/name", "name": "org/name", "id": "1"},
        "/refs": {"branches": [{"name": "main", "ref": "refs/heads/main", "targetCommit": "a" * 40}], "tags": [],
                  "converts": []},
        "/tree/": [entry, {"type": "directory", "path": "data", "oid": "c", "size": 0}],
        "/preupload/": {"files": [{"path": "README.md", "uploadMode": "regular", "shouldIgnore": False, "oid": None}]},
        "/commit/": {"success": True, "commitUrl": f"https://huggingface.co/datasets/org/name/commit/{'a' * 40}",
                     "commitOid": "a" * 40, "hookOutput": ""},
        "": {"id": "org/name", "sha": "a" * 40, "private": False, "siblings": [{"rfilename": "data/a.parquet"}],
             "lastModified": "2026-01-01T00:00:00.000Z", "tags": [], "gated": False, "cardData": {"license": "mit"}},
    }  # fmt: skip
    turn = {"odd": Odd(0)}

    def answer(request: httpx2.Request) -> httpx2.Response:
        odd = turn["odd"]
        body = next(body for part, body in bodies.items() if part in request.url.path)
        content = written(odd, body) if odd.random() < 0.4 else json.dumps(body).encode()
        headers = {"Content-Type": odd.choice(("application/json", "text/html"))}
        if odd.random() < 0.1:
            headers[odd.choice(("Link", "Location", "Retry-After", "X-Error-Message", "X-Error-Code"))] = odd.choice(
                ('<x>; rel="next"', "//[", "9" * 50, "RepoNotFound", "http://127.0.0.1/")
            )
        return httpx2.Response(200 if odd.random() < 0.9 else odd.choice((302, 403, 404, 409)), headers=headers,
                               content=content)  # fmt: skip

    hub_client.bounded_hub()
    client = hub_client._client()
    mocked = httpx2.Client(
        transport=httpx2.MockTransport(answer), event_hooks=client.event_hooks, follow_redirects=True, max_redirects=5
    )
    huggingface_hub.set_client_factory(lambda: mocked)
    try:
        repository = Repository.connect("org/name", "dataset", None)

        def case(odd: Odd) -> None:
            turn["odd"] = odd
            with explaining("cannot publish"):
                way = odd.randrange(4)
                if way == 0:
                    repository.open(private=odd.random() < 0.5)
                elif way == 1:
                    repository.commit("message", {"notes.txt": "text"}, ["old"], "a" * 40)
                elif way == 2:
                    repository.check("a" * 40, {"data/a.parquet": "abc"}, digests={"data/a.parquet": "b" * 64})
                else:
                    repository.tag("v1", "a" * 40)

        outcomes(case, RunError, InputError)
    finally:
        huggingface_hub.set_client_factory(hub_client._client)


def test_model_folders(tmp_path: Path) -> None:
    text = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = {"architectures": ["PointDescriptor"], "text_config": {**text, "num_key_value_heads": 2, "vocab_size": 99}}
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    weights = len(header).to_bytes(8, "little") + header + b"\0\0\0\0"
    (tmp_path / "model.safetensors").write_bytes(weights)
    step = StepConfig.model_validate({"backend": "transformers", "model": str(tmp_path)})

    def case(odd: Odd) -> None:
        one, whole = odd.random() < 0.5, json.dumps(config).encode()
        write_anew(tmp_path / "config.json", written(odd, config) if one else whole)
        pieces = (b"\xff" * 8, b"[", b"version ")
        write_anew(tmp_path / "model.safetensors", weights if one else odd.damaged(weights, pieces))
        model_size(step)
        check_model(tmp_path, "descriptor")

    outcomes(case, ConfigError)


def test_names_of_models_and_gguf_files() -> None:
    pieces = (b"\0", b"/", b"..", b"~", b"::", b"[", b"\xff", b"\n", b"hf://", b"/proc/self/", b"@", b" ", b"//[")

    def case(odd: Odd) -> None:
        name = odd.damaged(odd.choice((b"/models/a.gguf", b"org/name", b"~/a.Q4_K_M.gguf")), pieces).decode(
            errors="replace"
        )
        identify_model(name, odd.choice((None, "main", "..", "")))
        unavailable(name, "model")
        model_size(StepConfig.model_construct(backend="llama_cpp", model=name, options={}))

    outcomes(case)


def test_reports_of_evaluations(tmp_path: Path) -> None:
    from talking_points.evaluation.tables import paper_tables
    from tests.evaluation.test_tables import report

    path = tmp_path / "human.json"
    report().save(path)
    saved = json.loads(path.read_text())

    def case(odd: Odd) -> None:
        write_anew(path, written(odd, saved))
        found = read_reports([f"human={path}"])
        if odd.random() < 0.02:
            paper_tables(found)

    outcomes(case, ConfigError)
