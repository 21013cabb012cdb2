"""A stage whose requests are sent as batches: its shards ask, wait, and are run again when the answers are there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from talking_points.build_config import StepConfig
from talking_points.descriptions.backends.protocol import BackendUnavailable
from talking_points.descriptions.batches.outbox import stage_folder
from talking_points.descriptions.batches.records import BatchFolder
from talking_points.descriptions.batches.stage import StageBatches
from talking_points.errors import AnswersPending
from talking_points.escaping import for_terminal
from talking_points.redaction import redact
from tasks.running.shards import AnyOrder
from tasks.running.text_shards import stage_cache


@contextmanager
def batches_of(orders: Sequence[AnyOrder], say: Callable[[str], None]) -> Iterator[Callable[[], None] | None]:
    """What answers the shards of a stage that wait for batches; None for a stage that asks at once.

    Requests that were not answered in the end are asked for again by a later build, as without batches.
    """
    config = _sent_as_batches(orders)
    if config is None:
        yield None
        return
    order = orders[0]
    with BatchFolder(stage_folder(order.environment.cache, order.stage, order.environment.output)) as folder:
        folder.begin()

        def answer() -> None:
            with stage_cache(order, config) as cache:
                StageBatches(folder, cache, config, lambda line: say(for_terminal(redact(line)))).answer()

        try:
            yield answer
        except (AnswersPending, BackendUnavailable):
            raise  # what was tried so far still counts when a later run goes on
        except Exception:
            folder.forget_outcomes()
            raise
        folder.forget_outcomes()


def _sent_as_batches(orders: Sequence[AnyOrder]) -> StepConfig | None:
    step = getattr(orders[0].settings, "step", None) if orders else None
    config = getattr(step, "config", None)
    return config if isinstance(config, StepConfig) and config.batch is not None else None
