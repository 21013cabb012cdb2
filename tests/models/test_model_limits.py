"""What a model's settings may not ask for. No model is loaded here: each folder is refused before that."""

from __future__ import annotations

import json
import os
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jinja2.sandbox
import pytest

from talking_points.errors import InputError
from talking_points.models import model_limits, template_limits
from talking_points.models.gguf_header import check_gguf
from talking_points.models.hub_weights import check_hub_weights
from talking_points.models.model_folders import _config_problem, check_files
from talking_points.models.model_limits import LINEAR_LAYERS, ModelLimitError, check_counts, within_limits
from talking_points.regular_files import IrregularFileError

ADAPTERS = {"peft_type": "LORA", "r": 8, "target_modules": ["q_proj", "v_proj"], "lora_alpha": 16, "bias": "none"}
GROWING = [{"type": "Replace", "pattern": {"Regex": "."}, "content": "a" * 16}] * 12

SETTINGS: list[tuple[str, Any, str]] = [
    ("config.json", {"text_config": {"num_hidden_layers": 10**7}}, "'num_hidden_layers' of at most 4,096"),
    ("config.json", {"vision_config": [{"depths": [1, 10**7]}]}, "'depths'"),
    ("config.json", {"experts": [0, {"depths": [10**7]}]}, "'depths'"),
    ("config.json", {"vocab_size": 10**9}, "'vocab_size'"),
    ("config.json", {"num_hidden_layers": 1e300}, "'num_hidden_layers'"),
    ("config.json", {"max_new_tokens": 10**9}, "'max_new_tokens'"),
    ("config.json", {"attn_implementation": "some/kernels"}, "would run code"),
    ("config.json", {"text_config": {"_attn_implementation": "some/kernels:kernel"}}, "would run code"),
    ("config.json", {"_attn_implementation_internal": "some/kernels"}, "would run code"),
    ("config.json", {"keypoint_detector_config": {"trust_remote_code": True}}, "would permit its own code"),
    ("generation_config.json", {"num_beams": 10**6}, "'num_beams'"),
    ("tokenizer.json", {"normalizer": {"type": "Sequence", "normalizers": GROWING}}, "in the place of one"),
    ("tokenizer.json", {"decoder": {"type": "Replace", "content": "a" * 2000}}, "in the place of one"),
    ("tokenizer.json", {"normalizer": {"type": "Prepend", "prepend": "a" * 2000}}, "in the place of one"),
    ("tokenizer.json", {"post_processor": {"type": "TemplateProcessing", "single": [{}] * 300}}, "256 steps"),
    ("tokenizer.json", {"decoder": {"type": "Sequence", "decoders": [{"type": "Fuse"}] * 300}}, "256 steps"),
    ("tokenizer.json", [[]] * (1 << 22), "at most 4,194,304 values"),
    ("processor_config.json", {"num_additional_image_tokens": 10**9}, "'num_additional_image_tokens'"),
    ("processor_config.json", {"image_processor": {"size": {"height": 10**5, "width": 9}}}, "'height'"),
    ("tokenizer_config.json", {"tokenizer_class": "AutoModelForCausalLM"}, "expected a tokenizer_class"),
    ("processor_config.json", {"processor_class": "Trainer"}, "expected a processor_class"),
    ("preprocessor_config.json", {"image_processor_type": "AutoImageProcessor"}, "expected a image_processor_type"),
    ("model.safetensors.index.json", {"weight_map": {"a": "../../x.safetensors"}}, "names of files in its folder"),
    ("pytorch_model.bin.index.json", {"weight_map": {"a": "/dev/zero"}}, "names of files in its folder"),
    ("adapter_config.json", ADAPTERS | {"target_modules": "(.*.*.*.*)*x"}, "'target_modules'"),
    ("adapter_config.json", ADAPTERS | {"target_modules": ["(a+)+"]}, "'target_modules'"),
    ("adapter_config.json", ADAPTERS | {"rank_pattern": {"(a+)+": 4}}, "'rank_pattern'"),
    ("adapter_config.json", ADAPTERS | {"exclude_modules": "(a+)+x"}, "'exclude_modules'"),
    ("adapter_config.json", ADAPTERS | {"r": 10**8}, "'r'"),
    ("adapter_config.json", ADAPTERS | {"r": None}, "'r'"),
    ("adapter_config.json", ADAPTERS | {"peft_type": "XLORA"}, "'peft_type'"),
    ("adapter_config.json", ADAPTERS | {"megatron_config": {"a": 1}, "megatron_core": "os"}, "'megatron_config'"),
    ("adapter_config.json", ADAPTERS | {"layer_replication": [[0, 2]] * 1000}, "'layer_replication'"),
    ("adapter_config.json", ADAPTERS | {"some_new_setting": "x"}, "'some_new_setting'"),
]


