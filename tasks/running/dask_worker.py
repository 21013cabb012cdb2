"""What a worker of Dask loads before it takes tasks: ``dask worker ADDRESS --preload tasks.running.dask_worker``.

Without it the first task imports all of this, while the worker does not answer its scheduler.
"""

from __future__ import annotations

from typing import Any

from tasks import assemble, candidates, generate, index, judge, local_caption, object_caption, refine, sample, verify
from tasks.running import prefect_tasks
from tasks.running.worker_checks import set_up_worker

LOADED = (
    *(assemble, candidates, generate, index, judge, local_caption, object_caption, refine, sample, verify),
    prefect_tasks,
)


def dask_setup(_worker: Any) -> None:
    """Called by Dask when the worker starts."""
    set_up_worker()
