"""What the Point Descriptor and the Point Localizer share on top of OMG-LLaVA."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from talking_points.hub_client import bounded_hub
from talking_points.hub_commits import pin
from talking_points.models.configuration import TalkingPointsConfig
from talking_points.models.model_folders import HUB_ARGUMENTS, check_config, loading
from talking_points.models.omg_llava.chat import Turn, encode_turn, plain_text
from talking_points.models.omg_llava.features import VisionFeatures
from talking_points.models.omg_llava.image_processing import ImageInput, to_rgb
from talking_points.models.omg_llava.modeling import LanguageInputs, OmgLlavaModel


class TalkingPointsModel(OmgLlavaModel):
    """OMG-LLaVA with a configuration that says what is trained."""

    config_class = TalkingPointsConfig
    config: TalkingPointsConfig

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, *args: Any, **kwargs: Any) -> Self:
        """Load a finished model of this class; with ``config`` any checkpoint on the same base, to train from.

        Raises ``ConfigError`` for a model of the other kind, whose answers would come from new, random weights.
        """
        bounded_hub()
        pin(pretrained_model_name_or_path, kwargs)
        with loading(pretrained_model_name_or_path, cls.__name__):
            if "config" not in kwargs:
                hub = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
                values, _ = cls.config_class.get_config_dict(pretrained_model_name_or_path, **hub)
                check_config(values, cls.__name__, pretrained_model_name_or_path)
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    def trainable_prefixes(self) -> tuple[str, ...]:
        """Prefixes of the parameters that the configuration trains, adapters aside."""
        config = self.config
        flags = {
            "vision.": config.train_vision,
            "projector.": config.train_projector,
            "language_model.": config.train_language_model,
            "language_model.model.embed_tokens.": config.train_vocabulary,
            "language_model.lm_head.": config.train_vocabulary,
        }
        return tuple(prefix for prefix, trained in flags.items() if trained)

    def output_layers(self) -> list[nn.Module]:
        """The last layers, whose rows stand for tokens or coordinates: optimizers of matrices leave them out."""
        return [self.language_model.lm_head]

    def unused_prefixes(self) -> tuple[str, ...]:
        """Prefixes of parameters that this model's loss never reaches; they are never trained."""
        return ()

    def prepare_training(self) -> list[str]:
        """Freeze everything but what the configuration trains, adding adapters where it wants them.

        Adapters of other blocks than it wants become part of their weights first. What is trained becomes float32,
        whatever the model was loaded in: bfloat16 rounds small steps away. The frozen rest stays as it is.
        Returns the names of the trainable parameters.
        """
        config = self.config
        blocks = self._last_blocks()
        if config.train_lora and config.lora_blocks not in (None, blocks):
            self.merge_lora()  # those that are there sit in other blocks than the ones to be trained
        if config.train_lora and not config.lora_active:
            config.lora_blocks = blocks
            self.add_lora()
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(self._is_trained(name))
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        return [name for name, parameter in self.named_parameters() if parameter.requires_grad]

    def _is_trained(self, name: str) -> bool:
        if name.startswith(self.unused_prefixes()):
            return False
        if ".lora_" in name:
            return self.config.train_lora and self._in_last_blocks(name)
        return name.startswith(self.trainable_prefixes())

    def _in_last_blocks(self, name: str) -> bool:
        blocks = self._last_blocks()
        return blocks is None or any(f".layers.{block}." in name for block in blocks)

    def _last_blocks(self) -> list[int] | None:
        """Numbers of the blocks whose adapters are trained; None for all, and for an adapter of the head."""
        last, blocks = self.config.lora_last_blocks, self.config.text_config.num_hidden_layers
        return None if last is None else list(range(blocks - last, blocks))

    def read_language(self, inputs: LanguageInputs) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Run the language model over whole turns; those about one image share one reading of it, gradients included.

        Returns hidden states (N, L, D) after the final norm, labels (N, L), and the columns of each turn's last tokens.
        With a shared image its tokens, to which nothing answers, are not among the L.
        """
        cache = None
        if self._shares_images(inputs):
            batch, mask, cache = self.read_prefix(inputs)
        else:
            batch = self.splice(inputs)
            mask = batch.attention_mask
        output = self.language_model.model(
            inputs_embeds=batch.inputs_embeds,
            attention_mask=mask.long(),
            position_ids=batch.position_ids,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        return output.last_hidden_state, batch.labels, batch.offsets

    def _shares_images(self, inputs: LanguageInputs) -> bool:
        # Recomputing activations in the backward pass leaves no cache to share.
        return len(inputs.image_index.unique()) < len(inputs.turns) and not (
            self.training and self.is_activation_checkpointing
        )

    def answer_logits(self, hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the answers' tokens only: (M, V), with their ids (M,) and the turn of each (M,).

        Most of a sequence is image and question; the vocabulary is never multiplied with those.
        """
        predicts = labels[:, 1:] != -100
        logits = self.language_model.lm_head(hidden[:, :-1][predicts])
        return logits, labels[:, 1:][predicts], predicts.nonzero()[:, 0]

    def encode_turn(self, text: str, answer: str | None = None) -> Turn:
        """One turn about one image, whose placeholder starts the text."""
        return encode_turn(self.text_tokenizer, f"<image>\n{text}", answer, self.config.image_token_index)


