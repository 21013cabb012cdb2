"""GGUF models in process through llama-cpp-python, for quantized models on one machine. Text only, one by one.

Prompts are evaluated in blocks of equal length from their start. A block that the prompt before began with too is not
evaluated again: what is kept of it is bit for bit what would come out, so that an answer depends on its own request
alone, whatever was asked before. Answers repeat much of their prompt; tokens that are guessed from it are evaluated
together and kept as far as they are what the model would have said (prompt lookup; Saxena 2023).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from huggingface_hub import hf_hub_download
from jinja2.exceptions import TemplateError
from llama_cpp import Llama, llama_chat_format
from llama_cpp.llama_speculative import LlamaDraftModel
from numpy.typing import NDArray

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
from talking_points.descriptions.backends.requantized import requantized
from talking_points.errors import InputError
from talking_points.hub_client import bounded_hub
from talking_points.models.gguf_header import check_gguf
from talking_points.models.template_limits import bound_templates, one_rendering

OPTIONS: Mapping[str, Any] = {"n_ctx": 4096, "n_gpu_layers": -1, "n_batch": 64, "guessed": 8}
"""Tokens of prompt and answer together, layers on an accelerator (-1: all), tokens of a prompt that are evaluated
together, and tokens of an answer that are guessed at most (0: none); ``.options`` of a step goes before them."""

_EXCEEDS = re.compile(r"Requested tokens \((\d+)\) exceed context window")
_SNAPSHOT = re.compile(r"/snapshots/([0-9a-f]{40})/")
"""The commit in the path of a file that was downloaded from the Hub."""


class _SaidBefore(LlamaDraftModel):
    """Guesses what followed the last words where they were said last, as far as ``tokens``.

    The library's own takes the place where they were said first, which is in a prompt's examples, and single words.
    """

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens

    def __call__(self, input_ids: NDArray[np.intc], /, **_: Any) -> NDArray[np.intc]:
        """The guess, int (n,), after ``input_ids``, int (length,)."""
        for size in (4, 3, 2):
            if len(input_ids) <= size:
                continue
            runs = np.lib.stride_tricks.sliding_window_view(input_ids[:-1], size)
            places = np.flatnonzero((runs == input_ids[-size:]).all(axis=1))
            if places.size:
                return input_ids[places[-1] + size :][: self._tokens]
        return input_ids[:0]


class BlockwiseLlama(Llama):
    """A ``Llama`` that evaluates prompts block by block, those apart that the prompt before began with."""

    _prompt: Sequence[int] = ()
    """The prompt whose blocks the cache holds from its start."""
    _answering = False

    def __init__(self, *, guessed: int, **options: Any) -> None:
        """``guessed``: tokens of an answer that are guessed at most; ``options`` are the library's."""
        super().__init__(**options)
        # A memory that cannot go back, or forgets what is out of its window, is begun anew for every prompt.
        self._goes_back = not (self._is_recurrent or self._is_hybrid or options.get("swa_full") is False)
        self.guessed = min(guessed, self.n_batch - 1) if self._goes_back else 0
        if self.guessed > 0:
            # Given to the constructor, it would have the probabilities after every token of a prompt computed and kept.
            self.draft_model = _SaidBefore(self.guessed)

    def create_completion(self, prompt: str | list[int], *given: Any, **settings: Any) -> Any:
        """As the library's, of a prompt in tokens."""
        tokens = prompt if isinstance(prompt, list) else []
        # At the least one token is left to evaluate, after which the answer begins.
        kept = _shared(self._prompt, tokens[:-1]) // self.n_batch * self.n_batch if self._goes_back else 0
        self.reset()
        self.n_tokens = kept
        self._prompt, self._answering = (), False
        completion = super().create_completion(prompt, *given, **settings)
        self._prompt = tokens
        return completion

    def eval(self, tokens: Sequence[int]) -> None:
        """Evaluate a prompt's tokens, the first time after ``create_completion``; after that those of its answer."""
        self._ctx.kv_cache_seq_rm(-1, self.n_tokens, -1)
        for start in range(0, len(tokens), self.n_batch):
            block = tokens[start : start + self.n_batch]
            # Of a prompt only the last token is answered, of guessed tokens every one.
            self._batch.set_batch(batch=block, n_past=self.n_tokens, logits_all=self._answering)
            self._ctx.decode(self._batch)
            self.input_ids[self.n_tokens : self.n_tokens + len(block)] = block
            self.n_tokens += len(block)
        self._requires_eval, self._answering = False, True


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two prompts have in common from their start."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(first), len(second)))


class LlamaCppBackend:
    """Answers chat requests with one GGUF file.

    ``config.model`` is the path of the file, or a Hub id together with ``options.filename``, the file in it. The other
    options go to ``llama_cpp.Llama``, for example ``n_ctx``, ``n_gpu_layers`` (default: all) and ``n_threads``;
    ``guessed`` is the number of an answer's tokens that are guessed from what stands before and evaluated together,
    ``stop`` are texts that an answer ends before, for models that do not know where to, and ``quantize`` is another
    format to compute in: Q8_0 takes half the time of Q4_1 for a prompt on a CPU.
    """

    capabilities = BACKENDS["llama_cpp"].capabilities

    def __init__(self, config: StepConfig) -> None:
        self._config = config
        options: dict[str, Any] = {**OPTIONS, "verbose": False, **config.options}
        # On cores that others use too, every further thread waits for the slowest with its processor busy.
        options.setdefault("n_threads_batch", options.get("n_threads"))
        filename, self._stop = options.pop("filename", None), options.pop("stop", [])
        quantize = options.pop("quantize", None)
        bounded_hub()
        try:
            path = (
                hf_hub_download(str(config.model), filename, revision=config.revision)
                if filename
                else str(config.model)
            )
            check_gguf(path)
            self._size = Path(path).stat().st_size
            commit = _SNAPSHOT.search(path) if filename else None
            path = requantized(path, quantize) if quantize else path
            bound_templates(llama_chat_format)
            self._llama: Any = BlockwiseLlama(model_path=path, seed=0, **options)
        except (InputError, OSError, ValueError, RuntimeError, TypeError, TemplateError) as error:
            raise BackendUnavailable(
                f"llama.cpp cannot load '{config.model}': {error}. Expected the path of a GGUF file, or a Hub id with "
                "options.filename, the name of a GGUF file in it"
            ) from error
        self._limit = int(self._llama.n_ctx())
        self._marks = _special_tokens(self._llama)
        self._evaluation = f"{quantize or 'as filed'}, blocks of {self._llama.n_batch}, {self._llama.guessed} guessed"
        self._revision = commit[1] if commit else config.revision or ""

    @property
    def identity(self) -> Mapping[str, str]:
        """The file, its size, its commit, the library's version, and how tokens are evaluated."""
        return {
            "backend": "llama_cpp",
            "model": str(self._config.model),
            "file": str(self._config.options.get("filename", "")),
            "revision": self._revision,
            "bytes": str(self._size),
            "llama_cpp": llama_cpp.__version__,
            "evaluation": self._evaluation,
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
        try:
            with one_rendering():
                response = self._llama.create_chat_completion(
                    messages(strip_marks(request, self._marks)),
                    max_tokens=request.max_tokens,
                    temperature=request.temperature,
                    seed=request.seed,
                    stop=self._stop,
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
