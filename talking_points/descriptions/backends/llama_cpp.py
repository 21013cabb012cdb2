"""GGUF models in process through llama-cpp-python, for quantized models on one machine. Text only, one by one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import llama_cpp
from huggingface_hub import hf_hub_download
from jinja2.exceptions import TemplateError
from llama_cpp import Llama, llama_chat_format

from talking_points.build_config import StepConfig
from talking_points.descriptions.backends import BACKENDS
from talking_points.descriptions.backends.chat import marks_among, messages, refusal, strip_marks, too_long
from talking_points.descriptions.backends.protocol import (
    BackendUnavailable,
    ChatRequest,
    Completion,
    FinishReason,
    OnAnswer,
    RequestError,
)
from talking_points.errors import InputError
from talking_points.hub_client import bounded_hub
from talking_points.models.gguf_header import check_gguf
from talking_points.models.template_limits import bound_templates, one_rendering

CONTEXT = 4096
"""Tokens of prompt and answer together; ``options.n_ctx`` changes it."""

_EXCEEDS = re.compile(r"Requested tokens \((\d+)\) exceed context window")
_SNAPSHOT = re.compile(r"/snapshots/([0-9a-f]{40})/")
"""The commit in the path of a file that was downloaded from the Hub."""


class LlamaCppBackend:
    """Answers chat requests with one GGUF file.

    ``config.model`` is the path of the file, or a Hub id together with ``options.filename``, the file in it. The other
    options go to ``llama_cpp.Llama``, for example ``n_ctx``, ``n_gpu_layers`` (default: all) and ``n_threads``.
    """

    capabilities = BACKENDS["llama_cpp"].capabilities

    def __init__(self, config: StepConfig) -> None:
        self._config = config
        options: dict[str, Any] = {"n_ctx": CONTEXT, "n_gpu_layers": -1, "verbose": False, **config.options}
        filename = options.pop("filename", None)
        bounded_hub()
        try:
            path = (
                hf_hub_download(str(config.model), filename, revision=config.revision)
                if filename
                else str(config.model)
            )
            check_gguf(path)
            bound_templates(llama_chat_format)
            self._llama: Any = Llama(model_path=path, seed=0, **options)
        except (InputError, OSError, ValueError, RuntimeError, TypeError, TemplateError) as error:
            raise BackendUnavailable(
                f"llama.cpp cannot load '{config.model}': {error}. Expected the path of a GGUF file, or a Hub id with "
                "options.filename, the name of a GGUF file in it"
            ) from error
        self._limit = int(self._llama.n_ctx())
        self._marks = _special_tokens(self._llama)
        self._size = Path(path).stat().st_size
        commit = _SNAPSHOT.search(path) if filename else None
        self._revision = commit[1] if commit else config.revision or ""

    @property
    def identity(self) -> Mapping[str, str]:
        """The file, its size, its commit, and the library's version."""
        return {
            "backend": "llama_cpp",
            "model": str(self._config.model),
            "file": str(self._config.options.get("filename", "")),
            "revision": self._revision,
            "bytes": str(self._size),
            "llama_cpp": llama_cpp.__version__,
        }

    def complete(
        self, requests: Sequence[ChatRequest], on_answer: OnAnswer | None = None
    ) -> list[Completion | RequestError]:
        """Answer the requests one after another."""
        answers = []
        for request in requests:
            answer = refusal(request, vision=False) or self._answer(request)
            answers.append(answer)
            if on_answer:
                on_answer(request, answer)
        return answers

    def close(self) -> None:
        """Release the model and its memory."""
        if self._llama is not None:
            self._llama.close()
            self._llama = None

    def _answer(self, request: ChatRequest) -> Completion | RequestError:
        schema = {"type": "json_object", "schema": dict(request.schema)} if request.schema is not None else None
        # A text may depend on what the cache holds: every request starts from an empty one.
        self._llama.reset()
        try:
            with one_rendering():
                response = self._llama.create_chat_completion(
                    messages(strip_marks(request, self._marks)),
                    max_tokens=request.max_tokens,
                    temperature=request.temperature,
                    seed=request.seed,
                    response_format=schema,
                )
        except (ValueError, TemplateError) as error:
            exceeds = _EXCEEDS.search(str(error))
            if exceeds:
                return too_long(int(exceeds[1]), request.max_tokens, self._limit)
            return RequestError("bad_request", " ".join(str(error).split())[:300])
        choice, prompt_tokens = response["choices"][0], int(response["usage"]["prompt_tokens"])
        text = choice["message"]["content"] or ""
        finish: FinishReason = "length" if choice["finish_reason"] == "length" else "stop"
        if finish == "length" and prompt_tokens + request.max_tokens > self._limit:
            return too_long(prompt_tokens, request.max_tokens, self._limit)
        # The library's own count of answer tokens is unreliable.
        tokens = len(self._llama.tokenize(text.encode(), add_bos=False, special=False))
        return Completion(text, finish, prompt_tokens, request.max_tokens if finish == "length" else tokens)


def _special_tokens(llama: Any) -> frozenset[str]:
    """The marks of a GGUF file's vocabulary: its control tokens and those that its makers added."""
    vocabulary = llama_cpp.llama_model_get_vocab(llama.model)
    marks = (
        llama_cpp.LLAMA_TOKEN_ATTR_CONTROL
        | llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED
        | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN
    )
    return marks_among(
        llama_cpp.llama_vocab_get_text(vocabulary, token).decode("utf-8", "ignore")
        for token in range(llama.n_vocab())
        if llama_cpp.llama_vocab_get_attr(vocabulary, token) & marks
    )
