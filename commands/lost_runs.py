"""Runs whose processes may have ended while no server was there to hear of it.

The automation of ``server.crash_zombies`` waits for the next heartbeat after one that it saw, and Prefect forgets, a
minute after the time is over, that it waits: of a run that ended during a longer downtime nothing more would be heard.
A heartbeat in the name of every run that is taken for alive has the automation wait anew. A run that lives sends its
own within that time; any other becomes Crashed.
"""

from __future__ import annotations

MOST = 200
"""Runs that are looked at: as many as the server lists at once, and far more than a work pool runs."""


def expect_heartbeats(pool: str, *, pending: bool) -> int:
    """Have the server of this process wait for the heartbeats of the runs of a work pool; returns how many there are.

    ``pending``: also for those that were about to start, which is right where no worker starts any at this moment.
    """
    from prefect import get_client
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
        WorkPoolFilter,
        WorkPoolFilterName,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.events.schemas.events import Event, Resource

    alive = [StateType.RUNNING, StateType.CANCELLING, *([StateType.PENDING] if pending else [])]
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=alive))),
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
            limit=MOST,
        )
        events = []
        for run in runs:
            resource = {"prefect.resource.id": f"prefect.flow-run.{run.id}", "prefect.resource.name": run.name}
            event = Event(event="prefect.flow-run.heartbeat", resource=Resource(resource))
            if run.state_id is not None:
                # That of the event of this state: the next one follows it, and would be held back for a quarter of an
                # hour, notifications with it, by a server that has been started since and has not seen it.
                event.id = run.state_id
            events.append(event.model_dump(mode="json"))
        if events:
            client.request("POST", "/events", json=events).raise_for_status()
    return len(events)
