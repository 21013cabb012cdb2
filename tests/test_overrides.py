"""A value on the command line is what was typed, as far as the type of its setting allows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from talking_points.build_config import BuildConfig
from talking_points.config import ConfigError, load_config
from talking_points.evaluation.config import EvaluateConfig

NO_SOURCE = ("sources.partimagenet.root=/data",)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("output=/tmp/run #2", "/tmp/run #2"),
        ("output=2026-11-28", "2026-11-28"),
        ("output='quoted'", "quoted"),
        ('output="a # b"', "a # b"),
        ("output=it's", "it's"),
        ("output=null", "null"),
        ("output={a}", "{a}"),
        ("publish.tag=1.10", "1.10"),
        ("publish.tag=012", "012"),
        ("publish.tag=12:30", "12:30"),
        ("publish.tag=yes", "yes"),
        ("publish.tag=null", None),
        ("publish.tag=", None),
        ("publish.private=no", False),
        ("seed=010", 10),
        ("limit=null", None),
        ("verification.max_rejected_share=1e-3", 1e-3),
        ("resume=never", "never"),
        ("sources.partimagenet.root=/data/a #1", Path("/data/a #1")),
        ("sources.partimagenet.options={masks: null}", {"masks": None}),
        ("sources.partimagenet.options.since=2020-01-01", {"since": "2020-01-01"}),
        ("sources.partimagenet.options.folder=/a #1", {"folder": "/a #1"}),
        ("sources.partimagenet.options.depth=3", {"depth": 3}),
        ("generate.options.gpu_memory_utilization=0.9", 0.9),
        ("generate={temperature: 0.5}", 0.5),
    ],
)
def test_values_by_the_type_of_the_setting(override: str, value: Any) -> None:
    config: Any = load_config(BuildConfig, None, ["output=out", *NO_SOURCE, override])
    key = override.partition("=")[0]
    for name in key.split(".")[: 3 if ".options" in key else None]:
        config = config[name] if isinstance(config, dict) else getattr(config, name)
    assert (config.temperature if key == "generate" else config) == value


@pytest.mark.parametrize("override", ["seed=12:30", "seed=1.5", "publish.private=maybe", "limit=many", "seed=0x10"])
def test_values_of_another_type_are_refused_as_they_were_typed(override: str) -> None:
    key, _, text = override.partition("=")
    with pytest.raises(ConfigError, match=key) as refused:
        load_config(BuildConfig, None, ["output=out", *NO_SOURCE, override])
    assert repr(text) in str(refused.value)


def test_descriptions_of_a_set_may_be_taken_away() -> None:
    given = ["output=out", "dataset=d", "localizer=l", "text_only=null", "sets.human.file=human #1.jsonl"]
    config = load_config(EvaluateConfig, None, given)
    assert config.text_only is None
    assert config.sets["human"].file == Path("human #1.jsonl")


class _Named(BaseModel):
    name: str


@given(st.text().filter(lambda text: text.strip()[:1] not in ("'", '"')))
def test_any_text_comes_through(text: str) -> None:
    from talking_points.overrides import read_value

    assert read_value(_Named, ["name"], text) == text
