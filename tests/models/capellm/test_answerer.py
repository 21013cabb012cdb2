"""The Point Answerer: one pass for all keypoints, every mode, bad input, saving and loading."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from PIL import Image

from talking_points.models.answerer import PointAnswerer
from talking_points.models.capellm.configuration import vision_settings
from talking_points.models.capellm.conversation import Query, QueryError, Round, encode
from talking_points.models.capellm.coordinates import parse_point
from talking_points.models.capellm.crops import BoxError, normalise
from talking_points.models.capellm.decoding import TokenizerError
from talking_points.models.capellm.modeling import parameter_counts
from talking_points.models.capellm.presets import paper_config, small_config
from talking_points.models.capellm.reading import PackedReader, count_shared
from tests.models.capellm.test_decoding import Lossy
from tests.models.capellm.tokenizers import KINDS, NAMES, Kind, small_model, tokenizer_of

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
GREY = np.full((32, 32, 3), 124, np.uint8)
OTHER = Image.fromarray(IMAGE[::-1])
BOX = (5, 5, 30, 20)
QUERIES = [Query(name, None if number % 2 else f"It is number {number}.") for number, name in enumerate(NAMES)]


@pytest.fixture(scope="module", params=["llama3", "digits"])
def model(request: pytest.FixtureRequest) -> PointAnswerer:
    return small_model(request.param)


def test_rounds_side_by_side_have_the_logits_of_rounds_alone(model: PointAnswerer) -> None:
    """Any order, two images in one batch, and a second step behind the first."""
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        images = model.image_tokens(pixels)
        prompts = [encode(model.text_tokenizer, model.template.prompt(query)).ids for query in QUERIES]
        answers = [model.grammar.ids(number, 90 - number) for number in range(len(prompts))]
        order = [5, 2, 7, 0, 1, 3, 6, 4]
        rows = [number % 2 for number in order]
        shared = count_shared(prompts)
        beginning = model.beginning(images, torch.tensor(prompts[0][:shared]))
        reader = PackedReader(model.language_model, beginning, rows)
        first, branches = reader.step(range(len(order)), [prompts[number][shared:] for number in order])
        assert branches == list(range(len(order)))
        second, _ = reader.step(branches, [answers[number] for number in order])
        for place, number in enumerate(order):
            head = [model.config.text_config.bos_token_id, *[model.config.image_token_id] * 16]
            ids = torch.tensor([[*head, *prompts[number], *answers[number]]])
            hidden = model.read(model.splice(ids, images[rows[place]][None]))
            logits = model.language_model.lm_head(hidden)[0]
            behind = len(head) + len(prompts[number]) - 1
            torch.testing.assert_close(first[place], logits[behind], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(second[place], logits[-1], rtol=1e-4, atol=1e-4)
        assert (first[0] - first[1]).abs().max() > 0.1


def test_all_keypoints_of_an_object_are_answered_as_one_by_one(model: PointAnswerer) -> None:
    together = model.answer_all(IMAGE, BOX, QUERIES)
    alone = [model.answers([IMAGE], [query], [BOX]) for query in QUERIES]
    np.testing.assert_allclose(together.points, np.concatenate([one.points for one in alone]), atol=1e-6)
    np.testing.assert_allclose(together.confidence, [one.confidence[0] for one in alone], rtol=1e-4)
    assert len({round(float(one.confidence[0]), 7) for one in alone}) > 3  # the model tells the queries apart
    mixed = model.answer([OTHER, IMAGE, OTHER], QUERIES[:3], [None, BOX, BOX], batch_size=2)
    asked: list[tuple[Any, Any]] = [(OTHER, None), (IMAGE, BOX), (OTHER, BOX)]
    for place, (image, box) in enumerate(asked):
        np.testing.assert_allclose(mixed[place], model.answer([image], [QUERIES[place]], [box])[0], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["greedy", "beam", "mean"])
def test_random_weights_always_answer_inside_the_image(kind: Kind, mode: str) -> None:
    answers = small_model(kind, seed=1).answer_all(IMAGE, (-5, -5, 90, 90), NAMES, mode=mode)  # type: ignore[arg-type]
    assert answers.parsed.all()
    assert (answers.points >= 0).all()
    assert (answers.points <= [59, 39]).all()
    assert all(parse_point(text) is not None for text in answers.texts)
    assert ((answers.confidence > 0) & (answers.confidence <= 1)).all()
    assert ((answers.mass > 0) & (answers.mass <= 1 + 1e-6)).all()
    assert (answers.entropy >= 0).all()


def test_free_answers_of_random_weights_are_unparsed_not_a_corner(model: PointAnswerer) -> None:
    answers = model.answer_all(IMAGE, BOX, QUERIES, mode="free")
    assert not answers.parsed.any()
    assert np.isinf(answers.points).all()
    assert np.isnan(answers.confidence).all()


@pytest.mark.parametrize("kind", ["llama3", "digits"])
def test_constrained_is_free_where_the_free_answer_is_one(kind: Kind) -> None:
    """A head that has learnt the format by heart: both ways of decoding give the same place."""
    model = small_model(kind)
    taught(model, QUERIES[:4])
    free = model.answer_all(GREY, None, QUERIES, mode="free")
    greedy = model.answer_all(GREY, None, QUERIES)
    shape = re.compile(rf"\[0\.\d{{{model.config.decimals}}},0\.\d{{{model.config.decimals}}}\]")
    within = [number for number, text in enumerate(free.texts) if shape.fullmatch(text)]
    assert len(within) >= 3
    assert [free.texts[number] for number in within] == [greedy.texts[number] for number in within]
    np.testing.assert_allclose(free.points[within], greedy.points[within], atol=1e-9)
    assert (greedy.mass[within] > 0.1).all()


def taught(model: PointAnswerer, queries: list[Query]) -> None:
    """Overfit the model's language side to one answer per query about a grey crop, in a second."""
    rounds = [Round(query, model.grammar.text(7 * number + 3, 90 - 5 * number)) for number, query in enumerate(queries)]
    pixels = torch.from_numpy(normalise([GREY], model.config.image_mean, model.config.image_std))
    encoded = []
    for one in rounds:
        text, spans = model.template.render([one])
        encoded.append(encode(model.text_tokenizer, text, spans).behind_image(0, model.config.image_token_id, 16))
    longest = max(len(one.ids) for one in encoded)
    ids = torch.tensor([[*one.ids, *[1] * (longest - len(one.ids))] for one in encoded])
    labels = torch.tensor([[*one.labels, *[-100] * (longest - len(one.ids))] for one in encoded])
    mask = torch.tensor([[1] * len(one.ids) + [0] * (longest - len(one.ids)) for one in encoded])
    optimizer = torch.optim.Adam(model.language_model.parameters(), lr=3e-3)
    for _ in range(40):
        loss = model(pixels, ids, mask, labels, image_index=torch.zeros(len(ids), dtype=torch.long)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.2


@pytest.mark.parametrize(
    ("query", "box", "error", "said"),
    [
        ("", BOX, QueryError, "name of a keypoint"),
        ("nose", (0, 0, 0, 5), BoxError, "60 x 40"),
        ("nose", (70, 0, 5, 5), BoxError, "60 x 40"),
        ("nose", (0, 0, float("nan"), 5), BoxError, "nan"),
        ("nose", (0, 0, 5), BoxError, "four numbers"),
        ("nose", "none", BoxError, "four numbers"),
        (Query("nose", "word " * 1900), BOX, QueryError, r"at most 2048 tokens .* found \d+ for 'nose'"),
        ("x" * 5000, BOX, QueryError, r"at most 2048 tokens .* found \d+ for 'x{60}': shorten"),
    ],
)
def test_bad_input_is_refused_with_what_to_do(
    model: PointAnswerer, query: Query | str, box: object, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        model.answer([IMAGE], [query], [box])  # type: ignore[list-item]


def test_unequal_arguments_no_queries_and_no_box(model: PointAnswerer) -> None:
    with pytest.raises(ValueError, match="'queries': 2"):
        model.answer([IMAGE], ["nose", "beak"])
    with pytest.raises(ValueError, match=r"a list of queries, found one str: put a single one into \[\.\.\.\]"):
        model.answer_all(IMAGE, None, "nose")
    with pytest.raises(ValueError, match="a list of images, found one Image"):
        model.answer(Image.fromarray(IMAGE), ["nose"])  # type: ignore[arg-type]
    for wrong in ({"mode": "bean"}, {"beam": 0}, {"batch_size": 0}):
        with pytest.raises(ValueError, match=f"expected a {next(iter(wrong))} of"):
            model.answer([IMAGE], ["nose"], **wrong)
    assert model.answer([], []).shape == (0, 2)
    whole = model.answer([IMAGE], ["nose"])
    np.testing.assert_allclose(whole, model.answer([IMAGE], ["nose"], [(0, 0, 60, 40)]))


def test_images_and_placeholders_of_other_sizes_are_refused(model: PointAnswerer) -> None:
    with pytest.raises(ValueError, match="expected crops of 32 x 32 pixels"):
        model.image_tokens(torch.zeros(1, 3, 40, 40))
    image, words = model.config.image_token_id, [3, 4]
    tokens = torch.zeros(1, 16, 192)
    for ids, said in (([0, *[image] * 15, *words], r"expected 16 image placeholders .* found \[15\]"),
                      ([0, *[image] * 8, 3, *[image] * 8], "found gaps")):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            model.splice(torch.tensor([ids]), tokens)
    with pytest.raises(StrictDataclassClassValidationError, match="multiple of the patch: got 33 and 8"):
        small_model("digits", vision_config=vision_settings(model.config.vision_config) | {"image_size": 33})


def test_cumulative_rounds_look_back_on_own_answers() -> None:
    model = small_model("llama3", rounds="cumulative", rounds_per_conversation=2)
    answers = model.answer_all(IMAGE, BOX, QUERIES)
    assert answers.parsed.all()
    model.config.rounds = "independent"
    independent = model.answer_all(IMAGE, BOX, QUERIES)
    first = int(independent.confidence.argmax())
    assert answers.texts[first] == independent.texts[first]
    assert answers.texts != independent.texts


def test_saved_and_loaded_with_adapters_and_refused_when_not_whole(tmp_path: Path) -> None:
    model = small_model("digits")
    before = model.answer([IMAGE], ["nose"], [BOX])
    model.add_lora()
    np.testing.assert_array_equal(model.answer([IMAGE], ["nose"], [BOX]), before)
    with pytest.raises(ValueError, match="adapters already"):
        model.add_lora()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    after = model.answer_all(IMAGE, BOX, QUERIES)
    model.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    loaded = PointAnswerer.from_pretrained(tmp_path)
    np.testing.assert_array_equal(loaded.answer_all(IMAGE, BOX, QUERIES).points, after.points)
    loaded.merge_lora()
    np.testing.assert_allclose(loaded.answer_all(IMAGE, BOX, QUERIES).confidence, after.confidence, rtol=1e-3)
    plain = small_model("digits")
    plain.save_pretrained(tmp_path / "plain")
    config = plain.config.from_pretrained(tmp_path / "plain")
    config.lora_active = True
    with pytest.raises(ValueError, match=r"missing: .*lora_A"):
        PointAnswerer.from_pretrained(tmp_path / "plain", config=config)


def test_half_precision_is_for_the_base_language_weights_alone(tmp_path: Path) -> None:
    model = small_model("llama3")
    model.add_lora()
    model.save_pretrained(tmp_path)
    half = PointAnswerer.from_pretrained(tmp_path, dtype=torch.bfloat16)
    for name, parameter in half.named_parameters():
        base = name.startswith("language_model.") and ".lora_" not in name
        assert parameter.dtype == (torch.bfloat16 if base else torch.float32), name
    answers = half.answer_all(IMAGE, BOX, QUERIES)
    np.testing.assert_allclose(answers.confidence, model.answer_all(IMAGE, BOX, QUERIES).confidence, rtol=0.2)


def test_passes_are_bounded_and_leave_objects_whole(model: PointAnswerer, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [IMAGE, IMAGE[::-1], IMAGE[:, ::-1]]
    asked = [image for image in images for _ in QUERIES]
    whole = model.answer(asked, QUERIES * 3)
    sizes: list[int] = []
    answer_batch = PointAnswerer._answer_batch

    def counted(self: PointAnswerer, *arguments: Any) -> Any:
        sizes.append(len(arguments[1]))
        return answer_batch(self, *arguments)

    monkeypatch.setattr(PointAnswerer, "_answer_batch", counted)
    monkeypatch.setattr("talking_points.models.answerer.MOST_ROWS", 12)
    np.testing.assert_allclose(model.answer(asked, QUERIES * 3), whole)
    np.testing.assert_allclose(model.answer(asked, QUERIES * 3, batch_size=2), whole)
    assert sizes == [8, 8, 8] * 2


def test_a_model_without_a_fitting_tokenizer_says_so() -> None:
    model = small_model("digits")
    model.tokenizer = Lossy("37", "3_")
    with pytest.raises(TokenizerError, match="cannot write"):
        _ = model.template, model.grammar
    model.tokenizer = None
    with pytest.raises(ValueError, match="no tokenizer"):
        model.answer([IMAGE], ["nose"])


def test_packed_conversations_have_the_loss_of_conversations_apart(model: PointAnswerer) -> None:
    """Two rounds behind one image under a mask of who sees whom, against two conversations of one round."""
    texts = [model.template.render([Round(query, model.grammar.text(5, 6))]) for query in QUERIES[:2]]
    encoded = [encode(model.text_tokenizer, *text) for text in texts]
    head = [0, *[model.config.image_token_id] * 16]
    pixels = torch.randn(1, 3, 32, 32)
    losses = []
    for one in encoded:
        whole = one.behind_image(0, model.config.image_token_id, 16)
        losses.append(model(pixels, torch.tensor([whole.ids]), labels=torch.tensor([whole.labels])).loss)
    lengths = [len(one.ids) for one in encoded]
    ids = torch.tensor([[*head, *encoded[0].ids, *encoded[1].ids]])
    labels = torch.tensor([[*[-100] * 17, *encoded[0].labels, *encoded[1].labels]])
    positions = torch.tensor([[*range(17 + lengths[0]), *range(17, 17 + lengths[1])]])
    visible = torch.ones(1, ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
    visible[:, 17 + lengths[0] :, 17 : 17 + lengths[0]] = False
    packed = model(pixels, ids, visible, labels, position_ids=positions)
    answers = [sum(label != -100 for label in one.labels) for one in encoded]
    wanted = sum(loss * count for loss, count in zip(losses, answers, strict=True)) / sum(answers)
    torch.testing.assert_close(packed.loss, wanted, rtol=1e-4, atol=1e-4)


def test_the_presets_have_the_paper_s_parameters() -> None:
    with torch.device("meta"):
        paper, small = PointAnswerer(paper_config()), PointAnswerer(small_config())
    counts = parameter_counts(paper)
    assert counts["projector"] == 1024 * 4096 + 4096  # 4.20 M
    assert counts["vision_adapters"] == 24 * 2 * 2 * 8 * 1024  # 0.79 M
    assert counts["language_adapters"] == 32 * 8 * (4096 + 4096 + 4096 + 1024)  # 3.41 M
    trained = counts["projector"] + counts["vision_adapters"] + counts["language_adapters"]
    assert round(trained / 1e6, 1) == 8.4
    assert counts["language_model"] == 8_030_261_248
    assert round(sum(counts.values()) / 1e9, 1) == 8.3
    assert (paper.config.image_tokens, paper.config.image_token_id) == (256, 128256)
    assert paper.language_model.lm_head.weight.shape[0] == 128256
    assert parameter_counts(small)["language_model"] == 1_235_814_400
    assert small.language_model.lm_head.weight is small.get_input_embeddings().weight


def test_the_model_of_another_tokenizer_is_not_mixed_up() -> None:
    model = small_model("llama3")
    assert model.grammar.fast is not None
    model.tokenizer = tokenizer_of("digits")
    assert model.grammar.fast is None
