"""OMG-LLaVA as a model: prompts, generation, adapters, precision, checkpoints."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch

from talking_points.errors import InputError
from talking_points.models.descriptor import PointDescriptor
from talking_points.models.localizer import PointLocalizer
from talking_points.models.omg_llava.chat import encode_turn
from talking_points.models.omg_llava.lora import lora_disabled
from talking_points.models.omg_llava.modeling import LanguageInputs, OmgLlavaModel
from talking_points.models.presets import tiny_config

POINTS = torch.tensor([[3.0, 4.0], [100.0, 60.0], [60.0, 149.0], [0.0, 0.0], [31.5, 63.2]])
IMAGES = torch.tensor([0, 0, 1, 1, 2])
QUESTIONS = ("What is region1 <mark>?", "Region1 <mark> lies on a part of an object. Which one, and where on it is it?")


@pytest.fixture(scope="module")
def features(descriptor, images):
    return descriptor.encode_images(images)


def _inputs(model, features, chosen=slice(None), questions=QUESTIONS) -> LanguageInputs:
    texts = [questions[index % 2] for index in range(len(POINTS))][chosen]
    turns = [encode_turn(model.tokenizer, f"<image>\n{text}") for text in texts]
    index = IMAGES[chosen]
    return LanguageInputs(turns, features, index, marks=model.encode_points(features, POINTS[chosen], index))


def test_prompts_of_a_batch_do_not_see_each_other(descriptor, features):
    together = descriptor.encode_points(features, POINTS, IMAGES)
    for index in range(len(POINTS)):
        one = slice(index, index + 1)
        alone = descriptor.encode_points(features, POINTS[one], IMAGES[one])
        torch.testing.assert_close(together[one], alone, rtol=1e-5, atol=1e-5)
    moved = POINTS.clone()
    moved[0] = torch.tensor([70.0, 30.0])
    other = descriptor.encode_points(features, moved, IMAGES)
    torch.testing.assert_close(other[1:], together[1:], rtol=1e-5, atol=1e-5)
    assert (other[0] - together[0]).abs().max() > 1e-3


def test_boxes_confine_where_prompts_look(descriptor, images, features):
    """A box prompt sees nothing of the image's right half, whatever happens there."""
    index = torch.tensor([2, 2])  # 64 x 64 pixels, so that halves of image and frame agree
    boxes = [[0.0, 0.0, 31.0, 63.0], [0.0, 20.0, 31.0, 43.0]]  # so large that no predicted mask misses them
    memories = [memory.clone() for memory in features.levels]
    for memory in memories:
        memory[:, :, :, memory.shape[3] // 2 :] += 3.0
    altered = replace(features, memories=tuple(memories))
    together = descriptor.encode_boxes(features, boxes, index)
    torch.testing.assert_close(descriptor.encode_boxes(altered, boxes, index), together)
    one = descriptor.encode_boxes(features, boxes[1:], index[1:])
    torch.testing.assert_close(one, together[1:], rtol=1e-5, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_images_of_a_batch_do_not_see_each_other(descriptor, images, features):
    for index, image in enumerate(images):
        alone = descriptor.encode_images([image])
        torch.testing.assert_close(alone.visual_tokens, features.visual_tokens[[index]], rtol=1e-4, atol=1e-4)
        assert torch.equal(alone.object_valid, features.object_valid[[index]])


def test_left_padding_changes_no_output(descriptor, features):
    inputs = _inputs(descriptor, features)
    with torch.no_grad():
        hidden = {}
        for side in ("left", "right"):
            batch = descriptor.splice(inputs, side)
            output = descriptor.language_model.model(
                inputs_embeds=batch.inputs_embeds,
                attention_mask=batch.attention_mask.long(),
                position_ids=batch.position_ids,
            )
            hidden[side] = output.last_hidden_state[batch.attention_mask]
        for index in range(len(POINTS)):
            alone = descriptor.splice(_inputs(descriptor, features, slice(index, index + 1)))
            assert alone.attention_mask.all()
    torch.testing.assert_close(hidden["left"], hidden["right"], rtol=1e-4, atol=1e-5)


def _read_in_two_pieces(model, inputs):
    """Hidden states of what turns go on with after what they share, and that rest."""
    rest, mask, cache = model.read_prefix(inputs)
    output = model.language_model.model(
        inputs_embeds=rest.inputs_embeds,
        attention_mask=mask.long(),
        position_ids=rest.position_ids,
        past_key_values=cache,
    )
    return output.last_hidden_state, rest


@pytest.mark.parametrize("questions", [QUESTIONS, QUESTIONS[1:] * 2], ids=["different", "the same"])
def test_reading_an_image_once_for_all_its_texts_changes_no_output(descriptor, features, questions):
    inputs = _inputs(descriptor, features, questions=questions)
    with torch.no_grad():
        hidden, rest = _read_in_two_pieces(descriptor, inputs)
        shared = hidden[:, -1]
        batch = descriptor.splice(inputs, "left")
        plain = descriptor.language_model.model(
            inputs_embeds=batch.inputs_embeds,
            attention_mask=batch.attention_mask.long(),
            position_ids=batch.position_ids,
        ).last_hidden_state[:, -1]
    torch.testing.assert_close(shared, plain, rtol=1e-4, atol=1e-5)
    if questions[0] == questions[1]:  # everything before the prompt is common
        ids = inputs.turns[0].ids
        assert rest.inputs_embeds.shape[1] == len(ids) - int((ids == descriptor.config.mark_token_id).nonzero())


@pytest.mark.parametrize("kind", ["marks", "regions"])
def test_reading_a_prompt_once_for_all_its_answers_changes_no_output(descriptor, features, kind):
    token = {"marks": "<mark>", "regions": "<region>"}[kind]
    question = f"Is {token} left of {token}?"
    owners = torch.tensor([2, 2, 0, 1, 1, 1])
    about = torch.tensor([0, 1, 1])[owners]
    prompts = descriptor.encode_points(
        features, POINTS[torch.tensor([0, 1, 2, 3, 3, 2])], torch.tensor([0, 0, 1, 1, 1, 1])
    )
    turns = [
        encode_turn(descriptor.tokenizer, f"<image>\n{question}", f"answer {place}") for place in range(len(owners))
    ]
    inputs = LanguageInputs(turns, features, about, **{kind: prompts.view(3, 2, -1)[owners].flatten(0, 1)})
    asked = replace(inputs, prompt_index=owners)
    with torch.no_grad():
        logits = []
        for given in (inputs, asked):
            hidden, rest = _read_in_two_pieces(descriptor, given)
            logits.append(descriptor.answer_logits(hidden, rest.labels)[0])
            length = rest.inputs_embeds.shape[1]
    torch.testing.assert_close(logits[1], logits[0], rtol=1e-4, atol=1e-4)
    answers = [len(turn.ids) - int((turn.labels != -100).nonzero()[0]) for turn in turns]
    assert length == max(answers) + 1  # and the token that the answer is predicted from
    with pytest.raises(ValueError, match="exactly one image per <image> and one visual prompt per prompt token"):
        descriptor.read_prefix(replace(asked, **{kind: prompts}))


def _plain_tokens(model, inputs, **options) -> torch.Tensor:
    """What transformers' ``generate`` writes after whole turns that share nothing."""
    batch = model.splice(inputs, "left")
    return model.language_model.generate(
        inputs_embeds=batch.inputs_embeds, attention_mask=batch.attention_mask.long(), pad_token_id=2, **options
    )


def test_batched_generation_equals_one_by_one_and_plain_generate(descriptor, features):
    options = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": -1}
    together = descriptor.generate(_inputs(descriptor, features), **options)
    assert together.shape == (5, 12)
    assert len({tuple(row) for row in together.tolist()}) > 1
    plain = {**options, "suppress_tokens": descriptor.never_written}
    for index in range(len(POINTS)):
        inputs = _inputs(descriptor, features, slice(index, index + 1))
        assert torch.equal(descriptor.generate(inputs, **options)[0], together[index])
        assert torch.equal(_plain_tokens(descriptor, inputs, **plain)[0], together[index])


def test_sampled_texts_do_not_depend_on_what_is_shared(descriptor, features):
    inputs = _inputs(descriptor, features)
    options = {"max_new_tokens": 12, "do_sample": True, "top_k": 0, "eos_token_id": -1}
    torch.manual_seed(3)
    shared = descriptor.generate(inputs, **options)
    torch.manual_seed(3)
    plain = _plain_tokens(descriptor, inputs, suppress_tokens=descriptor.never_written, **options)
    assert torch.equal(shared, plain)


def test_generation_writes_no_placeholder_of_a_prompt(tokenizer, images):
    torch.manual_seed(9)
    model = OmgLlavaModel(tiny_config(tokenizer)).eval()
    model.tokenizer = tokenizer
    placeholders = torch.tensor([model.config.mark_token_id, model.config.region_token_id])
    with torch.no_grad():  # one of the two is the likeliest token whatever the hidden state
        head = model.language_model.lm_head.weight.zero_()
        head[placeholders[0]] = torch.randn(head.shape[1])
        head[placeholders[1]] = -head[placeholders[0]]
    inputs = _inputs(model, model.encode_images(images))
    length = {"max_new_tokens": 4, "eos_token_id": -1}
    assert torch.isin(_plain_tokens(model, inputs, **length), placeholders).all()
    for options in ({}, {"do_sample": True, "top_k": 0}, {"suppress_tokens": [0]}):
        tokens = model.generate(inputs, **length, **options)
        unwanted = torch.cat((placeholders, torch.tensor(options.get("suppress_tokens", []), dtype=torch.long)))
        assert not torch.isin(tokens, unwanted).any()


def test_texts_that_begin_differently_cannot_share_an_image(descriptor, features):
    turns = [encode_turn(descriptor.tokenizer, text) for text in ("<image>\nWhat?", "Look: <image>\nWhat?")]
    with pytest.raises(ValueError, match="same text before the image"):
        descriptor.generate(LanguageInputs(turns, features, torch.tensor([0, 0])))


def test_seg_states_become_masks(descriptor, features):
    hidden = torch.randn(3, descriptor.config.text_config.hidden_size)
    with torch.no_grad():
        logits = descriptor.segment(hidden, features, torch.tensor([2, 0, 2]))
        one = descriptor.segment(hidden[1:2], features, torch.tensor([0]))
    assert logits.shape == (3, 64, 64)
    torch.testing.assert_close(logits[1:2], one, rtol=1e-4, atol=1e-4)


def test_bfloat16_language_model_stays_close_to_float32(tokenizer, images, tmp_path):
    """Bounds: hidden states within 5 % of their largest value, coordinates within 2 % of the image."""
    torch.manual_seed(4)
    model = PointLocalizer(tiny_config(tokenizer)).eval()
    model.tokenizer = tokenizer
    model.save_pretrained(tmp_path)
    half = PointLocalizer.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    assert {p.dtype for p in half.vision.parameters()} == {torch.float32}
    assert {p.dtype for p in half.coordinate_head.parameters()} == {torch.float32}
    assert {p.dtype for p in half.language_model.parameters()} == {torch.bfloat16}
    texts = ["A dog stands in the top left.", "The chair.", "Two birds on a wire."]
    with torch.no_grad():
        features = model.encode_images(images)
        again = half.encode_images(images)
        assert torch.equal(features.object_valid, again.object_valid)
        torch.testing.assert_close(features.visual_tokens, again.visual_tokens)
        states = [
            m.read_language(LanguageInputs(m.turns(texts), features, torch.arange(3)))[0].float() for m in (model, half)
        ]
        found = [m(features=features, descriptions=texts).coordinates for m in (model, half)]
    assert (states[0] - states[1]).abs().max() <= 0.05 * states[0].abs().max()
    assert found[1].dtype == torch.float32
    assert (found[0] - found[1]).abs().max() <= 0.02


def test_fresh_adapters_change_nothing_and_can_be_switched_off_and_merged(tokenizer, images):
    torch.manual_seed(5)
    model = OmgLlavaModel(tiny_config(tokenizer)).eval()
    model.tokenizer = tokenizer
    features = model.encode_images(images)
    inputs = _inputs(model, features)

    def logits() -> torch.Tensor:
        with torch.no_grad():
            return model.language_model(inputs_embeds=model.splice(inputs).inputs_embeds).logits

    before = logits()
    model.add_lora()
    assert torch.equal(logits(), before)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.05)
    adapted = logits()
    assert (adapted - before).abs().max() > 1e-2
    with lora_disabled(model.language_model):
        assert torch.equal(logits(), before)
    assert torch.equal(logits(), adapted)
    with pytest.raises(ValueError, match="adapters already"):
        model.add_lora()
    model.merge_lora()
    torch.testing.assert_close(logits(), adapted, rtol=1e-4, atol=1e-4)
    assert not any("lora" in name for name, _ in model.named_parameters())
    assert not hasattr(model.language_model, "peft_config")
    model.add_lora()
    torch.testing.assert_close(logits(), adapted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shard", ["50GB", "1MB"])
def test_a_saved_model_is_the_same_whole_or_in_shards(descriptor, images, tmp_path, shard):
    descriptor.save_pretrained(tmp_path, max_shard_size=shard)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shard == "1MB")
    loaded = PointDescriptor.from_pretrained(tmp_path, device_map={"": "cpu"})
    assert {n: t.shape for n, t in loaded.state_dict().items()} == {
        n: t.shape for n, t in descriptor.state_dict().items()
    }
    assert all(torch.equal(t, loaded.state_dict()[n]) for n, t in descriptor.state_dict().items())
    arguments = (images[:2], [[3, 4], [5, 6]])
    assert loaded.describe(*arguments, max_new_tokens=6) == descriptor.describe(*arguments, max_new_tokens=6)


def test_adapters_are_part_of_a_checkpoint(tokenizer, tmp_path):
    torch.manual_seed(6)
    config = tiny_config(tokenizer)
    config.train_lora = True
    model = PointDescriptor(config)
    model.tokenizer = tokenizer
    model.prepare_training()
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(tmp_path)
    loaded = PointDescriptor.from_pretrained(tmp_path)
    assert loaded.config.lora_active
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())
    # An adapter that is loaded for training is trainable again.
    assert loaded.prepare_training() == model.prepare_training()


