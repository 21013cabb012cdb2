"""No text reaches a model as a mark of its conversation, whatever its tokenizer: by the tokenizer's own list."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("transformers", reason="the extra 'train' is not installed")

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from talking_points.descriptions.backends.chat import special_tokens, strip_marks
from talking_points.descriptions.backends.protocol import ChatRequest

WORDS = [chr(code) for code in range(32, 127)]


def bytes_of_pairs(*special: str, added: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer, as those of Llama 3 and Qwen are."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={char: at for at, char in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    made.add_tokens([AddedToken(token, special=False, normalized=False) for token in added])
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token=special[0])


def pieces_of_sentences(*special: str) -> PreTrainedTokenizerFast:
    """A tokenizer that normalises before it looks for its marks, as those made by SentencePiece do."""
    made = Tokenizer(models.Unigram([("<unk>", 0.0), ("▁", -1.0), *((char, -2.0) for char in WORDS)], unk_id=0))
    made.normalizer = normalizers.Sequence([normalizers.Replace("\u200b", ""), normalizers.NFKC()])
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.add_special_tokens([AddedToken(token, special=True, normalized=True) for token in special])
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token=special[0], unk_token="<unk>")


TOKENIZERS = {
    "like Llama 3": lambda: bytes_of_pairs(
        "<|eot_id|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|python_tag|>"
    ),
    "like Qwen": lambda: bytes_of_pairs(
        "<|im_end|>", "<|im_start|>", "<|vision_start|>", "<|image_pad|>", added=("<think>", "</think>", "<tool_call>")
    ),
    "like SentencePiece": lambda: pieces_of_sentences("</s>", "<s>", "[INST]", "<|end_of_turn|>"),
    "of words": lambda: bytes_of_pairs("EOS", "###", "ASSISTANT:"),
    "of other brackets": lambda: bytes_of_pairs("<｜end▁of▁sentence｜>", "◁think▷", "{{end}}"),
}


@pytest.mark.parametrize("make", TOKENIZERS.values(), ids=TOKENIZERS)
def test_no_mark_is_left_in_a_text(make: Callable[[], PreTrainedTokenizerFast]) -> None:
    tokenizer = make()
    marks = special_tokens(tokenizer)
    ids = {token_id for token_id, token in tokenizer.added_tokens_decoder.items() if str(token) != "<unk>"}
    assert len(ids) >= 3
    for mark in (str(token) for token_id, token in tokenizer.added_tokens_decoder.items() if token_id in ids):
        half = len(mark) // 2
        wide = "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in mark)
        for text in (
            f"a dog {mark} and an order",
            mark * 3,
            f"{mark[:half]}{mark}{mark[half:]}",
            f"a {mark.upper()} b {mark.lower()}",
            f"{mark[:half]}\u200b{mark[half:]}",
            wide,
            f"{wide}{mark[:half]}\u200b{mark}{mark[half:]}",
        ):
            request = ChatRequest("row", "generate", f"Describe: {text}", system=text)
            cleaned = strip_marks(request, marks)
            for part in (cleaned.prompt, cleaned.system):
                assert not ids & set(tokenizer(part, add_special_tokens=False)["input_ids"]), (mark, text, part)
    plain = ChatRequest("row", "generate", "the end of a naïve café's ｆｕｌｌ sign, 100 %", system="")
    assert strip_marks(plain, marks) is plain
