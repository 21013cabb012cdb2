"""Tiny chat models: what they say, and the four bits of AWQ's layout read as AutoAWQ reads them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'train'")

from safetensors.torch import load_file  # noqa: E402
from torch import Tensor  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from talking_points.models.stand_in_chat import AWQ_GROUP, LOOK, pack_awq, write_llama  # noqa: E402

AUTO_AWQ_REVERSE_ORDER = [0, 4, 1, 5, 2, 6, 3, 7]


def unpack(packed: Tensor) -> Tensor:
    """As ``awq.utils.packing_utils`` of AutoAWQ: unpack in order, then reorder each eight."""
    numbers = torch.bitwise_right_shift(packed[:, :, None], torch.arange(0, 32, 4)[None, None, :]) & 15
    return numbers[:, :, AUTO_AWQ_REVERSE_ORDER].flatten(1)


@pytest.mark.parametrize(("outputs", "inputs"), [(32, 64), (64, 32), (128, 64)])
def test_packed_weights_are_near_the_weights(outputs: int, inputs: int) -> None:
    weight = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(0))
    packed = pack_awq(weight)
    assert packed["qweight"].shape == (inputs, outputs // 8)
    scales = packed["scales"].float().repeat_interleave(AWQ_GROUP, 0)
    zeros = unpack(packed["qzeros"]).repeat_interleave(AWQ_GROUP, 0)
    found = (unpack(packed["qweight"]) - zeros) * scales
    assert (found - weight.T).abs().max() <= scales.max()
    assert (found - weight.T).abs().mean() < 0.3 * scales.mean()


def test_a_llama_says_its_look_and_its_awq_files_are_those_of_the_hub(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain, packed = write_llama(tmp_path / "plain"), write_llama(tmp_path / "packed", awq=True)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(plain), AutoTokenizer.from_pretrained(plain)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Where?"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    said = model.generate(**asked, max_new_tokens=30, do_sample=False)[0][asked["input_ids"].shape[1] :]
    assert tokenizer.decode(said, skip_special_tokens=True).strip() == LOOK
    layer = {
        name.rpartition("q_proj.")[2] for name in load_file(packed / "model.safetensors") if "0.self_attn.q" in name
    }
    assert layer == {"qweight", "qzeros", "scales"}
    assert json.loads((packed / "config.json").read_text())["quantization_config"]["quant_method"] == "awq"
