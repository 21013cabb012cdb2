"""The object captioner of the paper: OMG-LLaVA asked about the object under a keypoint (section 3.1).

A request carries the whole image and, in its facts, ``keypoint`` (x, y) in pixels, which becomes the visual prompt
``<mark>`` in one of the release's two forms (``models/omg_llava/prompt_forms.py``). Beyond the paper, the object's box
``object_bbox`` [x, y, width, height] becomes ``<region>``, where a source has it and ``options.box`` is true, and the
prompt names the object; ``prompt: object_caption_point`` names nothing.
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talking_points.build_config import StepConfig
from talking_points.descriptions.backends import BACKENDS
from talking_points.descriptions.backends.chat import refusal, special_tokens, strip_marks, too_long
from talking_points.descriptions.backends.protocol import (
    BackendUnavailable,
    ChatRequest,
    Completion,
    OnAnswer,
    RequestError,
)
from talking_points.extras import how_to_install
from talking_points.models.omg_llava.prompt_forms import captioner_prompt, prompt_options
from talking_points.regular_files import read_bytes

if TYPE_CHECKING:
    from torch import Tensor

    from talking_points.models.omg_llava.chat import Turn
    from talking_points.models.omg_llava.features import VisionFeatures


class OmgLlavaBackend:
    """Answers object-caption requests in batches; the vision path runs once per image, over several images at a time.

    ``options``: ``cached_images`` (default 8), how many images' features are kept between calls, and encoded at a time;
    ``prompt_form``,
    "marks" (default) or "region_caption", which asks the release's own question in place of the request's; ``box``
    (default true), whether the object's box is shown beside the point, in the form "marks" alone.
    """

    capabilities = BACKENDS["omg_llava"].capabilities

    def __init__(self, step: StepConfig) -> None:
        # The one backend that stands on our own models, which come later in the library and need torch.
        form, box = prompt_options(step.options)
        try:
            import torch

            from talking_points.models.omg_llava.modeling import OmgLlavaModel
        except ImportError as error:
            raise BackendUnavailable(
                f"backend 'omg_llava' cannot be opened: {error}; {how_to_install('train')}"
            ) from error
        if step.model is None:
            raise BackendUnavailable("backend 'omg_llava' needs .model: a folder made by convert-omg-llava")
        device = step.device if step.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
        dtype = torch.float32 if step.dtype == "auto" and device == "cpu" else step.dtype
        try:
            model = OmgLlavaModel.from_pretrained(step.model, revision=step.revision, dtype=dtype)
        except (OSError, ValueError) as error:
            raise BackendUnavailable(f"backend 'omg_llava' cannot load {step.model}: {error}") from error
        if model.tokenizer is None:
            raise BackendUnavailable(f"{step.model} has no tokenizer: convert the release with its tokenizer files")
        self._model: Any = model.to(device).eval()  # None once closed
        self._marks = special_tokens(model.tokenizer)
        self._limit = int(model.config.text_config.max_position_embeddings)
        self._batch_size = step.batch_size
        self._features: OrderedDict[str, VisionFeatures] = OrderedDict()
        self._cached_images = max(1, int(step.options.get("cached_images", 8)))
        self._form, self._box = form, box
        self._identity = {
            "backend": "omg_llava",
            "model": step.model,
            "revision": _revision(step.model, step.revision, model.config),
            "prompt_form": self._form,
            "box": str(self._box).lower(),
            "dtype": str(model.projector.query_proj.weight.dtype),
            "transformers": version("transformers"),
            "torch": torch.__version__,
        }

    @property
    def identity(self) -> Mapping[str, str]:
        """Model, resolved revision, precision and versions."""
        return self._identity

    def complete(
        self, requests: Sequence[ChatRequest], on_answer: OnAnswer | None = None
    ) -> list[Completion | RequestError]:
        """Answer every request. Greedy requests share batches, whatever their images; sampled ones run on their own
        seed, so that no answer depends on what it was batched with.
        """
        answers: dict[int, Completion | RequestError] = {}
        valid = []
        for index, request in enumerate(requests):
            problem = _problem(request)
            if problem is None:
                valid.append(index)
            else:
                answers[index] = problem
        digests = {index: _digest(requests[index]) for index in valid}
        greedy = sorted((i for i in valid if requests[i].temperature == 0), key=lambda i: (digests[i], i))
        batches = [greedy[start : start + self._batch_size] for start in range(0, len(greedy), self._batch_size)]
        batches += [[index] for index in valid if requests[index].temperature > 0]
        for batch in batches:
            batch_answers = self._answer([requests[i] for i in batch], [digests[i] for i in batch])
            answers.update(zip(batch, batch_answers, strict=True))
            if on_answer is not None:
                for index in batch:
                    on_answer(requests[index], answers[index])
        return [answers[index] for index in range(len(requests))]

    def close(self) -> None:
        """Release the model and the cached features."""
        import torch

        self._model = None
        self._features.clear()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _answer(self, requests: Sequence[ChatRequest], digests: Sequence[str]) -> list[Completion | RequestError]:
        import torch

        with torch.no_grad():
            features = self._encode(
                {digest: request.images[0] for digest, request in zip(digests, requests, strict=True)}
            )
            turns = [self._turn(request) for request in requests]
            lengths = [_length(turn, features[digest]) for turn, digest in zip(turns, digests, strict=True)]
            fitting = [i for i, request in enumerate(requests) if lengths[i] + request.max_tokens <= self._limit]
            answers: dict[int, Completion | RequestError] = {}
            if fitting:
                tokens = self._generate(
                    [requests[i] for i in fitting], [turns[i] for i in fitting], [digests[i] for i in fitting], features
                )
                for i, row in zip(fitting, tokens.tolist(), strict=True):
                    answers[i] = self._completion(row, lengths[i], requests[i].max_tokens)
        for i, request in enumerate(requests):
            answers.setdefault(i, too_long(lengths[i], request.max_tokens, self._limit))
        return [answers[i] for i in range(len(requests))]

    def _turn(self, request: ChatRequest) -> Turn:
        from talking_points.models.omg_llava.chat import encode_turn, plain_text

        harmless = strip_marks(request, self._marks)
        asked = plain_text(f"{harmless.system} {harmless.prompt}")
        text = f"<image>\n{captioner_prompt(self._form, asked, box=self._shows_box(request))}"
        return encode_turn(self._model.tokenizer, text, image_token_index=self._model.config.image_token_index)

    def _shows_box(self, request: ChatRequest) -> bool:
        return self._box and request.facts.get("object_bbox") is not None

    def _generate(
        self,
        requests: Sequence[ChatRequest],
        turns: Sequence[Turn],
        digests: Sequence[str],
        encoded: Mapping[str, VisionFeatures],
    ) -> Tensor:
        """New token ids (requests, tokens); all requests are greedy, or there is one."""
        import torch

        from talking_points.models.omg_llava.features import VisionFeatures
        from talking_points.models.omg_llava.modeling import LanguageInputs

        model, order = self._model, list(dict.fromkeys(digests))
        features = VisionFeatures.concatenate([encoded[digest] for digest in order])
        image_index = torch.tensor([order.index(digest) for digest in digests])
        marks = model.encode_points(features, [request.facts["keypoint"] for request in requests], image_index)
        boxed = [index for index, request in enumerate(requests) if self._shows_box(request)]
        boxes = [requests[index].facts["object_bbox"] for index in boxed]
        regions = model.encode_boxes(features, boxes, image_index[boxed]) if boxed else None
        options: dict[str, Any] = {"do_sample": False}
        if requests[0].temperature > 0:
            options = {"do_sample": True, "temperature": requests[0].temperature}
            torch.manual_seed(requests[0].seed)
        tokens: Tensor = model.generate(
            LanguageInputs(turns, features, image_index, marks, regions),
            max_new_tokens=max(request.max_tokens for request in requests),
            **options,
        )
        return tokens

    def _completion(self, tokens: list[int], prompt_tokens: int, limit: int) -> Completion:
        ends = self._model.config.text_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends])
        length = next((position for position, token in enumerate(tokens) if token in ends), len(tokens))
        finished = length < min(len(tokens), limit)
        text = self._model.tokenizer.decode(tokens[: min(length, limit)], skip_special_tokens=True).strip()
        return Completion(text, "stop" if finished else "length", prompt_tokens, min(length, limit))

    def _encode(self, images: Mapping[str, Any]) -> dict[str, VisionFeatures]:
        """Features of images by digest, from the cache where they were seen lately."""
        found = {digest: self._features[digest] for digest in images if digest in self._features}
        missing = [digest for digest in images if digest not in found]
        for start in range(0, len(missing), self._cached_images):
            together = missing[start : start + self._cached_images]
            encoded = self._model.encode_images([images[digest] for digest in together])
            found |= {digest: encoded.select([place]) for place, digest in enumerate(together)}
        for digest in images:
            self._features[digest] = found[digest]
            self._features.move_to_end(digest)
        while len(self._features) > self._cached_images:
            self._features.popitem(last=False)
        return found


def _problem(request: ChatRequest) -> RequestError | None:
    """Why a request cannot be put to the model, or None."""
    refused = refusal(request, vision=True)
    if refused:
        return refused
    keypoint = request.facts.get("keypoint")
    if keypoint is None:
        return RequestError("missing_fact", "OMG-LLaVA is asked about a point: the request's facts lack 'keypoint'")
    height, width = request.images[0].shape[:2]
    x, y = keypoint
    if not (0 <= round(x) < width and 0 <= round(y) < height):
        return RequestError("unusable_facts", f"the keypoint ({x}, {y}) lies outside the image of {width} x {height}")
    return None


def _length(turn: Turn, features: VisionFeatures) -> int:
    """Tokens of a prompt: those of its text, of which one stands for the image, and those of the image."""
    separator = 1
    return len(turn.ids) - 1 + features.visual_tokens.shape[1] + separator + int(features.object_valid.sum())


def _digest(request: ChatRequest) -> str:
    image = request.images[0]
    return hashlib.blake2b(image.tobytes(), digest_size=16, key=repr(image.shape).encode()).hexdigest()


def _revision(model: str, revision: str | None, config: Any) -> str:
    """The commit of a Hub model; for a folder, a digest of its configuration and of what its conversion wrote."""
    commit = getattr(config, "_commit_hash", None)
    if commit:
        return str(commit)
    folder = Path(model)
    if not folder.is_dir():
        return revision or ""
    files = sorted(path for path in folder.iterdir() if path.suffix in {".json", ".safetensors"})
    content = [
        (path.name, hashlib.sha256(read_bytes(path)).hexdigest() if path.suffix == ".json" else path.stat().st_size)
        for path in files
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
