"""Last stage, when configured: the dataset goes to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import task
from prefect.blocks.system import Secret
from pydantic import SecretStr

from talking_points.config import ConfigError, PublishConfig
from talking_points.publishing.hub import publish


@task(name="publish", persist_result=False, retries=2, retry_delay_seconds=[30, 120])
def publish_dataset(output: str, settings: dict[str, Any]) -> str:
    """Upload the finished dataset and return its address.

    Not cached: going up again costs nothing when the Hub has it already. The token comes from the standard places of
    the machine this runs on, or from a Prefect Secret block, never from a parameter.
    """
    if "://" in output:
        raise ConfigError(f"publishing reads a local folder, and the output is {output}: copy it, then run 'publish'")
    config = PublishConfig.model_validate(settings)
    if config.repo is None:
        raise ConfigError("publish.repo is not set: expected org/name")
    token = SecretStr(Secret.load(config.token_block).get()) if config.token_block else None  # type: ignore[union-attr]
    report = publish(
        Path(output), config.repo, private=config.private, tag=config.tag, images=config.images, token=token
    )
    return report.url or config.repo