def unique_images(images: Sequence[ImageInput]) -> tuple[list[ImageInput], torch.Tensor]:
    """The different images among ``images`` and, for every image, which of them it is (N,)."""
    known: dict[str, int] = {}
    different: list[ImageInput] = []
    index = []
    for image in images:
        digest = image_digest(image)
        if digest not in known:
            known[digest] = len(different)
            different.append(image)
        index.append(known[digest])
    return different, torch.tensor(index, dtype=torch.long)


def image_digest(image: ImageInput) -> str:
    """A digest of an image's pixels and shape, the same for a PIL image and its array."""
    pixels = np.ascontiguousarray(np.asarray(to_rgb(image)))
    return hashlib.blake2b(pixels.tobytes(), digest_size=16, key=repr(pixels.shape).encode()).hexdigest()


def chunks(count: int, size: int) -> Iterator[slice]:
    """Slices of at most ``size`` that cover ``range(count)``."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def same_length(**named: Sequence[object] | Tensor | np.ndarray | None) -> None:
    """Refuse arguments of different lengths, and a single thing in place of a list, naming them."""
    for name, values in named.items():
        # A text is a sequence, too: of its letters, each of which would be answered.
        if isinstance(values, str) or not (values is None or hasattr(values, "__len__")):
            raise ValueError(
                f"expected a list of {name}, found one {type(values).__name__}: put a single one into [...]"
            )
    lengths = {name: len(values) for name, values in named.items() if values is not None}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"expected one entry per sample in every argument, found {lengths}")


LONGEST = 1000
"""Characters of a phrase; an outline in a question may have twenty times as many."""


def check_expressions(images: Sequence[ImageInput], expressions: Sequence[str]) -> None:
    """Refuse what is no list of images beside as many phrases, and a phrase without a letter or digit."""
    same_length(images=images, expressions=expressions)
    for number, text in enumerate(expressions):
        if isinstance(text, str) and not any(map(str.isalnum, plain_text(text[:LONGEST]))):
            raise ValueError(f"expected expressions with words, found none in number {number}: {text[:LONGEST]!a}")


def check_elements(elements: Mapping[str, object]) -> None:
    """Refuse what a question is about unless it is text of a bounded length."""
    for name, value in elements.items():
        longest = LONGEST if name == "expression" else 20 * LONGEST
        if not isinstance(value, str) or len(value) > longest:
            found = f"{len(value):,} characters" if isinstance(value, str) else type(value).__name__
            raise ValueError(f"expected as {name} a text of at most {longest:,} characters, found {found}")


def check_image_source(
    model: OmgLlavaModel,
    images: Sequence[ImageInput] | None,
    features: VisionFeatures | None,
    image_index: Tensor | None,
) -> None:
    """Refuse anything but either images, as a list, or features with an index."""
    if images is not None and not isinstance(images, list | tuple):
        raise ValueError(
            f"{type(model).__name__} expected a list of images, one for each answer, found {type(images).__name__}: "
            "put a single one into [...]"
        )
    if (images is None) == (features is None) or (features is not None) != (image_index is not None):
        raise ValueError(f"{type(model).__name__} takes either images, or features together with image_index")