@pytest.mark.parametrize(("name", "content", "reason"), SETTINGS)
def test_settings_that_take_all_time_or_memory_are_refused(
    tmp_path: Path, name: str, content: Any, reason: str
) -> None:
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(InputError, match=reason):
        check_files(tmp_path)


@pytest.mark.parametrize("targets", [LINEAR_LAYERS, ["q_proj", "model.layers.0.v_proj"]])
def test_settings_of_models_pass(tmp_path: Path, targets: Any) -> None:
    config = {"num_hidden_layers": 126, "vocab_size": 256_000, "hidden_size": 16_384, "attn_implementation": "sdpa"}
    (tmp_path / "config.json").write_text(json.dumps({"text_config": config, "depths": [3, 3, 27, 3]}))
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"normalizer": replace, "decoder": [replace] * 3}))
    (tmp_path / "adapter_config.json").write_text(json.dumps(ADAPTERS | {"target_modules": targets}))
    check_files(tmp_path)


def _weights(header: dict[str, Any], padding: int = 0) -> bytes:
    content = json.dumps(header).encode() + b" " * padding
    return struct.pack("<Q", len(content)) + content


TENSOR = {"dtype": "F32", "shape": [64, 64], "data_offsets": [0, 0]}


@pytest.mark.parametrize(
    ("config", "weights", "reason"),
    [
        ({}, _weights({}, (32 << 20) + 1), "has a header of 33,554,435 bytes"),
        ({}, _weights({str(number): {} for number in range(65_537)}), "has a header with 65,537 tensors"),
        ({"num_hidden_layers": 4096}, _weights({"a": TENSOR}), "asks for a 'num_hidden_layers' of 4,096"),
        ({"text_config": {"hidden_size": 64, "vocab_size": 1 << 22}}, _weights({"a": TENSOR}), "hold 4,096: the rest"),
        ({"hidden_size": 8192, "num_hidden_layers": 4}, _weights({"a": TENSOR}), "asks for 268,435,456 numbers"),
        ({"hidden_size": 64, "vocab_size": 512, "num_hidden_layers": 4}, _weights({"a": TENSOR}), None),
        ({"num_hidden_layers": 4096}, b"damaged", None),
        ({"num_hidden_layers": 4096}, _weights({"a": {"shape": "x"}}), None),
    ],
)
def test_weights_are_those_of_the_settings(tmp_path: Path, config: Any, weights: bytes, reason: str | None) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(weights)
    with pytest.raises(InputError, match=reason) if reason else nullcontext():
        check_files(tmp_path)


