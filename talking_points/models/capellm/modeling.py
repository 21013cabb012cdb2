"""DINOv2, a linear projector and a Llama as one ``PreTrainedModel``: what training and inference share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import DynamicCache, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import ModelOutput, cached_file

from talking_points.errors import InputError
from talking_points.hub_client import bounded_hub
from talking_points.hub_commits import pin
from talking_points.models import auto  # noqa: F401  (makes the model types known to transformers)
from talking_points.models.capellm.configuration import AnswererConfig
from talking_points.models.capellm.conversation import IGNORED_LABEL, ROLES, Template
from talking_points.models.capellm.decoding import AnswerGrammar
from talking_points.models.capellm.lora import inject_lora
from talking_points.models.capellm.vision import build_vision
from talking_points.models.hub_weights import check_hub_weights
from talking_points.models.localizer import CoordinateHead
from talking_points.models.model_folders import HUB_ARGUMENTS, check_config, loading
from talking_points.models.omg_llava.lora import lora_disabled, merge_lora
from talking_points.tensor_files import share_weights


@dataclass
class AnswererOutput(ModelOutput):
    """loss: mean over the learnt tokens; logits: (M, V) of those tokens' predictions; targets: their ids (M,)."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    targets: Tensor | None = None


class CapeLlmModel(PreTrainedModel):
    """CapeLLM (Kim et al., 2024). ``tokenizer`` comes with ``from_pretrained``."""

    config_class = AnswererConfig
    config: AnswererConfig
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ("Dinov2Layer", "LlamaDecoderLayer")
    # The official recipe: base language weights in bfloat16, everything that is trained, and the vision, in float32.
    _keep_in_fp32_modules_strict = ("vision", "projector", "coordinate_head", "lora_A", "lora_B")
    _tied_weights_keys = {"language_model.lm_head.weight": "language_model.model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: AnswererConfig) -> None:
        config.tie_word_embeddings = config.text_config.tie_word_embeddings
        super().__init__(config)
        self.vision = build_vision(config)
        self.projector = nn.Linear(config.vision_config.hidden_size, config.text_config.hidden_size)
        self.language_model = LlamaForCausalLM(config.text_config)
        self.coordinate_head = CoordinateHead(config) if config.head == "token" else None
        self.tokenizer: PreTrainedTokenizerFast | None = None
        self._grammar: tuple[Any, AnswerGrammar] | None = None
        self.post_init()
        if config.lora_active:
            self._inject()

    def _inject(self) -> None:
        inject_lora(self.vision, self.config, vision=True)
        inject_lora(self.language_model, self.config, vision=False)

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.lm_head

    # ------------------------------------------------------------------ weights

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, *args: Any, **kwargs: Any) -> Self:
        """Load a folder or Hub repository with its tokenizer.

        Unlike transformers' own, this refuses a checkpoint that lacks weights, has others, or other shapes, and a
        tokenizer that cannot write coordinates. Raises ``ConfigError`` for a model of another kind.
        """
        bounded_hub()
        pin(pretrained_model_name_or_path, kwargs)
        with loading(pretrained_model_name_or_path, cls.__name__):
            hub = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
            if "config" not in kwargs:
                values, _ = cls.config_class.get_config_dict(pretrained_model_name_or_path, **hub)
                check_config(values, cls.__name__, pretrained_model_name_or_path)
            check_hub_weights(pretrained_model_name_or_path, kwargs)
            model, info = super().from_pretrained(
                pretrained_model_name_or_path, *args, output_loading_info=True, ignore_mismatched_sizes=True, **kwargs
            )
            problems = {
                "missing": sorted(info["missing_keys"]),
                "unknown": sorted(info["unexpected_keys"]),
                "of another shape": list(info["mismatched_keys"]),
            }
            found = "; ".join(f"{len(keys)} {kind}: {keys[:5]}" for kind, keys in problems.items() if keys)
            if found:
                raise InputError(
                    f"{pretrained_model_name_or_path} does not hold the weights of a {cls.__name__} ({found}): convert "
                    "the official release again, or load it with the configuration it was saved with"
                )
            try:
                cached_file(pretrained_model_name_or_path, "tokenizer.json", **hub)
            except OSError:  # weights may be converted without a tokenizer; `text_tokenizer` says what to do then
                return model
            model.tokenizer = PreTrainedTokenizerFast.from_pretrained(pretrained_model_name_or_path, **hub)
            _ = model.grammar
            return model

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> None:
        """One folder with weights as safetensors, configuration and tokenizer."""
        super().save_pretrained(save_directory, *args, **kwargs)
        share_weights(save_directory)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(save_directory)

    def add_lora(self) -> None:
        """Start fresh adapters, which change no output, on queries and values of both models."""
        if self.config.lora_active:
            raise ValueError("the model has adapters already: call merge_lora first, or train the ones it has")
        self._inject()
        self.config.lora_active = True

    def merge_lora(self) -> None:
        """Make the adapters part of the weights they adapt."""
        if self.config.lora_active:
            for model in (self.vision, self.language_model):
                merge_lora(model)
            self.config.lora_active = False

    @contextmanager
    def without_adapters(self, vision: bool = True, language: bool = True) -> Iterator[None]:
        """The model without its adapters, or one side's, for as long as the context lasts."""
        with ExitStack() as stack:
            for model, wanted in ((self.vision, vision), (self.language_model, language)):
                if wanted:
                    stack.enter_context(lora_disabled(model))
            yield

    # ------------------------------------------------------------------ text

    @property
    def text_tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer, or an error that says how to get one."""
        if self.tokenizer is None:
            raise InputError("the model has no tokenizer: load it with from_pretrained, or set model.tokenizer")
        return self.tokenizer

    @property
    def end_text(self) -> str:
        """What closes an answer."""
        config = self.config
        return config.end_text if config.answer_end == "text" else str(self.text_tokenizer.eos_token)

    @property
    def template(self) -> Template:
        """The wording of a round."""
        config = self.config
        return Template(config.question, self.end_text, config.describe, ROLES, config.outline, config.list_keypoints)

    @property
    def grammar(self) -> AnswerGrammar:
        """The answers that can be given, in tokens. Raises ValueError for a tokenizer that cannot write them."""
        tokenizer = self.text_tokenizer
        if self._grammar is None or self._grammar[0] is not tokenizer:
            self._grammar = tokenizer, AnswerGrammar.of(tokenizer, self.config.decimals, self.end_text)
        return self._grammar[1]

    # ------------------------------------------------------------------ reading

    def image_tokens(self, pixel_values: Tensor) -> Tensor:
        """Crops (B, 3, S, S), normalised, to projected patch tokens (B, N_v, D), without the class token."""
        size = self.config.image_size
        if pixel_values.shape[-2:] != (size, size):
            raise ValueError(
                f"expected crops of {size} x {size} pixels ({self.config.image_tokens} tokens of "
                f"{self.config.patch_size} pixels), found {tuple(pixel_values.shape)}"
            )
        if self.config.blind:
            shape = (len(pixel_values), self.config.image_tokens, self.config.text_config.hidden_size)
            return torch.zeros(shape, dtype=self.projector.weight.dtype, device=self.projector.weight.device)
        seen = self.vision(pixel_values.to(self.projector.weight)).last_hidden_state[:, 1:]
        return self.projector(seen)

    def splice(self, input_ids: Tensor, images: Tensor) -> Tensor:
        """Embeddings (N, L, D) of ids whose placeholders are replaced by the image tokens (N, N_v, D)."""
        placeholder = input_ids == self.config.image_token_id
        self._check_placeholders(placeholder, images.shape[1])
        embeddings = self.get_input_embeddings()(input_ids.masked_fill(placeholder, 0))
        return embeddings.masked_scatter(placeholder[..., None], images.to(embeddings))

    def _check_placeholders(self, placeholder: Tensor, wanted: int) -> None:
        counts = placeholder.sum(1)
        if (counts != wanted).any():
            raise ValueError(f"expected {wanted} image placeholders in every conversation, found {counts.tolist()}")
        starts = (placeholder[:, 1:] & ~placeholder[:, :-1]).sum(1) + placeholder[:, 0]
        if (starts != 1).any():
            raise ValueError("expected the image placeholders of a conversation one behind the other, found gaps")

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        image_index: Tensor | None = None,
        position_ids: Tensor | None = None,
        head: Tensor | None = None,
        cells: Tensor | None = None,
        places: Tensor | None = None,
    ) -> AnswererOutput:
        """Next-token loss of conversations about crops.

        Args:
            pixel_values: normalised crops (B, 3, S, S).
            input_ids: conversations (N, L), each with the image's placeholders behind its begin token.
            attention_mask: (N, L), or (N, L, L) for conversations packed side by side: who sees whom.
            labels: (N, L), -100 where nothing is learnt; None for no loss.
            image_index: the crop of each conversation (N,); default one each.
            position_ids: (N, L), needed with a mask of who sees whom.
            head: ids (n,) of the text behind every image that all conversations begin with. When given, ``input_ids``
                are what follows it, without image or begin token: see ``forward_branches``.
            cells: see ``forward_branches``.
            places: with the coordinate head, where the keypoints of the answers are (M, 2), in shares of the crop.
        """
        if head is not None:
            assert labels is not None
            assert image_index is not None
            return self.forward_branches(pixel_values, head, input_ids, labels, image_index, cells, places)
        images = self.image_tokens(pixel_values)
        embeddings = self.splice(input_ids, images if image_index is None else images[image_index])
        hidden = self.read(embeddings, attention_mask, position_ids)
        if labels is None:
            return AnswererOutput(logits=self.language_model.lm_head(hidden[:, -1]))
        return self.answer_loss(hidden, labels, places)

    def answer_loss(self, hidden: Tensor, labels: Tensor, places: Tensor | None) -> AnswererOutput:
        """Cross-entropy of the learnt tokens behind hidden states (N, L, D).

        With the coordinate head: the mean distance along x and y of what it gives for the end tokens from ``places``;
        the output's logits (M, 2) are then places, its targets the true ones.
        """
        if self.coordinate_head is None:
            logits, targets = self.answer_logits(hidden, labels)
            return AnswererOutput(functional.cross_entropy(logits.float(), targets), logits, targets)
        assert places is not None
        found = self.coordinate_head(hidden[labels == self.config.text_config.eos_token_id])
        return AnswererOutput((found - places.to(found)).abs().mean(), found, places)

    def forward_branches(
        self,
        pixel_values: Tensor,
        head: Tensor,
        input_ids: Tensor,
        labels: Tensor,
        image_index: Tensor,
        cells: Tensor | None = None,
        places: Tensor | None = None,
    ) -> AnswererOutput:
        """The loss of ``forward`` where conversations about one crop share one reading of it, gradients included.

        Args:
            pixel_values: normalised crops (B, 3, S, S).
            head: ids (n,) of the text behind every image that all conversations begin with; may be empty.
            input_ids: what follows it in each conversation (R, L), padded on the right.
            labels: (R, L), -100 where nothing is learnt.
            image_index: the crop of each conversation (R,).
            cells: which image token shows what each token of an answer is about (R, L), -1 elsewhere. When given, the
                loss of not looking there (``attention_loss``) is added with ``config.attention_weight``.
        """
        beginning = self.beginning(self.image_tokens(pixel_values), head)
        branches = self.get_input_embeddings()(input_ids)
        hidden, attention = read_branches(self.language_model, beginning, branches, image_index, cells is not None)
        output = self.answer_loss(hidden, labels, places)
        if cells is not None:
            looked = attention_loss(attention[len(attention) // 2], cells)
            assert output.loss is not None
            output.loss = output.loss + self.config.attention_weight * looked
        return output

    def beginning(self, images: Tensor, ids: Tensor) -> Tensor:
        """Embeddings (B, 1 + N_v + n, D) of the begin token, the images, and the text ``ids`` (n,) behind them."""
        embed = self.get_input_embeddings()
        begin = torch.tensor([self.config.text_config.bos_token_id], device=images.device)
        first, text = (embed(part).expand(len(images), -1, -1) for part in (begin, ids))
        return torch.cat((first, images.to(first), text), dim=1)

    def prepare_training(self) -> list[str]:
        """Freeze all but what is trained; returns the names of the trained weights, which become float32.

        With adapters those and the projector are trained, as in the paper; without, everything.
        """
        for name, parameter in self.named_parameters():
            apart = name.startswith(("projector.", "coordinate_head."))
            trained = not self.config.lora_active or ".lora_" in name or apart
            parameter.requires_grad_(trained)
            if trained:
                parameter.data = parameter.data.float()
        return [name for name, parameter in self.named_parameters() if parameter.requires_grad]

    def output_layers(self) -> list[nn.Module]:
        """Layers whose rows are classes: an optimizer for matrices leaves them alone."""
        return [self.language_model.lm_head]

    def read(
        self, embeddings: Tensor, attention_mask: Tensor | None = None, position_ids: Tensor | None = None
    ) -> Tensor:
        """Last hidden states (N, L, D), after the final norm."""
        if attention_mask is not None and attention_mask.ndim == 3:
            attention_mask = additive(attention_mask, embeddings.dtype)
        output = self.language_model.model(
            inputs_embeds=embeddings, attention_mask=attention_mask, position_ids=position_ids, use_cache=False
        )
        return torch.as_tensor(output.last_hidden_state)

    def answer_logits(self, hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (M, V) that predict the learnt tokens, and those tokens' ids (M,)."""
        predicts = labels[:, 1:] != IGNORED_LABEL
        return self.language_model.lm_head(hidden[:, :-1][predicts]), labels[:, 1:][predicts]


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Who sees whom, bool (N, L, M), as the mask (N, 1, L, M) that is added to attention's scores."""
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill(~visible.bool(), torch.finfo(dtype).min)[:, None]


