"""Last stage, when configured: the dataset goes to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import Task, task
from prefect.artifacts import create_markdown_artifact
from prefect.blocks.system import Secret
from prefect.client.schemas.objects import State, TaskRun
from pydantic import SecretStr

from talking_points.build_config import PublishConfig
from talking_points.config import ConfigError
from talking_points.publishing.hub import PublishError, PublishReport, publish
from talking_points.redaction import redact_errors


def may_pass(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Whether a failed publication is worth another try at once: the connection broke, or the Hub is busy or down.

    Not where somebody else has committed meanwhile: another try would build on theirs unseen.
    """
    error = state.result(raise_on_failure=False)
    return isinstance(error, PublishError) and (error.status is None or error.status == 429 or error.status >= 500)


def hub_token(block: str | None) -> SecretStr | None:
    """The Hub's token in a Prefect Secret block; without a block None, for the one of this machine."""
    return SecretStr(Secret.load(block).get()) if block else None  # type: ignore[union-attr]


@task(name="publish", persist_result=False, retries=2, retry_delay_seconds=[30, 120], retry_condition_fn=may_pass)
@redact_errors
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
    report = publish(
        Path(output),
        config.repo,
        private=config.private,
        tag=config.tag,
        images=config.images,
        token=hub_token(config.token_block),
    )
    address = report.url or config.repo
    create_markdown_artifact(key="published-dataset", markdown=_page(report, address))
    return address


def _page(report: PublishReport, address: str) -> str:
    """Where the dataset is, with its figures, for the run's page."""
    rows = ", ".join(f"{split} {count}" for split, count in report.rows.items())
    figures = [name for name in report.files if name.startswith("figures/")]
    shown = [f"![{Path(name).stem}]({address}/resolve/{report.tag}/{name})" for name in figures]
    return "\n\n".join([f"# [{report.repo}]({address}/tree/{report.tag})", f"Revision {report.tag}: {rows}", *shown])
