"""The object captioner of the paper: OMG-LLaVA asked about the object under a keypoint (section 3.1).

A request carries the whole image and, in its facts, ``keypoint`` (x, y) and, where the source has it,
``object_bbox`` [x, y, width, height], both in pixels. Both become visual prompts: ``<mark>`` and ``<region>``.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talking_points.config import StepConfig
from talking_points.descriptions.backends.protocol import (
    BackendUnavailable,
    Capabilities,
    ChatRequest,
    Completion,
    OnAnswer,
    RequestError,
)

if TYPE_CHECKING:
    from talking_points.models.omg_llava.features import VisionFeatures

_POINT = "The point meant is region1 <mark>."
_POINT_AND_BOX = "The point meant is region1 <mark>, the object meant is region2 <region>."


class OmgLlavaBackend:
    """Answers object-caption requests in batches; the vision path runs once per image.

    ``options``: ``cached_images`` (default 8), how many images' features are kept between calls.
    """

    capabilities = Capabilities(vision=True, steps=("object_caption",))

    def __init__(self, step: StepConfig) -> None:
        # The one backend that stands on our own models, which come later in the library and need torch.
        try:
            import torch

            from talking_points.models.omg_llava.modeling import OmgLlavaModel
        except ImportError as error:
            raise BackendUnavailable(
                f"backend 'omg_llava' cannot be opened: {error}; pip install 'talking-points[train]'"
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
        self._batch_size = step.batch_size
        self._features: OrderedDict[str, VisionFeatures] = OrderedDict()
        self._cached_images = int(step.options.get("cached_images", 8))
        self._identity = {
            "backend": "omg_llava",
            "model": step.model,
            "revision": _revision(step.model, step.revision, model.config),
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
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _answer(self, requests: Sequence[ChatRequest], digests: Sequence[str]) -> list[Completion | RequestError]:
        import torch

        from talking_points.models.omg_llava.chat import encode_turn, plain_text
        from talking_points.models.omg_llava.features import VisionFeatures
        from talking_points.models.omg_llava.modeling import LanguageInputs

        model = self._model
        with torch.no_grad():
            order = list(dict.fromkeys(digests))
            pictures = dict(zip(digests, (request.images[0] for request in requests), strict=True))
            features = VisionFeatures.concatenate([self._encode(digest, pictures[digest]) for digest in order])
            image_index = torch.tensor([order.index(digest) for digest in digests])
            marks = model.encode_points(features, [request.facts["keypoint"] for request in requests], image_index)
            boxed = [index for index, request in enumerate(requests) if request.facts.get("object_bbox") is not None]
            boxes = [requests[index].facts["object_bbox"] for index in boxed]
            regions = model.encode_boxes(features, boxes, image_index[boxed]) if boxed else None
            turns = []
            for request in requests:
                asked = plain_text(f"{request.system} {request.prompt}")
                prompts = _POINT if request.facts.get("object_bbox") is None else _POINT_AND_BOX
                turns.append(
                    encode_turn(
                        model.tokenizer, f"<image>\n{asked} {prompts}", image_token_index=model.config.image_token_index
                    )
                )
            options: dict[str, Any] = {"do_sample": False}
            if requests[0].temperature > 0:
                options = {"do_sample": True, "temperature": requests[0].temperature}
                torch.manual_seed(requests[0].seed)
            tokens = model.generate(
                LanguageInputs(turns, features, image_index, marks, regions),
                max_new_tokens=max(request.max_tokens for request in requests),
                **options,
            )
        return [
            self._completion(row.tolist(), len(turn.ids), request.max_tokens)
            for row, turn, request in zip(tokens, turns, requests, strict=True)
        ]

    def _completion(self, tokens: list[int], prompt_tokens: int, limit: int) -> Completion:
        ends = self._model.config.text_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends])
        length = next((position for position, token in enumerate(tokens) if token in ends), len(tokens))
        finished = length < min(len(tokens), limit)
        text = self._model.tokenizer.decode(tokens[: min(length, limit)], skip_special_tokens=True).strip()
        return Completion(text, "stop" if finished else "length", prompt_tokens, min(length, limit))

    def _encode(self, digest: str, image: Any) -> VisionFeatures:
        """Features of one image, from the cache when it was seen lately."""
        if digest not in self._features:
            self._features[digest] = self._model.encode_pictures([image])
            while len(self._features) > max(self._cached_images, 1):
                self._features.popitem(last=False)
        self._features.move_to_end(digest)
        return self._features[digest]


def _problem(request: ChatRequest) -> RequestError | None:
    """Why a request cannot be put to the model, or None."""
    if not request.images:
        return RequestError("missing_image", "OMG-LLaVA describes what it sees: the request carries no image")
    keypoint = request.facts.get("keypoint")
    if keypoint is None:
        return RequestError("missing_fact", "OMG-LLaVA is asked about a point: the request's facts lack 'keypoint'")
    height, width = request.images[0].shape[:2]
    x, y = keypoint
    if not (0 <= round(x) < width and 0 <= round(y) < height):
        return RequestError("unusable_facts", f"the keypoint ({x}, {y}) lies outside the image of {width} x {height}")
    return None


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
        (path.name, hashlib.sha256(path.read_bytes()).hexdigest() if path.suffix == ".json" else path.stat().st_size)
        for path in files
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
