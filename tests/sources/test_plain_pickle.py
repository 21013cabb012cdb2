"""Plain data comes out as the standard unpickler reads it; everything else is refused before anything runs."""

from __future__ import annotations

import os
import pickle
import time
import tracemalloc
from contextlib import suppress
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talking_points.sources.plain_pickle import NoListError, UnsafePickleError, load_plain, stream_plain

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**90), 2**90) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)


@given(plain, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_data_of_every_protocol(value: Any, protocol: int) -> None:
    assert load_plain(pickle.dumps(value, protocol)) == value


@given(st.lists(plain, max_size=5), st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_a_list_is_streamed_as_it_is_loaded(value: list[Any], protocol: int) -> None:
    value = [*value, *value[:2]]  # entries that the file names again
    assert list(stream_plain(BytesIO(pickle.dumps(value, protocol)))) == value


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_streaming_holds_a_thousand_entries_however_many_there_are(protocol: int) -> None:
    def peak(count: int) -> int:
        names = ["train", "val"]
        file = BytesIO(
            pickle.dumps([{"split": names[i % 2], "sent": f"{i:05d} " * 40} for i in range(count)], protocol)
        )
        tracemalloc.start()
        try:
            assert sum(len(entry["sent"]) > 40 and entry["split"] in names for entry in stream_plain(file)) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(4500) - peak(1500) < 0.3 * 3000 * 240  # of the characters of three thousand entries


@pytest.mark.parametrize("value", [{}, (), "text", None, ([],), {"a": [1]}])
def test_what_is_no_list_is_not_streamed(value: Any) -> None:
    with pytest.raises(NoListError, match=type(value).__name__):
        list(stream_plain(BytesIO(pickle.dumps(value, 2))))


@pytest.mark.parametrize(
    ("data", "entries"),
    [
        (b"(I1\nI2\nl.", [1, 2]),
        (b"]q\x00(K\x01h\x00e.", [1, []]),  # a list in itself
        (b"]2(K\x01eK\x02a0K\x03a.", None),  # which ends with a copy of itself below
        (b"(](K\x01e1]K\x02a.", None),  # a first list that is thrown away
    ],
)
def test_odd_ways_to_write_a_list(data: bytes, entries: list[Any] | None) -> None:
    if entries is None:
        with suppress(UnsafePickleError, NoListError):
            list(stream_plain(BytesIO(data)))
    else:
        assert list(stream_plain(BytesIO(data))) == entries


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_shared_and_large_values(protocol: int) -> None:
    shared = ["x" * 300]
    value = [shared, shared, [{"a": shared, "b": i} for i in range(3000)], {i: str(i) for i in range(3000)}]
    read = load_plain(pickle.dumps(value, protocol))
    assert read == value
    assert read[0] is read[1]


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"(lp0\n(dp1\nS'sent'\np2\nS'caf\\xe9 \\'x\\''\np3\nsS'id'\np4\nI7\nsa.", [{"sent": "café 'x'", "id": 7}]),
        (b"\x80\x02]q\x00}q\x01(U\x04sentq\x02U\x04caf\xe9q\x03U\x02idq\x04K\x07ua.", [{"sent": "café", "id": 7}]),
        (b"(lp0\nI01\naI00\naL12L\naF1.5\naNa.", [True, False, 12, 1.5, None]),
    ],
)
def test_what_python_2_wrote(data: bytes, value: Any) -> None:
    assert load_plain(data) == value


class Harm:
    """Creates a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_hostile_pickle_runs_nothing(tmp_path: Path, protocol: int) -> None:
    target = tmp_path / "harm"
    data = pickle.dumps([{"sent": "fine"}, Harm(target)], protocol)
    with pytest.raises(UnsafePickleError, match=r"GLOBAL.*no plain data"):
        load_plain(data)
    with pytest.raises(UnsafePickleError, match=r"GLOBAL.*no plain data"):
        next(stream_plain(BytesIO(data)))  # before the entry that is fine
    assert not target.exists()
    pickle.loads(data)
    assert target.exists()  # it would have


@pytest.mark.parametrize(
    "data",
    [
        *(pickle.dumps(value) for value in (Fraction(1, 2), {1, 2}, frozenset({1}), bytearray(b"x"), object)),
        b"(ios\nsystem\n.",  # INST
        b"cos\nsystem\n(S'true'\ntR.",
        b"S'x'\nP1\n.",  # a persistent id
        b"\x82\x01.",  # an extension
        b"",
        b".",
        b"(",
        b"]",
        b"e.",
        b"]K\x01\x85s.",
        b"}](K\x01u.",
        b"}]K\x01s.",  # a list as key
        b"](K\x01e",
        b"h\x05.",
        b"X\xff\xff\xff\xffabc.",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc.",
        b"U\x09abc.",
        b"S'abc\n.",
        b"Iseven\n.",
        b"I" + b"9" * 10_000 + b"\n.",
        b"\x8b\xff\xff\xff\x7fabc.",
        b"\x80",
        b"K\x01a.",
        b"X\x01\x00\x00\x00\xff.",
        b"V\\u12\n.",
    ],
)
def test_everything_else_is_refused(data: bytes) -> None:
    with pytest.raises(UnsafePickleError, match=r"no plain data|damaged at byte"):
        load_plain(data)
    with pytest.raises((UnsafePickleError, NoListError)):
        list(stream_plain(BytesIO(data)))


def test_programs_that_would_take_all_memory_or_time_do_not() -> None:
    began = time.process_time()
    assert load_plain(b"]r\xff\xff\xff\x7f.") == []  # a memo number that the standard unpickler makes room for
    nested = b"K\x01" + b"".join(b"q%c2\x86" % i for i in range(100))  # a tree of 2**100 leaves in 400 bytes
    assert isinstance(load_plain(nested + b"."), tuple)
    with pytest.raises(UnsafePickleError, match="key that is no text"):
        load_plain(b"}" + nested + b"K\x01s.")  # whose hash would take for ever
    assert isinstance(load_plain(b"]" * 50_000 + b"a" * 49_999 + b"."), list)
    assert time.process_time() - began < 5


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with suppress(UnsafePickleError):
        load_plain(b"\x80\x02" + data + b".")
    with suppress(UnsafePickleError, NoListError):
        list(stream_plain(BytesIO(b"]" + data + b".")))