@pytest.mark.parametrize(
    "beside", [b"damaged", _weights({"a": {"shape": "x"}}), _weights({"a": TENSOR | {"shape": [10**6, 10**6]}})]
)
def test_files_that_are_not_loaded_vouch_for_nothing(tmp_path: Path, beside: bytes) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 8192, "num_hidden_layers": 4}))
    (tmp_path / "a.safetensors").write_bytes(beside)
    (tmp_path / "model.safetensors").write_bytes(_weights({"a": TENSOR}))
    with pytest.raises(InputError, match="asks for 268,435,456 numbers"):
        check_files(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "b.safetensors")
    index = {"weight_map": {"a": "b.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="asks for 268,435,456 numbers"):
        check_files(tmp_path)


@pytest.mark.parametrize("sharded", [False, True])
def test_weights_of_the_hub_are_looked_at_before_a_library_opens_them(tmp_path: Path, sharded: bool) -> None:
    commit = "0123456789" * 4
    folder = tmp_path / "models--org--name" / "snapshots" / commit
    folder.mkdir(parents=True)
    options: dict[str, Any] = {"revision": commit, "cache_dir": tmp_path, "config": None}
    check_hub_weights("org/name", options)  # nothing there: the library says so
    (folder / "config.json").write_text(json.dumps({"hidden_size": 64, "vocab_size": 512}))
    (folder / ("a.safetensors" if sharded else "model.safetensors")).write_bytes(_weights({"a": TENSOR}))
    if sharded:
        index = {"metadata": {}, "weight_map": {"a": "a.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    check_hub_weights("org/name", options)
    (folder / "config.json").write_text(json.dumps({"hidden_size": 8192, "num_hidden_layers": 4}))
    with pytest.raises(InputError, match="asks for 268,435,456 numbers"):
        check_hub_weights("org/name", options)
    if sharded:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../../b"}}))
        with pytest.raises(InputError, match="expected names of files in its folder"):
            check_hub_weights("org/name", options)


def _text(content: bytes) -> bytes:
    return struct.pack("<Q", len(content)) + content


def _list(key: bytes, kind: int, *entries: bytes) -> bytes:
    return _text(key) + struct.pack("<IIQ", 9, kind, len(entries)) + b"".join(entries)


TOKENS, KINDS = b"tokenizer.ggml.tokens", b"tokenizer.ggml.token_type"
KIND_OF_BYTES = struct.pack("<I", 6)


def _gguf(*settings: bytes, tensors: Sequence[bytes] = (), counts: tuple[int, int] | None = None) -> bytes:
    """A GGUF file with 64 bytes of weights."""
    head = struct.pack("<4sIQQ", b"GGUF", 3, *(counts or (len(tensors), len(settings))))
    return head + b"".join(settings) + b"".join(tensors) + bytes(64)


def _tensor(*shape: int, start: int = 0, name: bytes = b"a") -> bytes:
    sizes = struct.pack(f"<{len(shape)}Q", *shape)
    return _text(name) + struct.pack("<I", len(shape)) + sizes + struct.pack("<IQ", 0, start)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (_gguf(_text(b"k") + struct.pack("<II", 4, 1), tensors=[_tensor(4, 4)]), None),
        (_gguf(_text(b"k") + struct.pack("<IIQ", 9, 8, 2) + _text(b"x") * 2), None),
        (b"GGML" + bytes(60), "does not begin with GGUF"),
        (b"GGUF\0\0\0\x03" + bytes(60), "its version is"),
        (_gguf()[:20], "was cut off"),
        (_gguf(counts=(2**61, 0)), "tensors, more than"),
        (_gguf(counts=(0, 2**61)), "settings, more than"),
        (_gguf(struct.pack("<Q", 2**64 - 1)), "bytes of a text, more than"),
        (_gguf(_text(b"k") + struct.pack("<IIQ", 9, 4, 2**62)), "entries of a list, more than"),
        (_gguf(_text(b"k") + struct.pack("<IIQ", 9, 4, 10**6)), "was cut off"),
        (_gguf(_text(b"k") + struct.pack("<IIQ", 9, 9, 1)), "a list of the type 9"),
        (_gguf(_text(b"tokenizer.ggml.scores") + struct.pack("<IIQ", 9, 0, 8)), "in the place of another"),
        (_gguf(_text(b"tokenizer.ggml.token_type") + struct.pack("<II", 4, 0)), "in the place of a list"),
        (_gguf(_text(b"k") + struct.pack("<I", 99)), "a value of the type 99"),
        (_gguf(*[_text(b"k") + struct.pack("<II", 4, 1)] * 2), "a setting twice"),
        (_gguf(tensors=[_tensor(1)] * 2), "a tensor twice"),
        (_gguf(tensors=[_tensor(2**32, 2**32)]), "numbers"),
        (_gguf(tensors=[_tensor(1, 1, 1, 1, 1)]), "5 dimensions"),
        (_gguf(tensors=[_tensor(1, name=b"n" * 65)]), "a tensor"),
        (_gguf(tensors=[_tensor(4, start=2**63)]), "goes on beyond its end"),
        (_gguf(tensors=[_tensor(1), _tensor(1, name=b"b")]), "begin at one place"),
        (_gguf(tensors=[_tensor(1, start=7)]), "a multiple of 32"),
        (_gguf(_text(b"general.alignment") + struct.pack("<II", 4, 8), tensors=[_tensor(1, start=8)]), None),
        (_gguf(_text(b"general.alignment") + struct.pack("<II", 4, 0)), "alignment is 0"),
        (_gguf(_text(b"general.alignment") + struct.pack("<II", 4, 3)), "alignment is 3"),
        (_gguf(_text(b"general.alignment") + struct.pack("<IQ", 10, 2**63)), "of the type 10"),
        (_gguf(_list(TOKENS, 8, _text(b"<0x0a>")), _list(KINDS, 4, KIND_OF_BYTES)), None),
        (_gguf(_list(KINDS, 4, KIND_OF_BYTES), _list(TOKENS, 8, _text(b"<0x-1>"))), "token 0 stands for a byte"),
        (_gguf(_list(TOKENS, 8, _text(b"x"), _text(b"<0xZZ>")), _list(KINDS, 5, *[KIND_OF_BYTES] * 2)), "token 0"),
        (_gguf(_list(TOKENS, 8, _text(b"x"), _text(b"y")), _list(KINDS, 4, bytes(4))), "1 entries in"),
        (_gguf(_list(b"tokenizer.ggml.scores", 6, bytes(4))), "1 entries in tokenizer.ggml.scores for 0 tokens"),
        (_gguf(_list(b"tokenizer.ggml.precompiled_charsmap", 6, bytes(4))), "in the place of another"),
    ],
)
def test_gguf_files_are_looked_at_before_a_library_opens_them(
    tmp_path: Path, content: bytes, reason: str | None
) -> None:
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(InputError, match=reason) if reason else nullcontext():
        check_gguf(tmp_path / "x.gguf")


def _link(path: Path) -> None:
    (path.parents[1] / "secret").write_text("{}")
    path.symlink_to("../secret")


def _hole(path: Path) -> None:
    path.write_bytes(b"{")
    os.truncate(path, 100 << 30)


@pytest.mark.parametrize("plant", [os.mkfifo, Path.mkdir, _link, _hole], ids=["pipe", "folder", "link", "hole"])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "a.jinja", "additional_chat_templates/a.jinja"])
def test_what_is_no_file_of_a_model_is_refused(tmp_path: Path, name: str, plant: Callable[[Path], None]) -> None:
    path = tmp_path / "model" / name
    path.parent.mkdir(parents=True)
    if plant is _link and path.parent.name != "model":
        (tmp_path / "secret").write_text("{}")
        path.symlink_to("../../secret")
    else:
        plant(path)
    with pytest.raises(IrregularFileError, match=r"found a (pipe|folder|link)|at most"):
        check_files(tmp_path / "model")