def test_the_official_layout_shares_the_input_factor_and_adapts_the_head(tokenizer, tmp_path):
    torch.manual_seed(6)
    counts = {}
    for layout in ("separate", "official"):
        config = tiny_config(tokenizer)
        config.train_lora, config.train_language_model, config.train_vocabulary = True, False, False
        config.lora_layout = layout
        model = PointDescriptor(config)
        model.tokenizer = tokenizer
        names = [name for name in model.prepare_training() if ".lora_" in name]
        blocks = config.text_config.num_hidden_layers
        counts[layout] = (
            sum(".lora_A." in name for name in names) / blocks,
            any("lm_head" in name for name in names),
        )
    # Seven layers of a block: of the official one, q, k and v read through one factor. The head adds one.
    assert counts == {"separate": (7, False), "official": (5 + 1 / blocks, True)}
    attention = model.language_model.model.layers[0].self_attn
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.05)
    assert attention.k_proj.lora_A is attention.q_proj.lora_A
    model.save_pretrained(tmp_path)
    loaded = PointDescriptor.from_pretrained(tmp_path)
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert loaded.prepare_training() == model.prepare_training()
    again = loaded.language_model.model.layers[0].self_attn
    with torch.no_grad():
        again.q_proj.lora_A["default"].weight += 1
    assert torch.equal(again.v_proj.lora_A["default"].weight, again.q_proj.lora_A["default"].weight)
    ids = torch.arange(8)[None]
    loaded = PointDescriptor.from_pretrained(tmp_path).eval()
    before = loaded.language_model(ids).logits
    loaded.merge_lora()
    torch.testing.assert_close(loaded.language_model(ids).logits, before, rtol=1e-4, atol=1e-4)


