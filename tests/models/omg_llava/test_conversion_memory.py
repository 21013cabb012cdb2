"""A conversion needs the memory of one shard, however large the release."""

from __future__ import annotations

import multiprocessing
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch

from talking_points.models.omg_llava.configuration import OmgLlavaConfig
from talking_points.models.omg_llava.conversion import convert_release
from talking_points.models.omg_llava.stand_in import ReleaseSizes, write_release

MEGABYTE = 1024**2
SHARD = 16 * MEGABYTE
STATUS = Path("/proc/self/status")


def _anonymous_bytes() -> int:
    """What this process holds in memory beside pages of mapped files, which the system takes back when it needs to."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


def _peak_of_conversion(files: list[Path], output: Path, sizes: ReleaseSizes) -> int:
    """Bytes that a conversion adds at most to this process."""
    torch.set_num_threads(1)
    before = _anonymous_bytes()
    measured = [before]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            measured.append(_anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    base = OmgLlavaConfig(
        image_size=64,
        decoder_size=sizes.size,
        decoder_heads=sizes.heads,
        text_config={"hidden_size": sizes.hidden, "num_attention_heads": sizes.attention_heads},
    )
    try:
        convert_release(files, output, base=base, max_shard_bytes=SHARD)
    finally:
        done.set()
        watcher.join()
    return max(measured) - before


@pytest.mark.slow
@pytest.mark.skipif(not STATUS.exists(), reason="reads the process's memory from /proc, which only Linux has")
def test_memory_does_not_grow_with_the_release(tmp_path):
    peaks, totals = [], []
    for blocks in (1, 6):
        sizes = ReleaseSizes(hidden=1024, attention_heads=8, intermediate=4096, blocks=blocks)
        files = write_release(tmp_path / f"release-{blocks}", sizes)
        totals.append(sum(file.stat().st_size for file in (tmp_path / f"release-{blocks}").rglob("*.*")))
        # A process of its own: what the first conversion freed would hide what the second one takes.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            peaks.append(process.submit(_peak_of_conversion, files, tmp_path / f"model-{blocks}", sizes).result())
    assert totals[1] > 300 * MEGABYTE
    assert totals[1] > 4 * totals[0]
    # The shard, the two largest weights at hand while an adapter is merged, and modules loaded on the way.
    assert peaks[1] - peaks[0] < 3 * SHARD, (peaks, totals)
    assert peaks[1] < 6 * SHARD, (peaks, totals)