def test_files_of_the_hubs_cache_are_links_to_its_blobs(tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "models--a--b/snapshots/0123", tmp_path / "models--a--b/blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "x").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/x")
    check_files(snapshot)


LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
GROWTH = "{% set n = namespace(x='a' * 1000000) %}{% for a in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}"


@pytest.mark.parametrize(("template", "reason"), [(LOOP, "seconds"), (GROWTH, "GiB")])
def test_a_template_without_end_is_given_up(template: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_limits, "SECONDS", 0.3 if template == LOOP else 20)
    monkeypatch.setattr(model_limits, "MEMORY", 1 << 28)
    written = jinja2.sandbox.ImmutableSandboxedEnvironment().from_string(template)
    with pytest.raises(ModelLimitError, match=reason):
        within_limits(written.render, "the chat template")


def test_what_fails_in_a_model_is_said_in_one_line() -> None:
    written = jinja2.sandbox.ImmutableSandboxedEnvironment().from_string("{{ ''.__class__.__mro__ }}")
    with pytest.raises(InputError, match=r"the chat template fails .SecurityError"):
        within_limits(written.render, "the chat template")
    with pytest.raises(InputError, match="MemoryError"):
        within_limits(lambda: bytes(1 << 60), "the processor")
    assert within_limits(lambda: 5, "the processor") == 5


