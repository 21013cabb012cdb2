"""The local web page on which people check descriptions: click the point, compare two texts, or write one."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path
from urllib.parse import urlencode

import uvicorn
from fastapi import FastAPI, HTTPException, Response
from nicegui import ui

from talking_points.audit.address import address_of
from talking_points.audit.guard import LOOPBACK, Guard
from talking_points.audit.items import Questions, Task, read_image
from talking_points.audit.pages import PRIMARY, TITLES, CheckPage
from talking_points.audit.store import AnswerStore
from talking_points.errors import InputError
from talking_points.image_files import read_header
from talking_points.terminal import show
from talking_points.units import counted

MAX_NAME = 40


def create_app(questions: Questions, store: AnswerStore, token: str | None = None) -> FastAPI:
    """The page as an ASGI application; one per process, since its pages are registered globally."""
    app = FastAPI(title="Human check", docs_url=None, redoc_url=None, openapi_url=None)
    places = {item.id: item.place for item in questions.items}

    @app.get("/image/{item}")
    def show_image(item: str) -> Response:
        if item not in places:
            raise HTTPException(404, "no such row in this check")
        return send_image(places[item])

    @ui.page("/")
    def start() -> None:
        _start_page(questions)

    @ui.page("/check")
    def check(person: str) -> None:
        CheckPage(questions, store, person.strip()[:MAX_NAME])

    ui.run_with(app, title="Human check", show_welcome_message=False)
    app.add_middleware(Guard, token=token)
    return app


def send_image(place: tuple[Path, int, int]) -> Response:
    """The image of a row, given its file, row group and number, or 404 for one without pixels, or damaged."""
    try:
        data = read_image(place)
        kind = read_header(data).mime
    except InputError:
        raise HTTPException(404, "this row has no pixels, or they are damaged") from None
    return Response(data, media_type=kind, headers={"Cache-Control": "private, max-age=3600"})


def serve(
    questions: Questions,
    store: AnswerStore,
    *,
    bound: socket.socket,
    host: str = "127.0.0.1",
) -> None:
    """Serve the page at the socket ``bound`` to ``host`` until interrupted.

    Any host but a loopback one gets a fresh token, printed with the address.
    """
    token = None if host in LOOPBACK else secrets.token_urlsafe(16)
    address = address_of(bound, host) + (f"?token={token}" if token else "")
    rows = counted(len(questions.items), "row")
    show(f"{TITLES[questions.task]}: {rows}. Open {address} (Ctrl-C stops; answers are kept)", secrets=True)
    run_app(create_app(questions, store, token), bound)


def run_app(app: FastAPI, bound: socket.socket) -> None:
    """Serve an application at a bound socket until interrupted."""
    config = uvicorn.Config(app, log_level="warning", server_header=False)
    uvicorn.Server(config).run(sockets=[bound])


def _start_page(questions: Questions) -> None:
    def begin() -> None:
        person = (name.value or "").strip()[:MAX_NAME]
        if person:
            ui.navigate.to(f"/check?{urlencode({'person': person})}")
        else:
            ui.notify("Please enter a name first", type="warning")

    ui.colors(primary=PRIMARY)
    with ui.column().classes("w-full max-w-xl mx-auto p-4 gap-4"):
        ui.label(TITLES[questions.task]).classes("text-2xl font-medium")
        ui.label(_INTRODUCTION[questions.task]).classes("text-base")
        ui.label(
            f"{counted(len(questions.items), 'row')}. You can stop at any time and go on later under the same name; "
            "every answer is kept the moment you give it."
        ).classes("text-base text-gray-700")
        name = ui.input("Your name").props("outlined autofocus").classes("w-full").on("keydown.enter", begin)
        ui.button("Start", on_click=begin).props("unelevated no-caps size=lg")


_INTRODUCTION: dict[Task, str] = {
    "localize": "You see an image and a description of one point in it. Click where you think the point is. Left and "
    "right are yours, the viewer's. If the description does not lead anywhere, say that you cannot tell.",
    "compare": "You see an image with a point and two descriptions of it, in random order. Choose the one that would "
    "lead somebody else to the point more surely.",
    "describe": "You see an image with a point. Describe the point so that somebody else can find it without the "
    "mark: the object, the part of it, where on the part, and what the spot looks like.",
}
