"""vLLM's offline engine in process: continuous batching over the requests of all callers.

One thread feeds and steps the engine. Callers only wait for their own answers, so a shard's slowest row never keeps
the engine from the rows of other shards; ``idle_share`` says how much of the time it had nothing to do.
"""

from __future__ import annotations

import gc
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import vllm
from PIL import Image
from vllm import LLM, SamplingParams
from vllm.sampling_params import StructuredOutputsParams
from vllm.v1.engine.exceptions import EngineDeadError

from talking_points.build_config import StepConfig
from talking_points.descriptions.backends.chat import messages, refusal, special_tokens, strip_marks, too_long
from talking_points.descriptions.backends.protocol import (
    BackendUnavailable,
    Capabilities,
    ChatRequest,
    Completion,
    OnAnswer,
    RequestError,
)

Answer = Completion | RequestError
_DEFAULTS: dict[str, Any] = {
    "enable_prefix_caching": True,
    "limit_mm_per_prompt": {"image": 1},
    # With free white space a weak model may fill its whole answer with it.
    "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
}
_Waiting = tuple[ChatRequest, "Future[Answer]"]


class VllmBackend:
    """Loads ``config.model`` into one engine and answers chat requests with it.

    ``config.options`` goes to ``vllm.LLM``, for example ``quantization``, ``max_model_len``, ``tensor_parallel_size``
    or ``gpu_memory_utilization``. Prefix caching is on: the few-shot part of a prompt is computed once.
    """

    def __init__(self, config: StepConfig) -> None:
        self._config = config
        options = {**_DEFAULTS, **config.options}
        try:
            self._llm: Any = LLM(
                model=str(config.model), revision=config.revision, dtype=config.dtype, seed=0, **options
            )
        except (OSError, ValueError, RuntimeError, ImportError, TypeError) as error:
            raise BackendUnavailable(
                f"vLLM cannot load '{config.model}' (revision {config.revision or 'main'}): {error}. Expected a Hub id "
                "or a folder with safetensors weights of a supported architecture, and engine options in .options"
            ) from error
        model = self._llm.model_config
        self._limit = int(model.max_model_len)
        self._marks = special_tokens(self._llm.get_tokenizer())
        self.capabilities = Capabilities(vision=model.is_multimodal_model, guided_decoding=True, concurrent=True)
        self._inbox: queue.Queue[_Waiting | None] = queue.Queue()
        self._started = time.monotonic()
        self._idle = 0.0
        self._failure: BackendUnavailable | None = None
        self._thread = threading.Thread(target=self._serve, name="vllm-backend", daemon=True)
        self._thread.start()

    @property
    def identity(self) -> Mapping[str, str]:
        """Model, commit, number format, quantization and the engine's version."""
        model = self._llm.model_config
        return {
            "backend": "vllm",
            "model": str(self._config.model),
            "revision": getattr(model.hf_config, "_commit_hash", None) or self._config.revision or "",
            "dtype": str(model.dtype).removeprefix("torch."),
            "quantization": str(model.quantization or ""),
            "vllm": vllm.__version__,
        }

    @property
    def idle_share(self) -> float:
        """Share of the engine's life in which it waited for requests."""
        return self._idle / max(time.monotonic() - self._started, 1e-9)

    def complete(self, requests: Sequence[ChatRequest], on_answer: OnAnswer | None = None) -> list[Answer]:
        """Answer every request, in order; may be called from several threads at once."""
        futures: list[Future[Answer]] = []
        for request in requests:
            future: Future[Answer] = Future()
            if on_answer:
                future.add_done_callback(_make_callback(on_answer, request))
            futures.append(future)
            refused = refusal(request, self.capabilities.vision)
            if refused:
                future.set_result(refused)
            else:
                self._inbox.put((request, future))
        if self._failure:
            raise self._failure
        return [future.result() for future in futures]

    def close(self) -> None:
        """Stop the engine and release its memory."""
        if not self._thread.is_alive():
            return
        self._inbox.put(None)
        self._thread.join()
        self._llm.llm_engine.engine_core.shutdown()
        self._llm = None
        gc.collect()

    def _serve(self) -> None:
        """Feed and step the engine until ``close``."""
        running: dict[str, _Waiting] = {}
        try:
            while self._take_in(running):
                for output in self._llm.llm_engine.step():
                    if output.finished:
                        request, future = running.pop(output.request_id)
                        future.set_result(self._completion(output, request))
        except Exception as error:
            self._failure = BackendUnavailable(f"the vLLM engine stopped: {type(error).__name__}: {error}")
            for _, future in running.values():
                future.set_exception(self._failure)
            self._refuse_the_rest()

    def _take_in(self, running: dict[str, _Waiting]) -> bool:
        """Hand waiting requests to the engine; waits for one where the engine has none. False: closed."""
        while True:
            started = time.monotonic()
            try:
                waiting = self._inbox.get(block=not running)
            except queue.Empty:
                return True
            self._idle += time.monotonic() - started
            if waiting is None:
                return False
            request, future = waiting
            try:
                (identifier,) = self._llm.enqueue_chat(
                    [_chat(strip_marks(request, self._marks))], [_make_sampling(request)], use_tqdm=False
                )
            except EngineDeadError:
                running[request.id] = waiting
                raise
            except Exception as error:  # whatever rendering refuses is this request's own
                future.set_result(self._explain_refusal(error))
            else:
                # The engine appends a random part to the id; its outputs carry the id without it.
                running[identifier.partition("-")[0]] = waiting

    def _refuse_the_rest(self) -> None:
        while True:
            waiting = self._inbox.get()
            if waiting is None:
                return
            waiting[1].set_exception(self._failure)

    def _explain_refusal(self, error: Exception) -> RequestError:
        message = " ".join(str(error).split())
        if "length" in message and str(self._limit) in message:
            return RequestError("too_long", message[:300])
        return RequestError("bad_request", message[:300])

    def _completion(self, output: Any, request: ChatRequest) -> Answer:
        answer = output.outputs[0]
        prompt_tokens, tokens = len(output.prompt_token_ids), len(answer.token_ids)
        if answer.finish_reason == "stop":
            return Completion(answer.text, "stop", prompt_tokens, tokens)
        if answer.finish_reason == "length":
            # Cut by the context rather than by its own limit: the request was too long from the start.
            if tokens < request.max_tokens:
                return too_long(prompt_tokens, request.max_tokens, self._limit)
            return Completion(answer.text, "length", prompt_tokens, tokens)
        return RequestError("unexpected_finish", f"the engine ended the answer with '{answer.finish_reason}'", True)


def _make_callback(on_answer: OnAnswer, request: ChatRequest) -> Any:
    def tell(future: Future[Answer]) -> None:
        if not future.exception():
            on_answer(request, future.result())

    return tell


def _chat(request: ChatRequest) -> list[dict[str, Any]]:
    return messages(request, lambda image: {"type": "image_pil", "image_pil": Image.fromarray(image)})


def _make_sampling(request: ChatRequest) -> SamplingParams:
    structured = StructuredOutputsParams(json=dict(request.schema)) if request.schema is not None else None
    return SamplingParams(
        temperature=request.temperature,
        seed=request.seed,
        max_tokens=request.max_tokens,
        structured_outputs=structured,
    )
