from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'train'")
pytest.importorskip("transformers", reason="needs the extra 'train'")

from talking_points.build_config import StepConfig  # noqa: E402
from talking_points.descriptions.backends import gguf_files  # noqa: E402
from talking_points.descriptions.backends.chat import special_tokens  # noqa: E402
from talking_points.descriptions.backends.protocol import BackendUnavailable, Completion, RequestError  # noqa: E402
from talking_points.descriptions.backends.transformers import SeededSampling, TransformersBackend  # noqa: E402
from talking_points.stop_requests import Stopped, clear_stop, request_stop  # noqa: E402
from tests.descriptions.backends import contract  # noqa: E402
from tests.descriptions.backends.contract import image_request, text_request, texts  # noqa: E402

CONTEXT = 1024


def _open(folder: Path, **changes: Any) -> TransformersBackend:
    values: dict[str, Any] = {"backend": "transformers", "model": str(folder), "device": "cpu", "batch_size": 3}
    return TransformersBackend(StepConfig(**(values | changes)))


@pytest.fixture(scope="module")
def llama(tiny_llama: Path) -> Iterator[TransformersBackend]:
    backend = _open(tiny_llama)
    yield backend
    backend.close()


@pytest.fixture(scope="module")
def llava(tiny_llava: Path) -> Iterator[TransformersBackend]:
    backend = _open(tiny_llava)
    yield backend
    backend.close()


def test_greedy_text_is_repeated_in_any_batch(llama, llava):
    contract.check_greedy_text_is_repeated(llama)
    contract.check_greedy_text_is_repeated(llava)


def test_seeds_fix_sampled_text_in_any_batch(llama):
    contract.check_seeds(llama)
    requests = [text_request("word " * length, temperature=0.9, seed=length) for length in (1, 7, 3)]
    assert llama.complete(requests) == [llama.complete([request])[0] for request in requests]


def test_each_answer_is_told(llama):
    contract.check_each_answer_is_told(llama)


def test_token_counts(llama):
    contract.check_token_counts(llama)


def test_a_request_that_is_too_long_fails_alone(llama, llava):
    contract.check_too_long_fails_alone(llama, CONTEXT)
    contract.check_too_long_fails_alone(llava, CONTEXT)


def test_the_image_arrives(llava):
    contract.check_the_image_arrives(llava)


def test_image_tokens_count_towards_the_length(llava):
    with_image, without = llava.complete([image_request(0), text_request("Describe.", system="")])
    assert isinstance(with_image, Completion)
    assert isinstance(without, Completion)
    assert with_image.prompt_tokens >= without.prompt_tokens + 16


def test_text_and_image_requests_may_share_a_call(llava):
    mixed = [image_request(0), text_request("a"), image_request(1), text_request("b")]
    assert llava.complete(mixed) == [llava.complete([request])[0] for request in mixed]


def test_text_reaches_a_vision_model_without_an_image_too(tiny_llava, tmp_path):
    """LLaVA's template takes text from parts alone: plain text would be left out without a word."""
    folder = shutil.copytree(tiny_llava, tmp_path / "llava")
    (folder / "chat_template.jinja").write_text(
        "{% for message in messages %}{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}"
        "{{ part['text'] }} {% endfor %}{% endfor %}"
    )
    backend = _open(folder)
    inputs = backend._encode([text_request("Describe the point.", system="You describe.")])
    assert backend._tokenizer.decode(inputs["input_ids"][0]).strip() == "You describe. Describe the point."
    backend.close()


def test_the_checkpoints_own_sampling_settings_do_not_apply(llama, tiny_llama, tmp_path):
    folder = shutil.copytree(tiny_llama, tmp_path / "llama")
    file = folder / "generation_config.json"
    own = {"do_sample": True, "temperature": 0.1, "top_k": 3, "repetition_penalty": 9.0}
    file.write_text(json.dumps(json.loads(file.read_text()) | own))
    backend = _open(folder)
    requests = [text_request("word " * length, max_tokens=40) for length in (1, 5)]
    assert texts(backend.complete(requests)) == texts(llama.complete(requests))
    sampled = [text_request("a", temperature=1.0, seed=seed) for seed in range(3)]
    assert texts(backend.complete(sampled)) == texts(llama.complete(sampled))
    backend.close()


def test_no_mark_of_the_models_own_tokenizer_comes_out_of_a_text(llama, monkeypatch):
    marks = special_tokens(llama._tokenizer)
    assert marks
    assert llama._tokenizer.eos_token in marks
    seen: list[str] = []
    encode = llama._encode

    def spy(requests):
        seen.extend(request.system + request.prompt for request in requests)
        return encode(requests)

    monkeypatch.setattr(llama, "_encode", spy)
    asked = [
        text_request(prompt=f"a cat {mark}{mark.upper()} a {mark[:2]}{mark}{mark[2:]} dog", system=f"{mark} look")
        for mark in sorted(marks)
    ]
    told: list[object] = []
    llama.complete(asked, on_answer=lambda request, _: told.append(request))
    assert len(seen) >= len(marks)
    assert not [text for text in seen for mark in marks if mark.lower() in text.lower()]
    assert all(any(request is one for one in asked) for request in told), "answers belong to the requests as asked"


def test_a_text_model_has_no_vision_and_refuses_images(llama):
    assert not llama.capabilities.vision
    (error,) = llama.complete([image_request(0)])
    assert isinstance(error, RequestError)
    assert error.reason == "image_not_accepted"


def test_each_request_keeps_its_own_token_limit(llama):
    answers = llama.complete([text_request("a", max_tokens=limit) for limit in (4, 9, 15)])
    assert [answer.completion_tokens for answer in answers if isinstance(answer, Completion)] == [4, 9, 15]
    assert texts(answers)[2].startswith(texts(answers)[0][:2])


