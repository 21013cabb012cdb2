from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from talking_points.build_config import NOT_IN_FINGERPRINT, BuildConfig, dataset_settings
from talking_points.config import ConfigError, Section, fingerprint, list_changes, load_config
from talking_points.instructions.config import InstructionBuildConfig
from talking_points.sources.drawn import drawn_roots
from talking_points.training.config import TrainConfig

ROOT = Path(__file__).resolve().parents[1]
MINIMAL = ["output=out", "sources.pascal_part116.root=/data/voc"]


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "build").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_build_config_is_valid(path: Path) -> None:
    kind = InstructionBuildConfig if path.name.startswith("instructions") else BuildConfig
    config: Any = load_config(kind, path)
    assert bool(config.open_sources) == (path.name not in ("rules.yaml", "instructions.yaml")), (
        "these two are for any data, the others have theirs"
    )


def test_drawn_sources_are_never_beside_others() -> None:
    rules, sample = (load_config(BuildConfig, f"configs/build/{name}.yaml") for name in ("rules", "sample"))
    roots = drawn_roots(Path("build/sample"))
    assert {name: source.root for name, source in sample.open_sources.items()}.items() <= roots.items()
    assert sample.model_copy(update={"sources": {}}) == rules
    own = load_config(BuildConfig, "build/rules.yaml", ["sources.pascal_part116.root=/data/voc"])
    assert own.open_sources.keys() == {"pascal_part116"}


@pytest.mark.parametrize(
    ("model", "asked", "meant"),
    [
        (BuildConfig, "papr.yaml", "build/paper.yaml"),
        (BuildConfig, "build/ruls.yaml", "build/rules.yaml"),
        (TrainConfig, "paper.yml", "train/paper.yaml"),
        (TrainConfig, "build/tiny.yaml", "train/tiny.yaml"),
        (BuildConfig, "train/tiny.yml", None),
    ],
)
def test_a_configuration_of_the_own_kind_is_suggested(model: type[Section], asked: str, meant: str | None) -> None:
    with pytest.raises(ConfigError) as refused:
        load_config(model, asked)
    found = re.search(r"did you mean '(.*)'", str(refused.value))
    assert (found[1] if found else None) == meant, str(refused.value)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["keypoints.per=pixel"], "keypoints.per"),
        (["keypoint.per=part"], "did you mean 'keypoints'"),
        (["keypoints.pr=part"], "did you mean 'per'"),
        (["sources.pascal.root=/data"], "did you mean 'pascal_part116'"),
        (["workers=0"], "workers"),
        (["refine.backend=vllm"], "needs a model"),
        (["refine.backend=openai", "refine.model=m"], "needs .endpoint"),
        (["workers"], "expected key=value"),
        (["seed.x=1", "seed=[}"], "single value|cannot read the value"),
        (["workers=0", "shard_size=-1"], "2 problem"),
        (["verification.min_words=200"], "no text has 200 words"),
        (["merged_captions=object_caption"], "set verification.require_look=false"),
    ],
)
def test_mistakes_are_named_with_a_way_out(overrides: list[str], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        load_config(BuildConfig, None, [*MINIMAL, "seed=3", *overrides])


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="shipped ones are in configs/"):
        load_config(BuildConfig, tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("output: [")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(BuildConfig, broken)
    broken.write_bytes("output: café".encode("latin-1"))
    with pytest.raises(ConfigError, match="YAML file in UTF-8"):
        load_config(BuildConfig, broken)
    broken.write_text("- output")
    with pytest.raises(ConfigError, match="expected a mapping"):
        load_config(BuildConfig, broken)


def test_a_file_states_what_is_different_from_its_base(tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text("output: a\nseed: 3\nkeypoints: {per: part, sigma: 2.0}\n")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "own.yaml").write_text("base: ../all.yaml\nkeypoints: {per: image}\n")
    (tmp_path / "last.yaml").write_text("base: deeper/own.yaml\noutput: b\n")
    config = load_config(BuildConfig, tmp_path / "last.yaml", ["seed=4"])
    assert (config.output, config.seed, config.keypoints.per, config.keypoints.sigma) == ("b", 4, "image", 2.0)


def test_numbers_and_dates_of_a_file_are_what_was_typed(tmp_path: Path) -> None:
    typed = "{a: 1e-5, b: 1:30, c: 010, d: 2024-10-21, e: 0x10, f: 1_000, g: .5, h: -3, i: 0o17, j: 1., k: 2.5e3, l: 0}"
    (tmp_path / "own.yaml").write_text(f"output: x\nseed: 010\nkeypoints: {{}}\nlocal_caption: {{options: {typed}}}\n")
    config = load_config(BuildConfig, tmp_path / "own.yaml")
    assert config.seed == load_config(BuildConfig, None, ["output=x", "seed=010"]).seed == 10
    assert config.local_caption.options == {
        **{"a": 1e-5, "b": "1:30", "c": "010", "d": "2024-10-21", "e": 16, "f": 1000, "g": 0.5, "h": -3},
        **{"i": 15, "j": 1.0, "k": 2500.0, "l": 0},
    }


def test_a_text_that_reads_like_a_number_wants_quotes(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("base: build/sample.yaml\npublish: {repo: org/x, tag: 1.10}\n")
    with pytest.raises(ConfigError, match=r"publish\.tag: .*\(found 1\.1\): put it in quotes"):
        load_config(BuildConfig, tmp_path / "own.yaml")


@pytest.mark.parametrize("base", ["build/plain.yaml", "configs/build/plain.yaml"])
def test_a_base_that_is_not_beside_a_file_is_the_shipped_one(tmp_path: Path, base: str) -> None:
    (tmp_path / "own.yaml").write_text(f"base: {base}\noutput: mine\n")
    shipped = load_config(BuildConfig, "build/plain.yaml", output="mine")
    assert load_config(BuildConfig, tmp_path / "own.yaml") == shipped


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("none.yaml", "no configuration at .*none.yaml, the base of .*own.yaml"),
        ("own.yaml", "own.yaml leads back to itself"),
        ("other.yaml", "leads back to itself"),
        ("[a, b]", "expected 'base' to be the path of a YAML file"),
    ],
)
def test_a_base_that_cannot_be_used_is_named(tmp_path: Path, base: str, expected: str) -> None:
    (tmp_path / "own.yaml").write_text(f"base: {base}\n")
    (tmp_path / "other.yaml").write_text("base: own.yaml\n")
    with pytest.raises(ConfigError, match=expected):
        load_config(BuildConfig, tmp_path / "own.yaml")


