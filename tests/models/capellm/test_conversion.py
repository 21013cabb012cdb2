"""Official checkpoint folders and pretrained models to Point Answerers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import Dinov2Config, Dinov2Model, LlamaForCausalLM
from typer.testing import CliRunner, Result

from commands import cli  # noqa: F401  (registers all commands)
from commands.console import app
from talking_points.models.answerer import PointAnswerer
from talking_points.models.capellm.conversion import assemble, convert_release
from talking_points.models.capellm.golden import config_from_golden, model_from_golden
from talking_points.models.capellm.release_files import ConversionError
from talking_points.models.capellm.vision import bake_positions
from tests.models.capellm.tokenizers import small_model
from tests.shared_data import shared_path


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LlamaForCausalLM, PointAnswerer]:
    """A folder as the official code saves one, its language model, and the model that it should become."""
    golden, folder = shared_path("golden", "capellm"), tmp_path_factory.mktemp("release")
    spec = json.loads((golden / "golden.json").read_text())
    weights = load_file(golden / "capellm_weights.safetensors")
    wanted = model_from_golden(golden, spec)
    for part in ("vision_model", "mm_projector"):
        own = {key: value for key, value in weights.items() if key.startswith(part)}
        if part == "mm_projector":
            own = {f"base_model.model.model.{key}": value for key, value in own.items()}
        else:
            own = {key.removeprefix("vision_model."): value for key, value in own.items()}
        save_file(own, folder / f"{part}.safetensors")
    shutil.copyfile(golden / "capellm_llm_adapter.safetensors", folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(
        json.dumps({"r": 4, "lora_alpha": 16, "base_model_name_or_path": "some/llama"})
    )
    wanted.text_tokenizer.save_pretrained(folder)
    language = LlamaForCausalLM(wanted.config.text_config)
    base = {key: value for key, value in weights.items() if key.startswith(("model.", "lm_head."))}
    language.load_state_dict(base)
    return folder, language, wanted


def converted(release: tuple[Path, LlamaForCausalLM, PointAnswerer], folder: Path | None = None) -> PointAnswerer:
    spec = json.loads(shared_path("golden", "capellm", "golden.json").read_text())
    base = config_from_golden(spec)
    return convert_release(folder or release[0], release[1], base=base)


def test_a_release_becomes_the_recorded_model(
    release: tuple[Path, LlamaForCausalLM, PointAnswerer], tmp_path: Path
) -> None:
    wanted, model = release[2], converted(release)
    assert model.config.lora_active
    for name, parameter in wanted.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], parameter, rtol=0, atol=0, msg=name)
    model.save_pretrained(tmp_path)
    loaded = PointAnswerer.from_pretrained(tmp_path)
    pixels = torch.randn(1, 3, 56, 56)
    ids, mask = wanted.pad_left([wanted.grammar.ids(5, 6)])
    with torch.no_grad():
        logits = [one(pixels, ids, mask).logits for one in (wanted, model, loaded)]
    torch.testing.assert_close(logits[1], logits[0])
    torch.testing.assert_close(logits[2], logits[0])


def test_the_command_makes_a_folder_that_answers(
    release: tuple[Path, LlamaForCausalLM, PointAnswerer], tmp_path: Path
) -> None:
    language, output = tmp_path / "llama", tmp_path / "capellm"
    release[1].save_pretrained(language)
    Image.new("RGB", (64, 48), "green").save(tmp_path / "image.png")

    def run(*words: str | Path) -> Result:
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == 0, done.output
        return done

    left = tmp_path / "capellm.part"  # of a conversion that was killed
    left.mkdir()
    (left / "model-00009-of-00009.safetensors").write_bytes(b"half")
    converted = run("convert-capellm", release[0], language, "--output", output)
    assert "adapters of rank 4 kept" in converted.stdout
    assert f"its adapters are for some/llama, and are put on {language}" in converted.stderr
    assert not left.exists()
    assert not list(output.glob("model-0*"))
    told = run("answer", tmp_path / "image.png", "left eye", "--model", output, "--json").stdout
    (point,) = json.loads(told)["points"]
    assert 0 <= point["x"] <= 64
    assert point["description"] is None, "a name is asked alone"
    for taken in (output, tmp_path / "image.png"):
        again = CliRunner().invoke(app, ["convert-capellm", str(release[0]), str(language), "--output", str(taken)])
        assert (again.exit_code, "choose another" in again.output) == (2, True)


@pytest.mark.parametrize("part", ["vision_model", "mm_projector", "adapter_model"])
def test_a_missing_part_is_named(
    release: tuple[Path, LlamaForCausalLM, PointAnswerer], tmp_path: Path, part: str
) -> None:
    folder = shutil.copytree(release[0], tmp_path / "part")
    (folder / f"{part}.safetensors").unlink()
    with pytest.raises(ConversionError, match=rf"expected {part}\.safetensors in .*adapter_config\.json"):
        converted(release, folder)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lora_alpha": 16, "use_rslora": True}, "found use_rslora"),
        ({"lora_alpha": 16, "alpha_pattern": {"q_proj": 64}, "use_dora": True}, "found use_dora, alpha_pattern"),
        ({"lora_alpha": "16"}, "positive number as lora_alpha .* found '16'"),
        ({"lora_alpha": float("nan")}, "found nan"),
        ([], "found None"),
        ("{", "expected JSON"),
    ],
)
def test_adapters_that_are_added_otherwise_are_refused(
    release: tuple[Path, LlamaForCausalLM, PointAnswerer], tmp_path: Path, settings: object, said: str
) -> None:
    folder = shutil.copytree(release[0], tmp_path / "other")
    text = settings if isinstance(settings, str) else json.dumps(settings)
    (folder / "adapter_config.json").write_text(text)
    with pytest.raises(ConversionError, match=said):
        converted(release, folder)


@pytest.mark.parametrize(
    ("part", "key", "said"),
    [
        ("vision_model", "lora_", r"expected adapters .* before training"),
        ("vision_model", "blocks.1.attn.lora_A_v", r"1 missing: .*layer\.1.*v_proj\.lora_A"),
        ("adapter_model", "layers.1.self_attn.q_proj", r"2 missing: .*q_proj\.lora_A"),
        ("mm_projector", "bias", r"1 missing: \['projector\.bias'\]"),
        ("vision_model", "+blocks.0.attn.extra", "1 unknown keys"),
    ],
)
def test_absent_and_unknown_keys_are_listed(
    release: tuple[Path, LlamaForCausalLM, PointAnswerer], tmp_path: Path, part: str, key: str, said: str
) -> None:
    folder = shutil.copytree(release[0], tmp_path / "part")
    file = folder / f"{part}.safetensors"
    tensors = load_file(file)
    kept = {name: value for name, value in tensors.items() if key not in name}
    if key.startswith("+"):
        kept[key[1:]] = torch.zeros(1)
    else:
        assert len(kept) < len(tensors)
    save_file(kept, file)
    with pytest.raises(ConversionError, match=said):
        converted(release, folder)


def test_two_pretrained_models_become_one_to_train() -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 8}
    vision = Dinov2Model(Dinov2Config(**sizes, image_size=40)).eval()
    parts = small_model("llama3")
    config = small_model("llama3", stem="patch").config
    config.vision_config.patch_size = 8
    model = assemble(vision, parts.language_model, config, parts.tokenizer).eval()
    assert model.config.lora_active
    assert model.config.image_tokens == 16
    positions = model.vision.embeddings.position_embeddings
    torch.testing.assert_close(positions, bake_positions(vision.embeddings.position_embeddings, 4))
    assert model.answer_all(torch.zeros(20, 20, 3, dtype=torch.uint8).numpy(), None, ["nose"]).parsed.all()
