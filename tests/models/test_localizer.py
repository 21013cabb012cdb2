"""The Point Localizer: one pass, one hidden state, one point."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from talking_points.models.configuration import TalkingPointsConfig
from talking_points.models.localizer import PointLocalizer
from talking_points.models.omg_llava.modeling import LanguageInputs
from talking_points.models.presets import tiny_config
from tests.models.conftest import TEXTS

IMAGES = torch.tensor([0, 2, 0])


@pytest.fixture(scope="module")
def features(localizer, images):
    return localizer.encode_images(images)


def _configured(tokenizer, **fields) -> PointLocalizer:
    torch.manual_seed(2)
    config = tiny_config(tokenizer)
    for name, value in fields.items():
        setattr(config, name, value)
    model = PointLocalizer(config)
    model.tokenizer = tokenizer
    return model


def test_the_question_and_its_answer_are_the_papers(tokenizer):
    paper = TalkingPointsConfig()
    localizer = _configured(
        tokenizer, localizer_question=paper.localizer_question, localizer_answer=paper.localizer_answer
    )
    [turn] = localizer.turns(["the [SEG] left <image> ear"])
    assert localizer.tokenizer is not None
    text = localizer.tokenizer.decode([index for index in turn.ids.tolist() if index != -200])
    assert text == (
        "<s><|im_start|>user\n\nPlease segment region1: the left ear<|im_end|>\n"
        "<|im_start|>assistant\n<p> keypoint </p> [SEG]"
    )
    assert turn.ids[-1] == localizer.config.seg_token_id
    assert int((turn.ids == -200).sum()) == 1


def test_what_is_read_is_the_normed_state_at_seg(localizer, features):
    with torch.no_grad():
        output = localizer(features=features, image_index=IMAGES, descriptions=list(TEXTS))
        for index, text in enumerate(TEXTS):
            inputs = LanguageInputs(localizer.turns([text]), features, IMAGES[[index]])
            hidden = localizer.language_model(
                inputs_embeds=localizer.splice(inputs).inputs_embeds, output_hidden_states=True
            ).hidden_states[-1][0, -1]
            expected = localizer.coordinate_head(localizer.text_projector(hidden))
            torch.testing.assert_close(output.coordinates[index], expected, rtol=1e-4, atol=1e-5)
    assert ((output.coordinates > 0) & (output.coordinates < 1)).all()


def test_localize_equals_the_forward_pass_in_pixels(localizer, images, features):
    images = [images[index] for index in IMAGES]
    with torch.no_grad():
        coordinates = localizer(features=features, image_index=IMAGES, descriptions=list(TEXTS)).coordinates
    expected = coordinates.numpy() * features.image_sizes[IMAGES].numpy()
    for batch_size in (32, 1):
        found = localizer.localize(images, TEXTS, batch_size=batch_size, image_batch_size=1)
        assert found.shape == (3, 2)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, expected, atol=1e-2)
    stored = localizer.localize(None, TEXTS, features=features.compact(), image_index=IMAGES)
    np.testing.assert_allclose(stored, expected, atol=1e-2)


def test_nothing_to_localize_is_no_error(localizer):
    assert localizer.localize([], []).shape == (0, 2)


def test_coordinates_are_of_the_image_or_of_the_padded_square(tokenizer):
    sizes = torch.tensor([[120, 90], [70, 150]])
    points = torch.tensor([[60.0, 45.0], [0.0, 149.0]])
    expected = {"image": [[0.5, 0.5], [0.0, 149 / 150]], "padded": [[0.5, 0.5], [40 / 150, 149 / 150]]}
    for frame, values in expected.items():
        model = _configured(tokenizer, coordinate_frame=frame)
        normalised = model.normalise(points, sizes)
        torch.testing.assert_close(normalised, torch.tensor(values))
        torch.testing.assert_close(model.to_pixels(normalised, sizes), points)


def test_located_points_exist_in_their_image(tokenizer, images):
    model = _configured(tokenizer, coordinate_output="linear")
    for extreme, expected in ((1e3, [119, 89]), (-1e3, [0, 0])):
        torch.nn.init.constant_(model.coordinate_head.output.bias, extreme)
        assert model.localize(images[:1], ["x"]).tolist() == [expected]


@pytest.mark.parametrize("output", ["sigmoid", "linear"])
def test_the_head_may_start_at_the_centre(tokenizer, features, output):
    model = _configured(tokenizer, coordinate_init="centre", coordinate_output=output)
    assert model(features=features, descriptions=list(TEXTS)).coordinates.tolist() == [[0.5, 0.5]] * 3


@pytest.mark.parametrize(("reduction", "factor"), [("mean", 0.5), ("sum", 1.0)])
def test_loss_is_the_squared_error_of_normalised_coordinates(localizer, features, reduction, factor):
    model = copy.copy(localizer)
    model.config = copy.deepcopy(localizer.config)
    model.config.coordinate_loss = reduction
    points = np.array([[10.0, 20.0], [60.0, 1.0], [119.0, 89.0]])
    output = model(features=features, image_index=IMAGES, descriptions=list(TEXTS), points=points)
    sizes = features.image_sizes[IMAGES].numpy()
    squared = ((output.coordinates.detach().numpy() - points / sizes) ** 2).sum(1).mean()
    assert output.loss.item() == pytest.approx(squared * factor, rel=1e-5)


@pytest.mark.parametrize("frame", ["image", "padded"])
@pytest.mark.parametrize("output", ["sigmoid", "linear"])
def test_equation_1_is_that_of_the_paper_number_by_number(tokenizer, features, frame, output):
    model = _configured(tokenizer, coordinate_frame=frame, coordinate_output=output)
    random = np.random.default_rng(3)
    index = random.integers(0, 3, 12)
    sizes = [[int(side) for side in features.image_sizes[image]] for image in index]
    points = random.uniform(0, 1, (12, 2)) * sizes
    texts = [TEXTS[number] for number in random.integers(0, 3, 12)]
    with torch.no_grad():
        found = model(features=features, image_index=torch.from_numpy(index), descriptions=texts, points=points)
    total = 0.0
    for (x, y), (across, down), (width, height) in zip(
        found.coordinates.double().tolist(), points.tolist(), sizes, strict=True
    ):
        if frame == "image":
            wanted = across / width, down / height
        else:  # the image lies in the middle of a square
            side = max(width, height)
            wanted = (across + (side - width) // 2) / side, (down + (side - height) // 2) / side
        total += ((x - wanted[0]) ** 2 + (y - wanted[1]) ** 2) / 2
    assert found.loss.item() == pytest.approx(total / 12, rel=1e-5)


@pytest.mark.parametrize("output", ["sigmoid", "linear"])
def test_coordinates_are_two_layers_over_the_projected_state(tokenizer, output):
    model = _configured(tokenizer, coordinate_output=output)
    random = np.random.default_rng(4)
    state = random.normal(size=(7, model.config.query_size)).astype(np.float32)
    with torch.no_grad():
        found = model.coordinate_head(torch.from_numpy(state)).numpy()
    (w1, b1), (w2, b2) = (
        (layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy())
        for layer in (model.coordinate_head.hidden, model.coordinate_head.output)
    )
    offset = np.maximum(state @ w1.T + b1, 0) @ w2.T + b2
    expected = 1 / (1 + np.exp(-offset)) if output == "sigmoid" else 0.5 + offset
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"train_lora": True}, {"coordinate_head", "text_projector", "projector", "lora"}),
        ({"train_lora": True, "train_projector": False}, {"coordinate_head", "text_projector", "lora"}),
        ({"train_lora": True, "train_text_projector": False}, {"coordinate_head", "projector", "lora"}),
        (
            {"train_lora": True, "train_vocabulary": True},
            {"coordinate_head", "text_projector", "projector", "lora", "embed_tokens"},
        ),
        ({"train_lora": False, "train_projector": False, "train_text_projector": False}, {"coordinate_head"}),
    ],
)  # fmt: skip
def test_gradients_reach_exactly_what_the_configuration_trains(tokenizer, images, fields, expected):
    model = _configured(tokenizer, **{"train_language_model": False, "train_vocabulary": False, **fields})
    names = model.prepare_training()
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.02)
    features = model.encode_images(images)
    assert not features.visual_tokens.requires_grad
    model(features=features, descriptions=list(TEXTS), points=[[1, 2], [3, 4], [5, 6]]).loss.backward()
    reached = {
        name for name, parameter in model.named_parameters() if parameter.grad is not None and parameter.grad.any()
    }
    assert reached == set(names)
    parts = {"lora" if ".lora_" in name else name.split(".")[0] for name in names}
    parts = {"embed_tokens" if part == "language_model" else part for part in parts}
    assert parts == expected


def test_language_loss_beside_the_squared_error(tokenizer, features):
    texts, points = list(TEXTS), [[1, 2], [3, 4], [5, 6]]
    plain = _configured(tokenizer)(features=features, descriptions=texts, points=points).loss
    both = _configured(tokenizer, localizer_lm_weight=0.5)
    loss = both(features=features, descriptions=texts, points=points).loss
    assert loss.item() > plain.item() + 0.5
    names = both.prepare_training()
    assert "language_model.lm_head.weight" in names


def test_a_model_without_text_or_images_says_what_is_missing(localizer, features):
    with pytest.raises(ValueError, match="expected descriptions or turns"):
        localizer(features=features)
    with pytest.raises(ValueError, match="expected features or pixel_values"):
        localizer(descriptions=["x"])
    with pytest.raises(ValueError, match="one entry per sample"):
        localizer(features=features, descriptions=["x"])


@pytest.mark.parametrize("written", [TEXTS, TEXTS[:1] * 3], ids=["different", "the same"])
def test_texts_that_share_an_image_give_the_gradients_of_texts_read_alone(tokenizer, images, written):
    model = _configured(tokenizer, localizer_lm_weight=0.5)
    model.prepare_training()
    model.train()
    features = model.encode_images(images)
    points = torch.tensor([[20.0, 30.0], [5.0, 60.0], [80.0, 40.0]])

    def gradients(rows: list[list[int]]) -> dict[str, torch.Tensor]:
        model.zero_grad()
        for row in rows:
            texts = [written[index] for index in row]
            loss = model(features=features, image_index=IMAGES[row], descriptions=texts, points=points[row]).loss
            (loss * len(row) / 3).backward()
        return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}

    together, alone = gradients([[0, 1, 2]]), gradients([[0], [1], [2]])
    assert together.keys() == alone.keys()
    assert together["projector.token_mlp.0.weight"].abs().max() > 0
    for name, value in together.items():
        torch.testing.assert_close(value, alone[name], rtol=1e-3, atol=1e-6, msg=name)
