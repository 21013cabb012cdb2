"""``talking-points view``: a local page on which a dataset is looked at."""

from __future__ import annotations

import secrets
import socket

from fastapi import FastAPI, HTTPException, Response
from nicegui import ui

from talking_points.audit.address import address_of
from talking_points.audit.app import run_app, send_image
from talking_points.audit.browsing import DatasetRows
from talking_points.audit.guard import Guard
from talking_points.audit.view_page import ViewPage
from talking_points.terminal import show
from talking_points.units import counted


def create_viewer(rows: DatasetRows, title: str, token: str) -> FastAPI:
    """The page as an ASGI application; one per process, since its pages are registered globally."""
    app = FastAPI(title="Viewer", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/image/{number}")
    def show_image(number: int) -> Response:
        if not 0 <= number < len(rows):
            raise HTTPException(404, "no such row")
        return send_image(rows.places[number])

    @ui.page("/")
    def start() -> None:
        ViewPage(rows, title)

    ui.run_with(app, title="Talking Points viewer", show_welcome_message=False)
    app.add_middleware(Guard, token=token, local=True)
    return app


def serve_viewer(rows: DatasetRows, title: str, *, bound: socket.socket) -> None:
    """Serve the page at the loopback socket ``bound`` until interrupted; the address that is shown has a token."""
    token = secrets.token_urlsafe(16)
    host = str(bound.getsockname()[0])
    address = f"{address_of(bound, host)}?token={token}"
    show(f"{title}: {counted(len(rows), 'row')}. Open {address} (Ctrl-C stops)", secrets=True)
    run_app(create_viewer(rows, title, token), bound)