def test_gradient_checkpointing_changes_no_gradient(tokenizer, images):
    torch.manual_seed(8)
    config = tiny_config(tokenizer)
    config.train_lora, config.train_language_model, config.train_vocabulary = True, False, False
    config.train_projector, config.lora_dropout = False, 0.0
    model = PointDescriptor(config)
    model.tokenizer = tokenizer
    names = model.prepare_training()
    gradients = []
    for checkpointing in (False, True):
        model.zero_grad()
        if checkpointing:
            model.activation_checkpointing_enable()
        model.train()
        features = model.encode_images(images)
        model(features=features, points=[[1, 2], [3, 4], [5, 6]], descriptions=["a", "b c", "d"]).loss.backward()
        parameters = dict(model.named_parameters())
        gradients.append({name: parameters[name].grad.clone() for name in names})
    assert any(gradient.any() for gradient in gradients[0].values())
    for name in names:
        torch.testing.assert_close(gradients[1][name], gradients[0][name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("saved", "loaded"), [("localizer", PointDescriptor), ("descriptor", PointLocalizer)])
def test_either_model_starts_from_the_others_checkpoint(request, tmp_path, saved, loaded):
    source = request.getfixturevalue(saved)
    source.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=f"expected the {loaded.__name__} at .*found a Point "):
        loaded.from_pretrained(tmp_path)
    model = loaded.from_pretrained(tmp_path, config=loaded.read_config(tmp_path))
    shared = model.state_dict().keys() & source.state_dict().keys()
    assert all(torch.equal(model.state_dict()[name], source.state_dict()[name]) for name in shared)
    if loaded is PointLocalizer:
        assert model.coordinate_head.hidden.weight.std() > 0
        assert model.coordinate_head.hidden.bias.std() > 0


def test_a_folder_of_another_kind_is_refused(tmp_path):
    with pytest.raises(InputError, match=os.path.basename(tmp_path)):  # noqa: PTH119 - only the name matters
        PointDescriptor.from_pretrained(tmp_path / "nothing" / tmp_path.name)
