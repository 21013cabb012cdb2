"""The Prefect server as this project starts it: one that answers to its own names only.

``python -P -m commands.prefect_server --port 4200``. Prefect's own ``server start`` answers any ``Host`` header, so
that a website whose name is made to point at 127.0.0.1 could talk to it; everything else, the password and the origins
of the UI among it, is set by Prefect's variables (see ``orchestrator.py``).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from commands.processes import keep_what_is_made

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction

OWN_NAMES = ("127.0.0.1", "localhost")


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until a signal comes."""
    parser = argparse.ArgumentParser(prog="commands.prefect_server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name", action="append", default=[], help="a further name that clients call this server by")
    given = parser.parse_args(arguments)
    os.umask(0o077)  # the database holds secrets, and their key

    with keep_what_is_made():
        import uvicorn
        from prefect.server.api.server import create_app
        from prefect.settings import get_current_settings
        from starlette.middleware.trustedhost import TrustedHostMiddleware

        _wait_for_locks()
        server = get_current_settings().server
        app = TrustedHostMiddleware(create_app(final=True), allowed_hosts=[*OWN_NAMES, *given.name], www_redirect=False)
    uvicorn.run(
        app,
        host=given.host,
        port=given.port,
        timeout_keep_alive=server.api.keepalive_timeout,
        ws_ping_interval=server.api.websocket_ping_interval,
        ws_ping_timeout=server.api.websocket_ping_timeout,
        log_level=server.logging_level.lower(),
    )


def _wait_for_locks() -> None:
    """Have transactions on SQLite wait for their turn, a minute at most, instead of failing with "database is locked".

    One that reads before it writes cannot wait once another has written in between (SQLite, "BUSY_SNAPSHOT"): it has
    to ask for the lock when it begins, as those of Prefect do that are for an update.
    """
    from prefect.server.database.configurations import AioSqliteConfiguration

    begin = AioSqliteConfiguration.begin_transaction

    def begin_with_lock(
        self: AioSqliteConfiguration, session: AsyncSession, with_for_update: bool = False
    ) -> AbstractAsyncContextManager[AsyncSessionTransaction]:
        return begin(self, session, with_for_update=True)

    AioSqliteConfiguration.begin_transaction = begin_with_lock  # type: ignore[assignment, method-assign]


if __name__ == "__main__":
    main()
