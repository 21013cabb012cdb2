"""Last step of retraining, when configured: the champion's models go to the Hugging Face Hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from talking_points.publishing.model_release import publish_model
from talking_points.redaction import redact_errors
from tasks.model_cards import hub_card
from tasks.publish import hub_token, may_pass

if TYPE_CHECKING:
    from talking_points.evaluation.retraining import Retraining


@task(
    name="publish-models",
    persist_result=False,
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=[30, 120],
    retry_condition_fn=may_pass,
)
@redact_errors
def publish_champion(retraining: Retraining) -> dict[str, str]:
    """Upload the champion's models, tagged with its run's fingerprint; returns their addresses.

    The champion goes up whichever run made it, so that one whose publication failed is made up for by the next run,
    and a challenger that lost never goes up. What is there already is not sent again.
    """
    champion = retraining.champion
    if champion is None:
        raise ValueError(f"{retraining.folder} has no champion to publish: judge a run first")
    settings = retraining.config.publish
    run = retraining.run_folder(champion["run"])
    token = hub_token(settings.token_block)
    return {
        role: publish_model(
            run / role,
            repo,
            tag=champion["run"],
            card=hub_card(run, role, repo),
            private=settings.private,
            token=token,
        )
        for role, repo in settings.repositories.items()
    }
