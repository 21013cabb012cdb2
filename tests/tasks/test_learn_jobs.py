from __future__ import annotations

from pathlib import Path

import pytest
import torch

from flows.learn import BF16, build_scenes, learn_config
from tasks.learn_jobs import SOURCES, draw_once, plan_jobs


def test_scenes_are_drawn_again_only_when_others_are_there(tmp_path: Path) -> None:
    def drawn(images: int) -> dict[Path, int]:
        draw_once(tmp_path, images, "plain", 0, ["partimagenet"])
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.JPEG")}

    two = drawn(2)
    assert len(two) == 2
    assert drawn(2) == two
    assert len(drawn(3)) == 3
    assert len(drawn(2)) == 2


@pytest.mark.parametrize("quick", [True, False])
def test_figures_wait_for_all_that_they_are_taken_of(tmp_path: Path, quick: bool) -> None:
    config = learn_config(tmp_path, quick, [])
    assert sorted(config.vision.sources) == sorted(SOURCES)
    jobs = {job.name: job for job in plan_jobs(config, tmp_path, 10, quick, build_scenes)}
    assert {after for job in jobs.values() for after in job.after} <= set(jobs)
    assert ("no-location" in jobs["figures"].after) is not quick
    assert ("judge-b" in jobs["scores of adapted-0"].after) is not quick
    assert jobs["text-only"].after == ("scenes",)


@pytest.mark.parametrize(
    ("capabilities", "expected"), [({"avx512_bf16": True}, True), ({"bf16": True}, True), ({"avx512_f": True}, False)]
)
def test_bfloat16_is_taken_where_the_cpu_has_instructions_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    config = learn_config(tmp_path, True, [])
    for name in BF16:
        section, field = name.split(".")
        assert getattr(getattr(config, section), field) is expected
    assert learn_config(tmp_path, True, ["localizer.bf16=true"]).localizer.bf16
