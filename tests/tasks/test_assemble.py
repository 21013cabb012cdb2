"""What a dataset says about the models that wrote it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from talking_points.build_config import BuildConfig
from talking_points.dataset_schema import triplet_schema
from tasks.assemble import StepIdentity, describe_steps


def steps(**sections: Any) -> dict[str, StepIdentity]:
    return describe_steps(BuildConfig.model_validate({"output": "out"} | sections))


def test_a_local_model_is_named_by_its_content_and_an_unknown_one_as_configured(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    unknown = {"backend": "vllm", "model": "nobody/has-this-model", "revision": "main"}
    found = steps(local_caption={"backend": "transformers", "model": str(tmp_path)}, generate=unknown)
    assert str(found["local_caption"]["revision"]).startswith("sha256:")
    assert found["local_caption"]["revision_resolved"]
    assert (found["generate"]["revision"], found["generate"]["revision_resolved"]) == ("main", False)
    assert "revision_resolved" not in found["refine"]


def test_a_servers_model_is_not_looked_up() -> None:
    server = {"backend": "openai", "model": "llama", "endpoint": "http://127.0.0.1:1/v1", "revision": "v1"}
    refine = steps(refine=server)["refine"]
    assert refine["revision"] == "v1"
    assert "revision_resolved" not in refine


def test_the_flag_stays_out_of_the_rows(tmp_path: Path) -> None:
    found = steps(generate={"backend": "vllm", "model": str(tmp_path)})
    field = triplet_schema().field("provenance")
    table = pa.Table.from_pylist([{"provenance": found | {"seed": 0}}], schema=pa.schema([field]))
    (row,) = table.to_pylist()
    assert row["provenance"]["generate"]["revision"] == found["generate"]["revision"]
    assert set(row["provenance"]["generate"]) == {"backend", "model", "revision", "prompt_sha256"}
