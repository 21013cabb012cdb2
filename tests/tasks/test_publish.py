"""Publishing as the last task of a build: with a token from a Secret block that Prefect never notes down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from prefect.states import Failed

from talking_points.config import ConfigError
from talking_points.publishing.hub import PublishError
from tasks.publish import may_pass, publish_dataset
from tests.flows.building import CONFIG, overrides
from tests.prefect_records import prefect_api, prefect_records
from tests.publishing.conftest import Run
from tests.publishing.local_hub import WRITER, LocalHub

BUILD = """
import json, sys
from flows.build_llamapointinpart import build_llamapointinpart
print(json.dumps(build_llamapointinpart(sys.argv[1], json.loads(sys.argv[2]))))
"""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PublishError("the connection broke"), True),
        (PublishError("too many requests", 429), True),
        (PublishError("unavailable", 503), True),
        (PublishError("no such token", 401), False),
        (PublishError("somebody else committed", 412), False),
        (ConfigError("no repository"), False),
    ],
)
def test_what_is_tried_again(error: Exception, expected: bool) -> None:
    assert may_pass(publish_dataset, None, Failed(data=error)) is expected  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_published_build_leaves_the_token_nowhere(
    orchestrator: None, hub: LocalHub, run: Run, drawn: dict[str, Path], tmp_path: Path
) -> None:
    from prefect.blocks.system import Secret

    refused = "hf_secretsecretsecret"
    for name, value in (("hub-token", WRITER), ("refused-token", refused)):
        Secret(value=value).save(name, overwrite=True)
    output = tmp_path / "dataset"
    settings = overrides(output, drawn, "publish.repo=org/name")
    environment = {"PREFECT_API_URL": prefect_api(), "PREFECT_LOGGING_LEVEL": "DEBUG"}
    failed, done = (
        run(BUILD, CONFIG, json.dumps([*settings, f"publish.token_block={block}"]), token=None, **environment)
        for block in ("refused-token", "hub-token")
    )
    assert failed.returncode == 1
    assert "HTTP 401" in failed.stderr
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["executed_shards"] == 0, "a build is not made again to publish it"
    repository = hub.repository("org/name")
    assert list(repository.tags.values()) == [repository.branches["main"]]

    records = prefect_records()
    assert "publish" in records["task_runs"]
    assert "HTTP 401" in records["logs"]
    tag = next(iter(repository.tags))
    assert f"{hub.url}/datasets/org/name/resolve/{tag}/figures/composition.png" in records["artifacts"]
    written = [path for folder in (output, hub.objects) for path in folder.rglob("*") if path.is_file()]
    for token in (WRITER, refused):
        assert not [kind for kind, text in records.items() if token in text]
        assert token not in failed.stdout + failed.stderr + done.stdout + done.stderr
        assert not [path for path in written if token.encode() in path.read_bytes()]