def attention_loss(attention: Tensor, cells: Tensor) -> Tensor:
    """How little the answers look at the image tokens that show what they are about: -log of the attention there.

    attention: a layer's, (R, heads, L, P + L), averaged over its heads; image tokens stand behind the begin token.
    cells: of each token (R, L) the image token to look at while it is predicted, -1 for none.
    """
    predicts = cells[:, 1:] >= 0
    rows, places = predicts.nonzero(as_tuple=True)
    looked = attention.float().mean(1)[rows, places, 1 + cells[:, 1:][predicts]]
    return -looked.clamp(min=1e-6).log().mean()


def read_branches(
    language_model: Any, beginning: Tensor, embeddings: Tensor, image_index: Tensor, attentions: bool = False
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Last hidden states (R, L, D) of texts behind beginnings that are read once, each as if it were alone.

    With ``attentions`` also those of every layer (R, heads, L, P + L).

    ``beginning`` (B, P, D); ``embeddings`` (R, L, D) of what follows, padded on the right: nothing sees what comes
    after it, so padding needs no mask. ``image_index`` (R,): the beginning of each text.
    """
    cache = DynamicCache(config=language_model.config)
    language_model.model(inputs_embeds=beginning, past_key_values=cache, use_cache=True)
    cache.batch_select_indices(image_index)
    rows, length = embeddings.shape[:2]
    places = torch.arange(beginning.shape[1], beginning.shape[1] + length, device=embeddings.device)
    earlier = torch.ones(length, beginning.shape[1], dtype=torch.bool, device=embeddings.device)
    own = torch.ones(length, length, dtype=torch.bool, device=embeddings.device).tril()
    visible = torch.cat((earlier, own), dim=1)[None]  # the same for every row
    output = language_model.model(
        inputs_embeds=embeddings,
        attention_mask=additive(visible, embeddings.dtype),
        position_ids=places.expand(rows, -1),
        past_key_values=cache,
        use_cache=True,
        output_attentions=attentions,
    )
    return torch.as_tensor(output.last_hidden_state), output.attentions or ()


def parameter_counts(model: nn.Module) -> dict[str, int]:
    """Parameters by part: vision, projector, language_model, and the adapters of both."""
    counts: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        part = name.partition(".")[0]
        if ".lora_" in name:
            part = "vision_adapters" if part == "vision" else "language_adapters"
        counts[part] += parameter.numel()
    return dict(counts)