def test_deep_settings_are_walked_in_time() -> None:
    value: Any = {}
    for _ in range(50_000):
        value = {"a": [value]}
    started = time.process_time()
    check_counts(value, "x")
    assert time.process_time() - started < 2


TEXT = "{% set t = messages[0].content %}"
DOUBLED = "{% set n = namespace(l=[1]) %}{% for a in range(64) %}{% set n.l = [n.l, n.l] %}{% endfor %}"
STEPS = [
    "{{ (t * 3000000000)|length }}",
    "{{ ([t] * 3000000000)|length }}",
    "{{ 'a' * 3000000000 }}",
    "{{ 9 ** 999999999 }}",
    "{% set n = namespace(x=9) %}{% for a in range(60) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "{% set n = namespace(x=t) %}{% for a in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "{% set n = namespace(x=t) %}{% for a in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "{% set n = namespace(x=t) %}{% for a in range(60) %}{% set x %}{{ n.x }}{{ n.x }}{% endset %}"
    "{% set n.x = x %}{% endfor %}",
    "{% set n = namespace(x=t) %}{% for a in range(60) %}{% set n.x = n.x.replace('h', n.x) %}{% endfor %}",
    "{% set n = namespace(x=t) %}{% for a in range(60) %}{% set n.x = n.x|replace('h', n.x) %}{% endfor %}",
    "{% set n = namespace(x=t) %}{% for a in range(60) %}{% set n.x = [n.x, n.x]|join %}{% endfor %}",
    "{% set n = namespace(x=t) %}{% for a in range(60) %}{% set n.x = n.x.join([n.x, n.x]) %}{% endfor %}",
    "{% set n = namespace(x=t) %}{% for a in range(60) %}{% set n.x = '%s%s' % (n.x, n.x) %}{% endfor %}",
    "{% set n = namespace(x=t) %}{% for a in range(60) %}{% set n.x = '{0}{0}'.format(n.x) %}{% endfor %}",
    "{% set n = namespace(l=[], x=t*4000) %}{% for a in range(99999) %}{% set n.l = n.l + [n.x ~ a] %}{% endfor %}",
    "{% set n = namespace(l=[], x=t*4000) %}{% for a in range(99999) %}{% set n.l = n.l + [n.x[a:]] %}{% endfor %}",
    DOUBLED + "{{ n.l }}",
    DOUBLED + "{{ n.l|tojson }}",
    DOUBLED + "{{ n.l ~ '' }}",
    DOUBLED + "{{ n.l|string|length }}",
    "{{ t|center(3000000000) }}",
    "{{ t.ljust(3000000000) }}",
    "{{ t.zfill(width=3000000000) }}",
    "{{ 'a\tb'.expandtabs(3000000000) }}",
    "{{ '%3000000000d' % 1 }}",
    "{{ '%*d' % (3000000000, 1) }}",
    "{{ '%3000000000d'|format(1) }}",
    "{{ '{:3000000000}'.format(1) }}",
    "{{ '{:{}}'.format(1, 3000000000) }}",
    "{{ 1.5|round(1000000000, 'ceil') }}",
    "{{ [1]|batch(3000000000, 1)|list|length }}",
    "{{ t|indent(3000000000, true) }}",
    "{{ [[1]]|tojson(indent=3000000000) }}",
    "{{ [[1], [2]]|sum(start=[]) }}",
    "{{ t|map('center', 3000000000)|list }}",
    "{{ (1).to_bytes(3000000000, 'big')|length }}",
    "{{ (t * 1000).translate({104: t * 1000})|length }}",
    "{% set n = namespace(i=0) %}{% for a in range(99999) %}{% for b in range(99999) %}{% set n.i = n.i + 1 %}"
    "{% endfor %}{% endfor %}",
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% for a in range(99999) %}{% for b in range(99999) if b < 0 %}{% endfor %}{% endfor %}",
    "{% for a in range(99999) recursive %}{{ loop(range(99999)) if loop.depth < 9 }}{% endfor %}",
    "{% macro m(a) %}{{ m(a - 1) ~ m(a - 1) if a }}{% endmacro %}{{ m(60) }}",
    "{% for a in range(99999) %}{% if 'x' in t * 1000 %}{% endif %}{% endfor %}",
    "{% set l = range(99999)|list %}{% for a in range(99999) %}{% if -1 in l or l == 2 %}{% endif %}{% endfor %}",
    "{% set l = range(99999)|list %}{% for a in range(99999) %}{% if -1 is in l %}{% endif %}{% endfor %}",
    "{% set l = range(99999)|list %}{% for a in range(99999) %}{% if l.count(1) %}{% endif %}{% endfor %}",
    "{% for a in range(99999) %}{% if range(99999)|map('abs')|sum %}{% endif %}{% endfor %}",
    "{% for a in range(99999) %}{% if range(99999)|max %}{% endif %}{% endfor %}",
    "{% set x = 9 ** 4999 %}{% for a in range(99999) %}{% if x * x // x == x %}{% endif %}{% endfor %}",
    "{% for a in range(99999) %}" + "{% if a is odd %}{{ a }}{% endif %}" * 300 + "{% endfor %}",
    "{{ lipsum(n=100000, max=100000) }}",
    "{{ t|urlize }}",
]


