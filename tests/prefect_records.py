"""Everything that a Prefect server has noted down, to look for what should not be there."""

from __future__ import annotations

import json
import urllib.request
from itertools import count


def prefect_api() -> str:
    """The address of the API of the server that this process uses."""
    from prefect.settings import get_current_settings

    return str(get_current_settings().api.url)


def prefect_records() -> dict[str, str]:
    """All logs, flow runs, task runs and artifacts as JSON text: with parameters, states and their messages."""
    return {kind: json.dumps(_all(kind)) for kind in ("logs", "flow_runs", "task_runs", "artifacts")}


def _all(kind: str) -> list[dict[str, object]]:
    found: dict[object, dict[str, object]] = {}  # other processes add to them meanwhile: pages may overlap
    for offset in count(step=200):
        request = urllib.request.Request(
            f"{prefect_api()}/{kind}/filter",
            data=json.dumps({"limit": 200, "offset": offset}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            page = json.load(answer)
        found |= {entry["id"]: entry for entry in page}
        if not page:
            break
    return list(found.values())
