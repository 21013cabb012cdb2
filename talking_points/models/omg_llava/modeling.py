"""OMG-LLaVA as one ``PreTrainedModel``: frozen vision path, projectors, InternLM2 run as a Llama."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from numpy.typing import ArrayLike
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import Cache, DynamicCache, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
from transformers import initialization as init
from transformers.utils import cached_file

from talking_points.errors import InputError
from talking_points.hub_client import bounded_hub
from talking_points.hub_commits import pin
from talking_points.models import auto  # noqa: F401  (makes the model types known to transformers)
from talking_points.models.hub_weights import check_hub_weights
from talking_points.models.model_folders import HUB_ARGUMENTS, loading
from talking_points.models.omg_llava.cache import make_growing
from talking_points.models.omg_llava.chat import Turn
from talking_points.models.omg_llava.configuration import OmgLlavaConfig
from talking_points.models.omg_llava.features import VisionFeatures
from talking_points.models.omg_llava.image_processing import ImageInput, OmgLlavaImageProcessor, to_rgb
from talking_points.models.omg_llava.lora import inject_lora, merge_lora, unshare_weights
from talking_points.models.omg_llava.panels import weights_in_panels
from talking_points.models.omg_llava.pixel_decoder import PixelDecoder, ZeroLinear
from talking_points.models.omg_llava.projector import TextToVision, VisionToText
from talking_points.models.omg_llava.prompt_masks import box_cells
from talking_points.models.omg_llava.query_decoder import ClassHead, QueryMasks
from talking_points.models.omg_llava.splicing import IGNORED_LABEL, SplicedBatch, check_replacements, splice_inputs
from talking_points.models.omg_llava.vision import OmgVision
from talking_points.tensor_files import share_weights

_OWN_HEADS = ("coordinate_head.",)
"""Parameters that only some classes on this base have; the others leave them in a checkpoint alone."""


@dataclass(frozen=True)
class SharedPrefix:
    """Turns in two pieces. ``prefix`` has an entry per image or prompt, ``entry`` (N,) says which a turn starts with.

    rest: the turns' left-padded ends (N, L), positions counted from the turns' starts; mask: (N, P + L).
    """

    prefix: SplicedBatch
    entry: Tensor
    rest: SplicedBatch
    mask: Tensor


@dataclass(frozen=True)
class LanguageInputs:
    """Everything the language model is given for N turns, before it is spliced together.

    turns: the tokenised texts, each with one image placeholder.
    features, image_index: the images, and which of them each turn is about (N,).
    marks, regions: visual prompts (M, 2C) for `<mark>` and `<region>`, in order of occurrence over the batch.
    prompt_index: where several turns answer the same question about the same visual prompts, which question each
        answers (N,): it is then read once for all of them. Without it, turns about one image share its reading.
    """

    turns: Sequence[Turn]
    features: VisionFeatures
    image_index: Tensor
    marks: Tensor | None = None
    regions: Tensor | None = None
    prompt_index: Tensor | None = None


class OmgLlavaModel(PreTrainedModel):
    """OMG-LLaVA (Zhang et al., 2024). ``tokenizer`` and ``image_processor`` come with ``from_pretrained``."""

    config_class = OmgLlavaConfig
    config: OmgLlavaConfig
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _no_split_modules = ("OmgVision", "VisionToText", "TextToVision", "CoordinateHead", "LlamaDecoderLayer")
    # Thresholds and argmax in the vision path are discontinuous: half precision flips cells and object tokens.
    _keep_in_fp32_modules_strict: tuple[str, ...] = ("vision",)
    optional_parameters: tuple[str, ...] = ()
    """Prefixes of parameters that a checkpoint of another class on the same base may lack; they start fresh then."""

    def __init__(self, config: OmgLlavaConfig) -> None:
        super().__init__(config)
        self.vision = OmgVision(config)
        self.projector = VisionToText(config)
        self.text_projector = TextToVision(config)
        self.language_model = LlamaForCausalLM(config.text_config)
        self.tokenizer: PreTrainedTokenizerFast | None = None
        self.image_processor = OmgLlavaImageProcessor(config.image_size)
        self._build(config)
        self.post_init()
        if config.lora_active:
            inject_lora(self.language_model, config)

    def _build(self, config: OmgLlavaConfig) -> None:
        """Modules that a subclass adds."""

    # ------------------------------------------------------------------ weights

    @property
    def dtype(self) -> torch.dtype:
        """The language model's, which a saved folder is loaded in again, whatever is float32 beside it."""
        return self.language_model.model.norm.weight.dtype

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """A start for training from scratch: Xavier for linear maps, Deformable DETR's for deformable attention."""
        # Only modules with parameters of their own are visited here, so special starts are types of linear maps.
        if isinstance(module, ZeroLinear):
            init.zeros_(module.weight)
            init.copy_(module.bias, module.initial_bias())
        elif isinstance(module, (nn.Linear, nn.Conv2d)):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=1.0)
        elif isinstance(module, PixelDecoder):
            init.normal_(module.level_embed, std=1.0)
        elif isinstance(module, ClassHead):
            init.normal_(module.prototypes)
            init.copy_(module.prototypes, nn.functional.normalize(module.prototypes, dim=-1))
        else:
            super()._init_weights(module)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, *args: Any, **kwargs: Any) -> Self:
        """Load a folder or Hub repository with its tokenizer and image settings.

        Unlike transformers' own, this refuses a checkpoint that lacks weights, has others, or other shapes: a
        model that runs on half random weights is worse than none. Parameters under ``optional_parameters`` may
        be absent and are then new.
        """
        bounded_hub()
        pin(pretrained_model_name_or_path, kwargs)
        with loading(pretrained_model_name_or_path, cls.__name__):
            if "config" not in kwargs:
                hub = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
                kwargs["config"] = cls.read_config(pretrained_model_name_or_path, **hub)
            check_hub_weights(pretrained_model_name_or_path, kwargs)
            try:
                model, info = super().from_pretrained(
                    pretrained_model_name_or_path,
                    *args,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,
                    **kwargs,
                )
            except SafetensorError as error:
                raise InputError(
                    f"the weights in {pretrained_model_name_or_path} are damaged, perhaps cut off in the middle "
                    f"({error}): fetch, convert or train them again"
                ) from error
            _refuse_incomplete(cls, str(pretrained_model_name_or_path), info)
            for name in cls._keep_in_fp32_modules_strict:
                model.get_submodule(
                    name
                ).float()  # transformers does so with what it has read, not with what starts fresh
            hub = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
            model.image_processor = OmgLlavaImageProcessor.from_pretrained(pretrained_model_name_or_path, **hub)
            try:
                cached_file(pretrained_model_name_or_path, "tokenizer.json", **hub)
            except OSError:  # a release may be converted without its tokenizer; `text_tokenizer` says what to do then
                return model
            model.tokenizer = PreTrainedTokenizerFast.from_pretrained(pretrained_model_name_or_path, **hub)
            return model

    @classmethod
    def read_config(cls, path: str | Path, **hub: Any) -> OmgLlavaConfig:
        """The configuration of a checkpoint of any class on the same base, as this class needs it."""
        values, _ = cls.config_class.get_config_dict(path, **hub)
        values.pop("model_type", None)
        return cls.config_class.from_dict(values)

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> None:
        """One folder with weights, configuration, tokenizer and image settings."""
        if self.config.lora_active and self.config.lora_layout == "official":
            kwargs["state_dict"] = unshare_weights(kwargs.get("state_dict") or self.state_dict())
        super().save_pretrained(save_directory, *args, **kwargs)
        share_weights(save_directory)
        self.image_processor.save_pretrained(save_directory)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(save_directory)

    def add_lora(self) -> None:
        """Start fresh adapters, which change no output, on the language model."""
        if self.config.lora_active:
            raise ValueError("the model has adapters already: call merge_lora first, or train the ones it has")
        inject_lora(self.language_model, self.config)
        self.config.lora_active = True

    def merge_lora(self) -> None:
        """Make the adapters part of the weights they adapt."""
        if self.config.lora_active:
            merge_lora(self.language_model)
            self.config.lora_active = False
            self.config.lora_blocks = None

    # ------------------------------------------------------------------ vision

    def encode_pixels(self, pixel_values: Tensor, image_sizes: Tensor | None = None) -> VisionFeatures:
        """Run the vision path once: pixels (B, 3, H, W) to features that any number of prompts and texts share.

        Runs in the precision of its own weights and, when they are frozen, without gradients.
        """
        with self._vision_precision():
            return self.vision(pixel_values.to(self.vision.level_embed.weight), image_sizes)

    def encode_images(self, images: Sequence[ImageInput]) -> VisionFeatures:
        """``encode_pixels`` of images of any size: PIL images or uint8 arrays (height, width, 3)."""
        pixel_values = torch.from_numpy(self.image_processor(images))
        return self.encode_pixels(pixel_values, torch.tensor([to_rgb(image).size for image in images]))

    def encode_points(
        self,
        features: VisionFeatures,
        points: ArrayLike | Tensor,
        image_index: Tensor,
    ) -> Tensor:
        """Points (N, 2) in original pixels, each in its image (N,), to prompt features (N, 2C).

        They depend on frozen weights alone, so they can be stored beside compact vision features.
        Raises ValueError for a point outside its image.
        """
        coordinates = torch.as_tensor(points, dtype=torch.float64, device="cpu").reshape(-1, 2)
        features = features.to(self.device)
        frame = self.frame_points(features, coordinates, image_index).to(self.device)
        index = image_index.to(self.device)
        with self._vision_precision():
            return self.vision.encode_prompts(features, frame, index, self.keypoint_masks(features, frame, index))

    def keypoint_masks(self, features: VisionFeatures, points: Tensor, image_index: Tensor) -> QueryMasks:
        """Where the queries of points (N, 2), in frame pixels, may look: in OMG-LLaVA where the decoder predicts."""
        return QueryMasks()

    def encode_boxes(self, features: VisionFeatures, boxes: ArrayLike, image_index: Tensor) -> Tensor:
        """Boxes (N, 4) as [x, y, width, height] in original pixels to prompt features (N, 2C)."""
        features = features.to(self.device)
        sizes = features.image_sizes.cpu()[image_index.cpu()].numpy()
        corners = torch.from_numpy(self.image_processor.boxes_to_frame(boxes, sizes)).float().to(self.device)
        masks = QueryMasks(within=[box_cells(corners, features.frame, grid) for grid in features.grids])
        with self._vision_precision():
            return self.vision.encode_prompts(features, (corners[:, :2] + corners[:, 2:]) / 2, image_index, masks)

    @contextmanager
    def _vision_precision(self) -> Iterator[None]:
        """A frozen vision path runs without gradients and in the precision of its own weights."""
        frozen = not any(parameter.requires_grad for parameter in self.vision.parameters())
        device = self.device.type
        with (
            torch.set_grad_enabled(torch.is_grad_enabled() and not frozen),
            torch.autocast(device, enabled=torch.is_autocast_enabled(device) and not frozen),
        ):
            yield

    def frame_points(self, features: VisionFeatures, points: Tensor, image_index: Tensor) -> Tensor:
        """Points (N, 2) in original pixels to pixels of the frame. Refuses points outside their image."""
        sizes = features.image_sizes.cpu()[image_index.cpu()]
        outside = ((points.round() < 0) | (points.round() >= sizes)).any(-1)
        if outside.any():
            first = int(outside.nonzero()[0])
            raise ValueError(
                f"expected points inside their images, found {points[first].tolist()} in one of "
                f"{sizes[first].tolist()} pixels (width, height): drop the point or fix its coordinates"
            )
        return torch.from_numpy(self.image_processor.points_to_frame(points.numpy(), sizes.numpy())).float()

    # ------------------------------------------------------------------ language

    def image_tokens(self, features: VisionFeatures) -> list[Tensor]:
        """What the language model sees of each image: its pixel tokens, row by row, and behind them the others."""
        return self.projector(features)

    def splice(self, inputs: LanguageInputs, padding_side: str = "right") -> SplicedBatch:
        """Embeddings of whole turns, with image and prompt tokens in place."""
        images = self.image_tokens(inputs.features)
        return self._splice(inputs, [turn.ids for turn in inputs.turns], padding_side, images)

    def _splice(
        self, inputs: LanguageInputs, ids: Sequence[Tensor], padding_side: str, images: Sequence[Tensor] | None
    ) -> SplicedBatch:
        replacements: dict[int, Sequence[Tensor]] = {
            token: self._prompt_tokens(prompts) for token, prompts in self._visual_prompts(inputs).items()
        }
        if images is not None:
            replacements[self.config.image_token_index] = [images[index] for index in inputs.image_index.tolist()]
        labels = [turn.labels[len(turn.labels) - len(own) :] for turn, own in zip(inputs.turns, ids, strict=True)]
        return splice_inputs(
            self.language_model.get_input_embeddings(),
            ids,
            replacements,
            labels,
            padding_side,  # type: ignore[arg-type]
        )

    def _visual_prompts(self, inputs: LanguageInputs) -> dict[int, Tensor | None]:
        """Visual prompts by the id of their placeholder."""
        return {self.config.mark_token_id: inputs.marks, self.config.region_token_id: inputs.regions}

    def _prompt_tokens(self, prompts: Tensor | None) -> Sequence[Tensor]:
        return [] if prompts is None else list(self.projector.queries(prompts)[:, None])

    def share_prefix(self, inputs: LanguageInputs) -> SharedPrefix:
        """Cut turns into what those about one image, or with one prompt, have in common and what each goes on with.

        Common is all text up to the first difference, answer or, where turns share no more than an image, visual
        prompt; and the image in it. Raises ValueError when the texts differ before the image.
        """
        first = inputs.turns[0].ids
        if inputs.prompt_index is None:
            shared, own = inputs.image_index, list(self._visual_prompts(inputs))
        else:
            shared, own = inputs.prompt_index, []
        end = self._common_length(inputs.turns, own)
        if self.config.image_token_index not in first[:end]:
            raise ValueError("expected turns with the same text before the image: describe them in separate calls")
        used, shown = inputs.image_index.unique(return_inverse=True)
        images = self.image_tokens(inputs.features.compact().select(used))
        groups, entry = shared.unique(return_inverse=True)
        leaders = [int((entry == group).nonzero()[0]) for group in range(len(groups))]
        early, late = self._cut_prompts(inputs, end, leaders)
        prefix = splice_inputs(
            self.language_model.get_input_embeddings(),
            [first[:end]] * len(groups),
            {self.config.image_token_index: [images[shown[leader]] for leader in leaders], **early},
            padding_side="left",
        )
        entry = entry.to(prefix.inputs_embeds.device)
        rest = self._splice(late, [turn.ids[end:] for turn in inputs.turns], "left", images=None)
        mask = torch.cat((prefix.attention_mask[entry], rest.attention_mask), dim=1)
        offset = prefix.attention_mask.sum(1)[entry, None]
        return SharedPrefix(prefix, entry, replace(rest, position_ids=rest.position_ids + offset), mask)

    def read_prefix(self, inputs: LanguageInputs) -> tuple[SplicedBatch, Tensor, Cache]:
        """Let the language model read what turns have in common once per image or prompt, for turns that then go on.

        Returns the left-padded rest of each turn, the attention mask of prefix and rest (N, P + L), and the cache of
        the prefixes, one entry per turn. Raises ValueError as ``share_prefix`` does.
        """
        shared = self.share_prefix(inputs)
        cache = DynamicCache(config=self.language_model.config)
        self.language_model.model(
            inputs_embeds=shared.prefix.inputs_embeds,
            attention_mask=shared.prefix.attention_mask,
            position_ids=shared.prefix.position_ids,
            past_key_values=cache,
            use_cache=True,
        )
        cache.batch_select_indices(shared.entry)
        return shared.rest, shared.mask, cache

    def _cut_prompts(
        self, inputs: LanguageInputs, end: int, leaders: Sequence[int]
    ) -> tuple[dict[int, Sequence[Tensor]], LanguageInputs]:
        """Visual prompts of the leaders' first ``end`` tokens, by placeholder, and the inputs with all later ones."""
        early: dict[int, Sequence[Tensor]] = {}
        late: list[Tensor | None] = []
        for token, prompts in self._visual_prompts(inputs).items():
            if prompts is None:
                late.append(None)
                continue
            places = [(turn.ids == token).nonzero()[:, 0] for turn in inputs.turns]
            counts = [len(own) for own in places]
            check_replacements(token, sum(counts), len(prompts))
            owned = prompts.split(counts)
            early[token] = self._prompt_tokens(torch.cat([owned[n][: int((places[n] < end).sum())] for n in leaders]))
            late.append(torch.cat([own[int((at < end).sum()) :] for own, at in zip(owned, places, strict=True)]))
        return early, replace(inputs, marks=late[0], regions=late[1])

    def _common_length(self, turns: Sequence[Turn], placeholders: Sequence[int]) -> int:
        """How many first tokens all turns share, up to the first of the placeholders and to what answers follow."""
        shortest = min(len(turn.ids) for turn in turns)
        ids = torch.stack([turn.ids[:shortest] for turn in turns])
        answered = torch.stack([turn.labels[:shortest] for turn in turns]) != IGNORED_LABEL
        own = (ids != ids[0]) | torch.isin(ids, torch.tensor(placeholders, dtype=ids.dtype))
        own[:, :-1] |= answered[:, 1:]  # an answer is predicted from the token before it
        own[:, -1] = True
        return int(own.any(0).int().argmax())

    @torch.no_grad()
    def generate(self, inputs: LanguageInputs, **options: Any) -> Tensor:
        """Continue each turn through transformers' ``generate``: new token ids (N, new), padded on the right.

        ``options`` are those of ``GenerationMixin.generate`` (``max_new_tokens``, ``do_sample``, ...). Turns of
        different images and lengths share a batch; turns of one image share the reading of that image. Tokens of
        ``never_written`` are suppressed besides those that ``suppress_tokens`` names.
        """
        rest, mask, cache = self.read_prefix(inputs)
        text = self.config.text_config
        suppressed = {*self.never_written, *(options.pop("suppress_tokens", None) or ())}
        # Only the length of the cached part counts: its embeddings are never read again.
        cached = rest.inputs_embeds.new_zeros(len(mask), mask.shape[1] - rest.inputs_embeds.shape[1], 1)
        embeds = torch.cat((cached.expand(-1, -1, rest.inputs_embeds.shape[2]), rest.inputs_embeds), dim=1)
        with weights_in_panels(self.language_model, len(embeds)):
            return self.language_model.generate(
                inputs_embeds=embeds,
                attention_mask=mask.long(),
                past_key_values=make_growing(cache),
                suppress_tokens=sorted(suppressed) or None,
                **{
                    "bos_token_id": text.bos_token_id,
                    "eos_token_id": text.eos_token_id,
                    "pad_token_id": text.pad_token_id,
                    **options,
                },
            )

    @property
    def never_written(self) -> list[int]:
        """Ids of the placeholders of visual prompts that the head has: a text with one could not be read again."""
        config = self.config
        return [
            token for token in (config.mark_token_id, config.region_token_id) if token < config.text_config.vocab_size
        ]

    def decode(self, tokens: Tensor) -> list[str]:
        """Generated ids (N, L) to texts, up to the end of the turn."""
        return [text.strip() for text in self.text_tokenizer.batch_decode(tokens, skip_special_tokens=True)]

    @property
    def text_tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer, or an error that says how to get one."""
        if self.tokenizer is None:
            raise InputError("the model has no tokenizer: load it with from_pretrained, or set model.tokenizer")
        return self.tokenizer

    def segment(self, hidden: Tensor, features: VisionFeatures, image_index: Tensor) -> Tensor:
        """Mask logits (N, H, W) for hidden states (N, D) at [SEG], after the language model's final norm."""
        return self.vision.decode_masks(features, self.text_projector(hidden), image_index)


def _refuse_incomplete(cls: type[OmgLlavaModel], path: str, info: dict[str, Any]) -> None:
    missing = [key for key in info["missing_keys"] if not key.startswith(cls.optional_parameters)]
    unexpected = [key for key in info["unexpected_keys"] if not key.startswith(_OWN_HEADS)]
    problems = {"missing": sorted(missing), "unknown": sorted(unexpected), "of another shape": info["mismatched_keys"]}
    found = "; ".join(f"{len(keys)} {kind}: {list(keys)[:5]}" for kind, keys in problems.items() if keys)
    if found:
        raise ValueError(
            f"{path} does not hold the weights of a {cls.__name__} ({found}): "
            "convert the official release again, or load it with the configuration it was saved with"
        )