@pytest.mark.parametrize("shown", ["object_caption", "local_caption"])
def test_the_ablations_of_the_merge_load_no_model_for_a_caption_that_nobody_reads(shown: str) -> None:
    withheld = {"object_caption": "local_caption", "local_caption": "object_caption"}[shown]
    config = load_config(BuildConfig, ROOT / "configs" / "build" / f"without_{withheld}.yaml")
    paper = load_config(BuildConfig, ROOT / "configs" / "build" / "paper.yaml")
    assert config.merged_captions == shown
    assert (config.step(withheld).backend, config.step(withheld).model) == ("rules", None)
    assert (config.step(shown), config.refine, config.sources) == (paper.step(shown), paper.refine, paper.sources)


def test_hard_scenes_differ_from_plain_ones_in_their_images_alone() -> None:
    plain, hard = (load_config(BuildConfig, ROOT / "configs" / "build" / f"{name}.yaml") for name in ("plain", "hard"))
    assert set(plain.open_sources) - set(hard.open_sources) == {"partimagenet"}, "its images show one object each"
    assert hard.keypoints == plain.keypoints
    assert (hard.keypoints.places, hard.keypoints.per, hard.sampling.equal_shares) == ("coarse", "part", False)
    for config, variant in ((plain, "plain"), (hard, "hard")):
        roots = drawn_roots(Path(f"build/sample-{variant}"))
        assert {name: source.root for name, source in config.open_sources.items()}.items() <= roots.items()


def test_an_empty_section_can_be_filled_by_overrides(tmp_path: Path) -> None:
    file = tmp_path / "build.yaml"
    file.write_text("output: out\nsources:\n")
    config = load_config(BuildConfig, file, ["sources.partimagenet.root=/data/pin"])
    assert config.open_sources.keys() == {"partimagenet"}


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"output": "a", "keypoints": {"per": "image"}}))
    config = load_config(BuildConfig, path, ["output=b", "keypoints.per=part", "limit=7"])
    assert (config.output, config.keypoints.per, config.limit) == ("b", "part", 7)


