"""``talking-points notify``: a message through a block of Prefect whenever a run of this project fails."""

from __future__ import annotations

from commands.orchestrator import find_configured_server
from talking_points.config import ConfigError

AUTOMATION = "Tell of runs that failed"
ENDS = ("Failed", "Crashed", "TimedOut")
SUBJECT = "{{ flow.name }} {{ flow_run.state.name }}: {{ flow_run.name }}"
BODY = "{{ flow_run.state.message }}\n{{ flow_run|ui_url }}"

_HOW = (
    'save one in the UI (Blocks), or for example: python -c "from prefect.blocks.notifications import SlackWebhook; '
    "SlackWebhook(url='https://hooks.slack.com/services/...').save('ops')\""
)


def notify(block: str) -> str:
    """Create or update the automation on the server that is configured; returns its name.

    ``block`` names a saved notification block as ``type/name``, such as ``slack-webhook/ops``. Raises ``ConfigError``
    where there is no server or no such block.
    """
    kind, separator, name = block.partition("/")
    if not (kind and separator and name):
        raise ConfigError(f"expected a notification block as type/name, such as slack-webhook/ops, found {block!a}")
    if find_configured_server() is None:
        raise ConfigError(
            "expected the server with the block in PREFECT_API_URL, e.g. http://127.0.0.1:4200/api, found it unset"
        )
    from prefect import get_client
    from prefect.events.actions import SendNotification
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            document = client.read_block_document_by_name(name, kind)
        except ObjectNotFound as error:
            raise ConfigError(f"expected a notification block {block}, found none of that name: {_HOW}") from error
        automation = AutomationCore(
            name=AUTOMATION,
            description="Made by 'talking-points notify'.",
            trigger=EventTrigger(
                expect={f"prefect.flow-run.{end}" for end in ENDS},
                match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
                match_related=ResourceSpecification(
                    {"prefect.resource.role": ["flow"], "prefect.resource.name": list(flow_names())}
                ),
                posture=Posture.Reactive,
                threshold=1,
            ),
            actions=[SendNotification(block_document_id=document.id, subject=SUBJECT, body=BODY)],
        )
        found = client.read_automations_by_name(AUTOMATION)
        if found:
            client.update_automation(found[0].id, automation)
        else:
            client.create_automation(automation)
    return AUTOMATION


def flow_names() -> tuple[str, ...]:
    """The flows of ``prefect.yaml``, whose deployments bear their names."""
    import yaml

    from talking_points.shipped import DEPLOYMENTS

    deployments = yaml.safe_load(DEPLOYMENTS.read_text(encoding="utf-8"))["deployments"]
    return tuple(item["name"] for item in deployments)
