"""Hugging Face models in process: LLaVA and any other image-text model, or a text-only causal language model.

Batches are padded on the left and decoded with a KV cache. Sampling draws from one generator per request (Gumbel-max),
so that a seed gives the same text in any batch.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from talking_points.build_config import StepConfig
from talking_points.descriptions.backends.chat import messages, refusal, special_tokens, strip_marks, too_long
from talking_points.descriptions.backends.gguf_files import dequantized, number_format
from talking_points.descriptions.backends.protocol import (
    BackendUnavailable,
    Capabilities,
    ChatRequest,
    Completion,
    OnAnswer,
    RequestError,
)
from talking_points.hub_client import bounded_hub, silent_hubs
from talking_points.hub_commits import pinned
from talking_points.models.hub_weights import check_hub_weights
from talking_points.models.model_folders import check_files
from talking_points.models.model_limits import ModelLimitError, check_counts, within_limits
from talking_points.stop_requests import stop_if_requested, stop_requested

_NO_CODE: dict[str, Any] = {"trust_remote_code": False}
"""Said outright: where nothing is said, transformers asks on the terminal."""


class TransformersBackend:
    """Loads ``config.model`` (a Hub id or a folder, safetensors only) and answers chat requests with it.

    ``config.options`` goes to ``from_pretrained``, for example ``quantization_config`` or ``attn_implementation``.
    ``config.device`` is "auto" (CUDA where there is one), "cpu" or "cuda:1"; ``config.dtype`` "auto" or a torch name:
    "auto" is the file's own, on a CPU without instructions for bfloat16 float32. A GGUF file is read too, once: its
    numbers are kept as float32 in the user's cache.
    """

    def __init__(self, config: StepConfig) -> None:
        self._config = config
        revision = config.revision or "main"
        device = config.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        # Straight onto the accelerator: quantized weights cannot be moved afterwards. The CPU is where weights load.
        placement = {} if device == "cpu" else {"device_map": device}
        if config.options.get("trust_remote_code"):
            raise BackendUnavailable(
                "options.trust_remote_code would run code that comes with the model, which no backend does here: "
                "choose a model that transformers itself has the code of, or serve it for the backend 'openai'"
            )
        name = str(config.model)
        bounded_hub()
        try:
            if name.endswith(".gguf"):
                name = str(dequantized(Path(name)))
            check_files(Path(name))
            revision = pinned(name, revision) or revision
            model_config = AutoConfig.from_pretrained(name, revision=revision, **_NO_CODE)
            check_counts(model_config.to_dict(), name)
            self._vision = model_config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
            check_hub_weights(name, {"revision": revision})
            loader: Any = AutoModelForImageTextToText if self._vision else AutoModelForCausalLM
            front: Any = AutoProcessor if self._vision else AutoTokenizer
            self._processor: Any = front.from_pretrained(name, revision=revision, **_NO_CODE)
            self._model: Any = loader.from_pretrained(
                name,
                revision=revision,
                dtype=number_format(config.dtype, device),
                use_safetensors=True,
                **placement,
                **config.options | _NO_CODE,
            ).eval()
        except Exception as error:  # the libraries take the form of what they read for granted
            raise BackendUnavailable(
                f"cannot load '{name}' at revision '{revision}' on {device}: {error}{silent_hubs()}. Expected "
                "a Hub id or a folder with config.json, safetensors weights and a tokenizer with a chat template"
            ) from error
        self._commit = getattr(model_config, "_commit_hash", None)
        self._tokenizer = self._processor.tokenizer if self._vision else self._processor
        if not (getattr(self._processor, "chat_template", None) or self._tokenizer.chat_template):
            raise BackendUnavailable(f"'{name}' has no chat template: use the model's instruction-tuned release")
        self.capabilities = Capabilities(vision=self._vision, repeats=True)
        self._marks = special_tokens(self._tokenizer)
        self._tokenizer.padding_side = "left"
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._limit = int(self._model.config.get_text_config().max_position_embeddings)
        # Where answers end is the checkpoint's to say; how they are sampled, penalties included, comes with requests.
        own = self._model.generation_config
        ends = own.eos_token_id if isinstance(own.eos_token_id, list) else [own.eos_token_id]
        if any(end is not None and (not isinstance(end, int) or isinstance(end, bool)) for end in ends):
            raise BackendUnavailable(
                f"'{name}': expected numbers of tokens as eos_token_id in generation_config.json, found "
                f"{str(own.eos_token_id)[:80]!a}: take the files that the model was published with"
            )
        self._ends = set(ends)
        self._model.generation_config = transformers.GenerationConfig(
            bos_token_id=own.bos_token_id, eos_token_id=own.eos_token_id, pad_token_id=self._tokenizer.pad_token_id
        )

    @property
    def identity(self) -> Mapping[str, str]:
        """Model, commit, number format and library versions."""
        return {
            "backend": "transformers",
            "model": str(self._config.model),
            "revision": self._commit or self._config.revision or "",
            "dtype": str(self._model.dtype).removeprefix("torch."),
            "transformers": transformers.__version__,
            "torch": torch.__version__,
        }

    def complete(
        self, requests: Sequence[ChatRequest], on_answer: OnAnswer | None = None
    ) -> list[Completion | RequestError]:
        """Answer the requests in batches of similar length; one that cannot be answered never fails its batch."""
        asked, requests = requests, [strip_marks(request, self._marks) for request in requests]
        answers: dict[int, Completion | RequestError] = {}
        ready: list[tuple[int, int]] = []
        for index, request in enumerate(requests):
            refused = refusal(request, self._vision)
            if refused:
                answers[index] = refused
                continue
            try:
                length = int(self._encode([request])["input_ids"].shape[1])
            except (ValueError, TypeError, KeyError) as error:
                answers[index] = RequestError("bad_request", f"the chat template refuses the request: {error}")
                continue
            if length + request.max_tokens > self._limit:
                answers[index] = too_long(length, request.max_tokens, self._limit)
            else:
                ready.append((length, index))
        # Similar lengths need little padding; requests with and without images do not mix in one processor call.
        ready.sort(key=lambda item: (bool(requests[item[1]].images), item))
        for start in range(0, len(ready), self._config.batch_size):
            indices = [index for _, index in ready[start : start + self._config.batch_size]]
            for with_images in (False, True):
                chosen = [index for index in indices if bool(requests[index].images) == with_images]
                generated = self._generate([requests[index] for index in chosen])
                for index, answer in zip(chosen, generated, strict=True):
                    answers[index] = answer
                    if on_answer:
                        on_answer(asked[index], answer)
        return [answers[index] for index in range(len(requests))]

    def close(self) -> None:
        """Release the model and its memory."""
        self._model = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _encode(self, requests: Sequence[ChatRequest]) -> Any:
        """Inputs of a batch: token ids and masks (batch, tokens), left-padded, and the pixels of its images."""
        chats = [messages(request, _image_part, always_parts=self._vision) for request in requests]
        keywords: dict[str, Any] = {"processor_kwargs": {"padding": True}} if self._vision else {"padding": True}
        call = partial(
            self._processor.apply_chat_template,
            chats, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt", **keywords,
        )  # fmt: skip
        try:
            return within_limits(call, f"the chat template or the processor of {self._config.model}")
        except ModelLimitError as error:
            raise BackendUnavailable(str(error)) from error

    def _generate(self, requests: Sequence[ChatRequest]) -> list[Completion | RequestError]:
        if not requests:
            return []
        try:
            return self._decode(requests)
        except torch.OutOfMemoryError:
            # The exception's traceback holds the batch's tensors: leave the handler before trying again.
            pass
        gc.collect()
        torch.cuda.empty_cache()
        if len(requests) == 1:
            return [RequestError("out_of_memory", "a single request does not fit the device's memory")]
        half = len(requests) // 2
        return self._generate(requests[:half]) + self._generate(requests[half:])

    @torch.inference_mode()
    def _decode(self, requests: Sequence[ChatRequest]) -> list[Completion | RequestError]:
        inputs = self._encode(requests).to(self._model.device)
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(self._model.dtype)
        prompt_length = inputs["input_ids"].shape[1]
        stop_if_requested()
        output = self._write(
            **inputs,
            max_new_tokens=max(request.max_tokens for request in requests),
            do_sample=False,
            stopping_criteria=transformers.StoppingCriteriaList([_UntilStopped()]),
            logits_processor=transformers.LogitsProcessorList([SeededSampling(requests)]),
        )
        stop_if_requested()  # what was broken off is no answer
        ends = self._ends
        prompt_tokens = inputs["attention_mask"].sum(dim=1).tolist()
        return [
            self._completion(row[prompt_length:].tolist(), ends, request, tokens)
            for row, request, tokens in zip(output, requests, prompt_tokens, strict=True)
        ]

    def _write(self, **inputs: Any) -> Any:
        """What the model writes. Raises ``BackendUnavailable`` where its files do not fit one another."""
        try:
            return self._model.generate(**inputs)
        except torch.OutOfMemoryError:
            raise
        except (ValueError, TypeError, LookupError, RuntimeError, ArithmeticError, AttributeError) as error:
            reason = str(error).strip().partition("\n")[0][:300]
            raise BackendUnavailable(
                f"'{self._config.model}' cannot answer ({type(error).__name__}: {reason}): its settings do not fit its "
                "weights or its tokenizer; take the files that the model was published with"
            ) from error

    def _completion(self, tokens: list[int], ends: set[int], request: ChatRequest, prompt_tokens: int) -> Completion:
        """Cut an answer at its end token and at the request's own limit."""
        stop = next((index for index, token in enumerate(tokens) if token in ends), len(tokens))
        finished = stop < min(request.max_tokens, len(tokens))
        kept = tokens[: min(stop, request.max_tokens)]
        text = self._tokenizer.decode(kept, skip_special_tokens=True)
        return Completion(text, "stop" if finished else "length", prompt_tokens, len(kept) + finished)


class _UntilStopped(transformers.StoppingCriteria):
    """Ends a generation at its next token when the build is asked to stop: threads of the engine end with it."""

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **_: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), stop_requested(), device=input_ids.device)


class SeededSampling(transformers.LogitsProcessor):
    """Samples each row of a batch from its own seeded generator, while decoding stays greedy.

    The argmax of ``logits / T + Gumbel noise`` is distributed as a draw from ``softmax(logits / T)`` (Gumbel-max).
    Rows of temperature 0 are left as they are.
    """

    def __init__(self, requests: Sequence[ChatRequest]) -> None:
        self._temperatures = [request.temperature for request in requests]
        self._generators = [torch.Generator().manual_seed(request.seed) for request in requests]

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        for row, temperature in enumerate(self._temperatures):
            if temperature > 0:
                exponential = torch.empty(scores.shape[1]).exponential_(generator=self._generators[row])
                scores[row] = scores[row] / temperature - exponential.log().to(scores)
        return scores


def _image_part(image: Any) -> dict[str, Any]:
    return {"type": "image", "image": Image.fromarray(image)}