@pytest.mark.parametrize(
    ("override", "changes"),
    [
        ("workers=7", False),
        ("shard_size=3", False),
        ("output=elsewhere", False),
        ("resume=never", False),
        ("refine.batch_size=1", False),
        ("sources.pascal_part116.root=/moved", False),
        ("verification.max_rejected_share=0.1", False),
        ("seed=1", True),
        ("limit=10", True),
        ("refine.temperature=0.5", True),
        ("keypoints.per=part", True),
        ("merged_captions=local_caption", True),
        ("sources.ade20k_part234.root=/more", True),
        ("sources.pascal_part116.points=5", True),
    ],
)
def test_only_what_can_change_a_row_is_in_the_fingerprint(override: str, changes: bool) -> None:
    before = dataset_settings(load_config(BuildConfig, None, MINIMAL))
    after = dataset_settings(load_config(BuildConfig, None, [*MINIMAL, override]))
    assert (fingerprint(before) != fingerprint(after)) is changes
    assert bool(list_changes(before, after)) is changes


def test_the_table_of_exclusions_names_real_fields() -> None:
    config = load_config(BuildConfig, None, MINIMAL)
    sections = {
        "build": config,
        "source": config.sources["pascal_part116"],
        "step": config.refine,
        "verification": config.verification,
    }
    for section, names in NOT_IN_FINGERPRINT.items():
        assert set(names) <= set(type(sections[section]).model_fields)


def test_changed_fields_show_both_values() -> None:
    assert list_changes({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2}) == ["a.b: 1 -> 3"]


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 10)}]\n" for n in range(9)
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (BOMB, "20,000 values with all aliases filled in"),
        ("output: " + "[" * 500_000, "32 levels"),
        ("output: " + "{a: " * 100_000, "32 levels"),
        ("".join(" " * n + "a:\n" for n in range(1000)), "32 levels"),
        ("output: &a [*a]", "part of"),
        ("output: a\n" * 100_000 + "output: a", "20,000 values|characters"),
        ("output: " + "x" * 2_000_000, "1,048,576 characters"),
        ("output: a\nseed: 1\noutput: b", "line 3: 'output' is set a second time, first in line 1"),
        ("keypoints: {sigma: 1.0, sigma: 2.0}", "'sigma' is set a second time"),
        ("keypoints: {sigma: .nan}", "finite"),
        ("keypoints: {sigma: -.inf}", "finite"),
        ("seed: " + "9" * 5_000, "cannot read this value"),
        ("output: !!timestamp 2001-13-45", "cannot read this value"),
        ("output: !!timestamp x", "cannot read this value"),
        ("output: !!bool x", "cannot read this value"),
        ("output: !!python/object/apply:os.system [true]", "could not determine a constructor"),
        ("output: \0", "not allowed"),
        ("? [a]\n: b", "unhashable"),
    ],
    ids=lambda value: value[:24],
)
def test_a_file_that_no_configuration_needs_is_refused_at_once(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(text)
    started = time.process_time()
    with pytest.raises(ConfigError, match=told) as refused:
        load_config(BuildConfig, file)
    assert time.process_time() - started < 1
    assert str(file) in str(refused.value)
    assert len(str(refused.value)) < 2_000


@pytest.mark.parametrize("value", ["'nan'", "1e999", "'-Infinity'"])
def test_numbers_are_finite_however_they_are_written(value: str) -> None:
    with pytest.raises(ConfigError, match="finite"):
        load_config(BuildConfig, None, [*MINIMAL, f"keypoints.sigma={value}"])


@pytest.mark.parametrize(("encoding", "works"), [("utf-8", True), ("utf-8-sig", True), ("utf-16", False)])
def test_files_of_other_editors(tmp_path: Path, encoding: str, works: bool) -> None:
    file = tmp_path / "own.yaml"
    file.write_bytes("output: büld\n".encode(encoding))
    if works:
        assert load_config(BuildConfig, file).output == "büld"
    else:
        with pytest.raises(ConfigError, match="YAML file in UTF-8"):
            load_config(BuildConfig, file)


def test_aliases_and_merges_are_what_yaml_says(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(
        "output: a\ngenerate: &rules {backend: rules, max_tokens: 64}\n"
        "refine: {<<: *rules, max_tokens: 128}\nlocal_caption: *rules\n"
    )
    config = load_config(BuildConfig, file)
    assert [config.generate.max_tokens, config.refine.max_tokens, config.local_caption.max_tokens] == [64, 128, 64]


def test_settings_that_came_later_are_in_no_fingerprint_while_nobody_sets_them() -> None:
    plain = dataset_settings(load_config(BuildConfig, None, MINIMAL))
    assert "reserve" not in plain["sampling"]
    assert "max_pixels" not in plain["keypoints"]
    changed = dataset_settings(load_config(BuildConfig, None, [*MINIMAL, "sampling.reserve=0.1"]))
    assert changed["sampling"]["reserve"] == 0.1
