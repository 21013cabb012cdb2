"""InternLM2's tokenizer as a fast tokenizer, built from its sentencepiece file; transformers 5 has no class for it."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import generate_merges, import_protobuf

from talking_points.models.model_folders import check_files
from talking_points.models.omg_llava.configuration import SPECIAL_TOKENS
from talking_points.regular_files import read_bytes, read_text

SPACE = "▁"
_UNKNOWN, _CONTROL = 2, 3  # piece types of the sentencepiece format


def tokenizer_from_release(folder: str | Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a release folder, with OMG-LLaVA's special tokens at the end of the vocabulary.

    Reads ``tokenizer.json`` where there is one, otherwise ``tokenizer.model`` (a sentencepiece BPE) with the
    names that ``tokenizer_config.json`` gives to reserved pieces, such as the chat markers.
    """
    folder = Path(folder)
    if (folder / "tokenizer.json").exists():
        check_files(folder)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    elif (folder / "tokenizer.model").exists():
        settings = folder / "tokenizer_config.json"
        known = json.loads(read_text(settings)) if settings.exists() else {}
        added = known.get("added_tokens_decoder", {})
        names = {int(index): token["content"] for index, token in added.items()}
        tokenizer = tokenizer_from_sentencepiece(read_bytes(folder / "tokenizer.model"), names)
    else:
        raise ValueError(f"expected tokenizer.json or tokenizer.model in {folder}, found neither")
    # The order fixes the ids that the released embedding rows belong to.
    tokenizer.add_special_tokens({"extra_special_tokens": list(SPECIAL_TOKENS)}, replace_extra_special_tokens=False)
    return tokenizer


def tokenizer_from_sentencepiece(content: bytes, names: dict[int, str] | None = None) -> PreTrainedTokenizerFast:
    """A fast tokenizer equal to a sentencepiece BPE model with byte fallback.

    ``names`` renames reserved pieces by id and makes them special.
    """
    proto = import_protobuf().ModelProto()
    proto.ParseFromString(content)
    names = names or {}
    scores = [(names.get(index, piece.piece), piece.score) for index, piece in enumerate(proto.pieces)]
    vocabulary = {piece: index for index, (piece, _) in enumerate(scores)}
    special = {index for index, piece in enumerate(proto.pieces) if piece.type in (_UNKNOWN, _CONTROL)} | set(names)
    unknown, bos, eos = (
        scores[index][0] for index in (proto.trainer_spec.unk_id, proto.trainer_spec.bos_id, proto.trainer_spec.eos_id)
    )
    mergeable = {piece: score for index, (piece, score) in enumerate(scores) if index not in special}
    tokenizer = Tokenizer(
        models.BPE(
            vocabulary, generate_merges(vocabulary, mergeable), unk_token=unknown, fuse_unk=True, byte_fallback=True
        )
    )
    # Whether a text starts with a space is the model's own setting: Llama's does, InternLM2's does not.
    leading = [normalizers.Prepend(SPACE)] if proto.normalizer_spec.add_dummy_prefix else []
    tokenizer.normalizer = normalizers.Sequence([*leading, normalizers.Replace(" ", SPACE)])
    strip = [decoders.Strip(" ", 1, 0)] if leading else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    tokenizer.add_special_tokens(
        [AddedToken(scores[index][0], normalized=False, special=True) for index in sorted(special)]
    )
    extra = [scores[index][0] for index in sorted(special) if scores[index][0] not in (unknown, bos, eos)]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=unknown,
        bos_token=bos,
        eos_token=eos,
        pad_token=eos,
        extra_special_tokens=extra,
    )
