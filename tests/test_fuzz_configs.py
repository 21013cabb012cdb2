"""Random and damaged configuration files and overrides: a configuration or its documented error, nothing else."""

# ruff: noqa: PT017  (an error is one of the allowed results, and looked at)

from __future__ import annotations

import time
from pathlib import Path

import pytest

from talking_points.build_config import BuildConfig
from talking_points.config import ConfigError, load_config
from tests.fuzz import CASES, Odd, harmless

pytestmark = pytest.mark.slow

PIECES = (
    b"&a ", b"*a", b"<<: ", b"!!python/object:os.system ", b"!!float ", b"!!timestamp ", b"[", b"{", b"? ", b"- ",
    b".nan", b"\0", b"\xff\xfe", b"base: own.yaml\n", b"base: /etc/passwd\n", b"seed: 1\n", b"9" * 30,
    b"\t", b"---\n", b"'",
)  # fmt: skip


def test_configuration_files_that_are_damaged(tmp_path: Path) -> None:
    file, loaded = tmp_path / "own.yaml", 0
    whole = b"output: out\nseed: 3\nkeypoints: {per: part, sigma: 1.6}\nsources:\n  partimagenet: {root: /data}\n"
    with harmless(tmp_path):
        for seed in range(CASES):
            file.write_bytes(Odd(seed).damaged(whole, PIECES))
            started = time.process_time()
            try:
                loaded += load_config(BuildConfig, file).seed is not None
            except ConfigError as error:
                assert len(str(error)) < 5000, seed
            assert time.process_time() - started < 2, seed
    assert loaded > CASES / 100


def test_overrides_of_any_kind(tmp_path: Path) -> None:
    keys = (
        "seed",
        "limit",
        "keypoints.sigma",
        "sources.partimagenet.points",
        "refine.options",
        "images",
        "x.y",
        "",
        "a..b",
    )
    with harmless(tmp_path):
        for seed in range(CASES):
            odd = Odd(seed)
            override = f"{odd.choice(keys)}={odd.damaged(b'[1, {a: b}]', PIECES).decode(errors='replace')}"
            try:
                load_config(BuildConfig, None, ["output=out", override])
            except ConfigError as error:
                assert len(str(error)) < 5000, seed