@pytest.mark.parametrize("step", STEPS)
def test_no_step_of_a_template_takes_all_time_or_memory(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    monkeypatch.setattr(template_limits, "STEPS", 1 << 18)
    chat = [{"role": "user", "content": "hi " * 300}]
    started = time.process_time()
    with pytest.raises(InputError, match=r"fails .*(characters or entries|numbers?|filter|lipsum|steps)"):
        within_limits(lambda: render_jinja_template([chat], chat_template=TEXT + step), "the chat template")
    assert time.process_time() - started < 2


HONEST = """{% set ns = namespace(system='') %}{% for m in messages %}{% if m.role == 'system' %}
{%- set ns.system = ns.system ~ m.content|trim + '\\n' %}{% elif m.content is string %}{{ '<' + m.role + '>' }}
{{- m['content'] | trim }}{% else %}{% for c in m.content %}{% if c.type == 'image' %}<image>{% else %}
{{- c.text.split(' ')[1:]|join(' ') ~ '-' * 8 ~ [1, 'é', {'a': (1, 2)}]|tojson(indent=2) }}
{{- '%s: %5.2f' % (c.type, 1.5) ~ ' {}/{:>3}'.format(c.type, 2)|upper }}{{ 'a'.center(5) }}{{ 2 ** 8 + 3 * 4 }}
{{- ', '.join(['x', 'y']).replace('x', 'zz') }}{{ [1, 2, 3]|batch(2)|list }}{{ 2.345|round(2) }}{{ [1, 2]|sum }}
{%- endif %}{% endfor %}{% endif %}{% endfor %}{{ messages[0:1]|length }}{{ ns.system|indent(4) }}
{%- for a, b in {'k': 'v'}|items %}{{ a ~ b }}{% endfor %}{% generation %}x{% endgeneration %}"""


def test_honest_templates_are_rendered_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.utils import chat_template_utils

    text = [{"type": "image"}, {"type": "text", "text": "where is it " * 50}]
    chat = [
        {"role": "system", "content": " be kind "},
        {"role": "user", "content": text},
        {"role": "user", "content": "a"},
    ]

    def render() -> Any:
        return chat_template_utils.render_jinja_template([chat], chat_template=HONEST)

    bounded = within_limits(render, "the chat template")
    with monkeypatch.context() as patch:
        patch.setattr(
            chat_template_utils, "ImmutableSandboxedEnvironment", jinja2.sandbox.ImmutableSandboxedEnvironment
        )
        chat_template_utils._compile_jinja_template.cache_clear()
        assert render() == bounded
    chat_template_utils._compile_jinja_template.cache_clear()
    assert "user" in str(bounded)


@pytest.mark.parametrize("content", ["[]", "null", '"text"', "1"])
def test_settings_that_are_no_object_are_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    assert "holds no JSON object" in str(_config_problem(tmp_path))