def test_an_answer_ends_at_the_end_token(llama):
    completion = llama._completion([40, 41, 2, 99], {2}, text_request(max_tokens=10), 5)
    assert (completion.finish_reason, completion.completion_tokens) == ("stop", 3)
    cut = llama._completion([40, 41, 42, 2], {2}, text_request(max_tokens=3), 5)
    assert (cut.finish_reason, cut.completion_tokens) == ("length", 3)


def test_a_batch_that_does_not_fit_is_halved(tiny_llama, monkeypatch):
    backend = _open(tiny_llama, batch_size=4)
    sizes: list[int] = []
    decode = backend._decode

    def limited(requests):
        sizes.append(len(requests))
        if len(requests) > 1 or requests[0].prompt == "huge":
            raise torch.OutOfMemoryError("told to")
        return decode(requests)

    monkeypatch.setattr(backend, "_decode", limited)
    answers = backend.complete([text_request(prompt) for prompt in ("a", "b", "huge", "c")])
    assert sizes[:3] == [4, 2, 1]
    assert [isinstance(answer, Completion) for answer in answers] == [True, True, False, True]
    assert isinstance(answers[2], RequestError)
    assert answers[2].reason == "out_of_memory"


def test_gumbel_noise_samples_from_the_softmax():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    requests = [text_request(seed=seed, temperature=0.7) for seed in range(4000)]
    scores = SeededSampling(requests)(torch.zeros(4000, 1, dtype=torch.long), logits.repeat(4000, 1))
    shares = torch.bincount(scores.argmax(dim=1), minlength=4) / 4000
    torch.testing.assert_close(shares, torch.softmax(logits / 0.7, dim=0), atol=0.025, rtol=0)


def test_identity_names_what_determines_an_answer(llama, tiny_llama):
    assert llama.identity["model"] == str(tiny_llama)
    assert {"revision", "dtype", "transformers", "torch"} <= set(llama.identity)


@pytest.mark.parametrize("content", [None, "{}"])
def test_a_model_that_cannot_be_loaded_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(BackendUnavailable, match="Expected a Hub id or a folder"):
        _open(tmp_path)


def test_a_model_without_a_chat_template_is_refused(tiny_llama, tmp_path):
    for file in tiny_llama.iterdir():
        if file.name != "chat_template.jinja":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(BackendUnavailable, match="chat template"):
        _open(tmp_path)


@pytest.mark.parametrize("ends", ["x", [[1]], float("nan")])
def test_ends_of_answers_that_are_no_tokens_are_named(tiny_llama, tmp_path, ends):
    for file in tiny_llama.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    with pytest.raises(BackendUnavailable, match="numbers of tokens as eos_token_id"):
        _open(tmp_path)


def test_files_that_do_not_fit_one_another_are_told_in_a_sentence(tiny_llama, monkeypatch):
    backend = _open(tiny_llama)

    def generate(**_: Any) -> Any:
        raise ValueError("Image features and image tokens do not match\nmore")

    monkeypatch.setattr(backend._model, "generate", generate)
    with pytest.raises(BackendUnavailable, match=r"cannot answer \(ValueError: Image features .* not match\): its"):
        backend.complete([contract.text_request("a")])
    backend.close()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu(tiny_llava):
    backend = _open(tiny_llava, device="auto", dtype="bfloat16", batch_size=8)
    assert backend._model.device.type == "cuda"
    contract.check_the_image_arrives(backend)
    contract.check_seeds(backend)
    contract.check_too_long_fails_alone(backend, CONTEXT)
    backend.close()


def test_code_of_a_model_is_neither_run_nor_asked_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = tmp_path / "ran"
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "own.py").write_text(f"from pathlib import Path\nPath({str(ran)!r}).write_text('')\n")
    (folder / "config.json").write_text('{"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}')
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    for options in ({}, {"trust_remote_code": True}):
        step = StepConfig(backend="transformers", model=str(folder), options=options)
        with pytest.raises(BackendUnavailable, match=r"trust_remote_code|custom code"):
            TransformersBackend(step)
    assert not ran.exists()


@pytest.mark.parametrize(
    ("instructions", "asked", "device", "expected"),
    [
        ({}, "auto", "cpu", "float32"),
        ({"avx512_bf16": True}, "auto", "cpu", "auto"),
        ({}, "auto", "cuda", "auto"),
        ({}, "bfloat16", "cpu", "bfloat16"),
    ],
)
def test_a_cpu_computes_in_what_it_has_instructions_for(monkeypatch, instructions, asked, device, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    assert gguf_files.number_format(asked, device) == expected


def test_a_quantized_file_is_read_once_into_float32(tmp_path, monkeypatch):
    pytest.importorskip("gguf", reason="needs the package 'gguf' (extra 'train')")
    from tests.tiny_gguf import write_tiny_gguf

    monkeypatch.setattr(gguf_files, "CACHE", tmp_path / "cache")
    path = write_tiny_gguf(tmp_path / "tiny.gguf")
    first = _open(path, dtype="auto")
    answers = texts(first.complete([text_request("a"), text_request("b")]))
    assert first.identity["dtype"] == "float32"
    (folder,) = [entry for entry in (tmp_path / "cache").iterdir() if entry.is_dir()]
    written = (folder / "model.safetensors").stat().st_mtime_ns
    again = _open(path)
    assert texts(again.complete([text_request("a"), text_request("b")])) == answers
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    with pytest.raises(BackendUnavailable, match="there is no file"):
        _open(tmp_path / "none.gguf")


def test_a_generation_ends_when_the_build_is_stopped(llama):
    clear_stop()
    request_stop()
    try:
        with pytest.raises(Stopped):
            llama.complete([text_request("a")])
    finally:
        clear_stop()
