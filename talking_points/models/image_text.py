"""Any ``AutoModelForImageTextToText`` as a segmenter: Qwen2.5-VL, Qwen3-VL, the official SimpleSeg weights.

The model is loaded by its built-in class. Images are handed over as pixels, so that no processor turns them by their
EXIF orientation. What coordinates mean is a setting: SimpleSeg writes shares of the image's size, Qwen2.5-VL pixels of
the image as it was resized, Qwen3-VL thousandths.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image

from talking_points.config import ConfigError
from talking_points.escaping import encodable
from talking_points.grounding.grammar import read_lenient
from talking_points.grounding.outlines import Coordinates, Outlines, Point, scale_of
from talking_points.hub_client import bounded_hub
from talking_points.hub_commits import pin
from talking_points.models.base import check_elements, check_expressions, chunks, same_length
from talking_points.models.hub_weights import check_hub_weights
from talking_points.models.model_folders import loading
from talking_points.models.model_limits import LINEAR_LAYERS, within_limits
from talking_points.models.omg_llava.image_processing import ImageInput, to_rgb
from talking_points.models.patch_processor import open_processor
from talking_points.regular_files import read_text
from talking_points.tensor_files import share_weights

ADAPTER = "adapter_config.json"
SETTINGS = "segmenter.json"
"""Of a folder of adapters: base, its revision, and what coordinates mean."""

QUESTIONS = {
    "text_to_mask": "Where is {expression}? Answer with its polygon coordinates.",
    "point_to_mask": "What is at {point}? Answer with its polygon coordinates.",
    "box_to_mask": "What is in the box {box}? Answer with its polygon coordinates.",
    "text_to_box": "Where is {expression}? Answer with its box [x1, y1, x2, y2].",
    "text_to_point": "Where is {expression}? Answer with a point [x, y] on it.",
    "point_to_box": "What is at {point}? Answer with its box [x1, y1, x2, y2].",
    "box_to_text": "What is in the box {box}?",
    "point_to_text": "What is at {point}?",
}


class ImageTextSegmenter:
    """A foreign model with its processor."""

    def __init__(
        self,
        model: Any,
        processor: Any,
        coordinates: Coordinates = "unit",
        max_new_tokens: int = 1024,
        base: str = "",
        revision: str | None = None,
    ) -> None:
        scale_of(coordinates, 1, 1)  # checks the name
        self.model, self.processor = model, processor
        self.coordinates: Coordinates = coordinates
        self.max_new_tokens = max_new_tokens
        self.base, self.revision = base, revision

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        coordinates: Coordinates = "unit",
        trust_remote_code: bool = False,
        dtype: torch.dtype | str = "auto",
        device: Any = None,
    ) -> Self:
        """Load a folder, a repository, or a folder of adapters with the base that it names.

        Raises ``ConfigError`` for remote code without a pinned revision, or of another one than was permitted, before
        anything is fetched.
        """
        from transformers import AutoModelForImageTextToText

        from talking_points.processes import process_state

        if trust_remote_code and not (revision and len(revision) == 40):
            raise ConfigError(
                "trust_remote_code runs the code of a repository: expected the 40 digits of a commit as revision, "
                f"found {revision or 'none'}"
            )
        bounded_hub()
        adapters = Path(name) if (Path(name) / ADAPTER).is_file() else None
        base = str(name)
        if adapters is not None:
            permitted = revision
            base, revision, coordinates = _read_settings(adapters)
            if trust_remote_code and revision != permitted:
                raise ConfigError(
                    f"trust_remote_code is for revision {permitted}, but the adapters in {adapters} name {base} at "
                    f"{revision or 'no revision'}: look at that code, and name its revision"
                )
        with loading(name, "image-text-to-text model"), loading(base, "base of an image-text-to-text model"):
            options: dict[str, Any] = {}
            if not Path(base).is_dir():
                options |= {} if revision is None else {"revision": revision}
                pin(base, options)
                check_hub_weights(base, options)
            processor = open_processor(base, trust_remote_code=trust_remote_code, **options)
            model = AutoModelForImageTextToText.from_pretrained(
                base, dtype=dtype, use_safetensors=True, trust_remote_code=trust_remote_code, **options
            )
            if adapters is not None:
                from peft import PeftModel

                model = PeftModel.from_pretrained(model, adapters)
        model = model.to(device or process_state().device).eval()
        return cls(model, processor, coordinates, base=base, revision=options.get("revision", revision))

    @property
    def never_written(self) -> list[int]:
        """Ids of the placeholders of images and videos: an answer with one could not be read again."""
        config = self.model.config
        ids = (getattr(config, name, None) for name in ("image_token_id", "video_token_id"))
        return sorted({token for token in ids if isinstance(token, int)})

    def add_lora(self, rank: int = 64, alpha: float = 128.0, seed: int = 0) -> list[str]:
        """Add adapters to all linear layers of the language model, freeze the rest; returns the trained names.

        Adapters that are there are trained on. Raises ``ConfigError`` for a model without such layers.
        """
        from peft import LoraConfig, PeftModel, get_peft_model

        if isinstance(self.model, PeftModel):
            for name, parameter in self.model.named_parameters():
                parameter.requires_grad_(".lora_" in name)
            return [name for name, parameter in self.model.named_parameters() if parameter.requires_grad]
        if not any(re.fullmatch(LINEAR_LAYERS, name) for name, _ in self.model.named_modules()):
            raise ConfigError(f"{self.base} has no linear layers of a language model: no place for adapters")
        torch.manual_seed(seed)
        config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=LINEAR_LAYERS, bias="none")
        self.model = get_peft_model(self.model, config)
        return [name for name, parameter in self.model.named_parameters() if parameter.requires_grad]

    def save_pretrained(self, folder: str | Path) -> None:
        """Adapters alone, with the base that they belong to and its revision; without adapters the whole model."""
        self.model.save_pretrained(folder, safe_serialization=True)
        share_weights(folder)
        if (Path(folder) / ADAPTER).is_file():
            settings = {"base": self.base, "revision": self.revision, "coordinates": self.coordinates}
            (Path(folder) / SETTINGS).write_text(json.dumps(settings), encoding="utf-8")
        else:
            self.processor.save_pretrained(folder)

    def question(self, kind: str, **elements: str) -> str:
        """What is asked for a kind of instruction. Raises ``ValueError`` as ``Segmenter.question`` does."""
        if kind not in QUESTIONS:
            raise ValueError(f"expected a kind of {', '.join(QUESTIONS)}; found {kind!r}")
        check_elements(elements)
        try:
            return QUESTIONS[kind].format(**elements)
        except KeyError as error:
            raise ValueError(f"a question of the kind {kind} needs {error.args[0]}=..., a text") from error

    def segment(self, images: Sequence[ImageInput], expressions: Sequence[str], **options: Any) -> list[Outlines]:
        """The outlines of what each expression refers to, in unit coordinates of its image.

        Raises ``ValueError`` as ``Segmenter.segment`` does.
        """
        check_expressions(images, expressions)
        questions = [self.question("text_to_mask", expression=expression) for expression in expressions]
        texts = self.answer(images, questions, **options)
        sizes = [to_rgb(image).size for image in images]
        return [read_lenient(t, scale=self.scale(*size)).outlines for t, size in zip(texts, sizes, strict=True)]

    @torch.no_grad()
    def answer(
        self,
        images: Sequence[ImageInput],
        questions: Sequence[str],
        *,
        max_new_tokens: int | None = None,
        batch_size: int = 4,
        **options: Any,
    ) -> list[str]:
        """Answers to one question about each image; greedy whatever the repository's generation settings say."""
        same_length(images=images, questions=questions)
        texts: list[str] = []
        sampling = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None, "num_beams": 1}
        sampling |= {"num_return_sequences": 1, "stop_strings": None}
        options = {"suppress_tokens": self.never_written or None, **options}
        for part in chunks(len(questions), batch_size):
            inputs = self.encode([to_rgb(image) for image in images[part]], questions[part]).to(self.model.device)
            limit = self.max_new_tokens if max_new_tokens is None else max_new_tokens
            written = self.model.generate(**inputs, max_new_tokens=limit, **{**sampling, **options})
            new = written[:, inputs["input_ids"].shape[1] :]
            texts += self.processor.batch_decode(new, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return [text.strip() for text in texts]

    def outline(self, images: Sequence[ImageInput], questions: Sequence[str], **options: Any) -> list[str]:
        """As ``answer``: numbers are many tokens here, and words may stand around an outline."""
        return self.answer(images, questions, **options)

    def encode(self, images: Sequence[Image.Image], questions: Sequence[str]) -> Any:
        """Inputs of the model for questions that each stand behind their image, left-padded."""
        return self._process(self.prompts(questions), images)

    def prompts(self, questions: Sequence[str]) -> list[str]:
        """Questions as the model's chat template writes them, each behind its image."""
        prompts = []
        for question in questions:
            content = [{"type": "image"}, {"type": "text", "text": self._plain(question)}]
            message = [{"role": "user", "content": content}]
            prompts.append(within_limits(partial(self._write, message), f"the chat template of {self.base}"))
        return prompts

    def _plain(self, text: str) -> str:
        """Text from elsewhere without the model's special tokens: they would read as another role or an image."""
        text = encodable(text)
        for token in self.processor.tokenizer.added_tokens_decoder.values():
            if token.special:
                text = text.replace(token.content, " ")
        return text

    def _write(self, message: list[dict[str, Any]]) -> str:
        return str(self.processor.apply_chat_template(message, add_generation_prompt=True, tokenize=False))

    def _process(self, texts: list[str], images: Sequence[Image.Image]) -> Any:
        self.processor.tokenizer.padding_side = "left"
        call = partial(self.processor, text=texts, images=list(images), padding=True, return_tensors="pt")
        return within_limits(call, f"the processor of {self.base}")

    def encode_answered(
        self, images: Sequence[Image.Image], questions: Sequence[str], answers: Sequence[str]
    ) -> dict[str, Any]:
        """Inputs with ``labels`` for answered questions: -100 but at the answers and the ends of their turns."""
        prompts = self.prompts(questions)
        end = self.processor.tokenizer.eos_token
        answers = [self._plain(answer) for answer in answers]
        inputs = self._process([f"{one}{answer}{end}" for one, answer in zip(prompts, answers, strict=True)], images)
        ids = self.processor.tokenizer
        labels = inputs["input_ids"].clone()
        for row, answer in enumerate(answers):
            count = len(ids(f"{answer}{end}", add_special_tokens=False)["input_ids"])
            labels[row, : labels.shape[1] - count] = -100
        return {**inputs, "labels": labels}

    def scale(self, width: int, height: int) -> Point:
        """What written coordinates are divided by: for pixels, the image's size as the processor resizes it."""
        if self.coordinates != "pixels":
            return scale_of(self.coordinates, width, height)
        image = Image.new("RGB", (width, height))
        grid = self.processor.image_processor(images=[image], return_tensors="pt").get("image_grid_thw")
        if grid is None:
            return scale_of("pixels", width, height)
        patch = self.processor.image_processor.patch_size
        _, rows, columns = grid[0].tolist()
        return scale_of("pixels", columns * patch, rows * patch)

    def count_tokens(self, text: str) -> int:
        """Tokens of an answer."""
        return len(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"])


def _read_settings(folder: Path) -> tuple[str, str | None, Coordinates]:
    """Base, revision and coordinates of a folder of adapters. Raises ``ConfigError``."""
    try:
        found = json.loads(read_text(folder / SETTINGS))
        base, revision, coordinates = str(found["base"]), found["revision"], found["coordinates"]
        scale_of(coordinates, 1, 1)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ConfigError(
            f"{folder} holds adapters without a {SETTINGS} that names their base, revision and coordinates ({error})"
        ) from error
    return base, revision, coordinates
