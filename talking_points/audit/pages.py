"""One person's page: shows the next item, keeps each answer at once, goes on by mouse, touch or keyboard."""

from __future__ import annotations

import time
from typing import Any

from nicegui import ui
from nicegui.events import KeyEventArguments, MouseEventArguments

from talking_points.audit.items import Item, Questions, Task
from talking_points.audit.store import Answer, AnswerStore, Verdict

TITLES: dict[Task, str] = {
    "localize": "Find the point",
    "compare": "Compare two descriptions",
    "describe": "Describe the point",
}
PRIMARY = "#1f5f99"
"""Dark enough for white text on it and for its own text on white (contrast 6.6 : 1)."""

ZOOMS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
MIN_DESCRIPTION = 10
"""Characters below which a written description is taken for a slip."""


class CheckPage:
    """The state of one open page. All that must last is in the store: reloading goes on at the first open item."""

    def __init__(self, questions: Questions, store: AnswerStore, person: str) -> None:
        self.questions = questions
        self.store = store
        self.person = person
        self.number = self._first_open()
        self.zoom = 0
        self.shown = time.monotonic()
        self.marked: tuple[float, float] | None = None
        ui.colors(primary=PRIMARY)
        ui.keyboard(on_key=self._on_key)
        with ui.column().classes("w-full max-w-4xl mx-auto p-2 sm:p-4 gap-3 pb-28"):
            with ui.row().classes("w-full items-center justify-between no-wrap"):
                self.position = ui.label().classes("text-sm text-gray-700")
                ui.label(person).classes("text-sm text-gray-700 truncate")
            self.progress = ui.linear_progress(show_value=False, size="6px").props("rounded")
            self.body = ui.column().classes("w-full gap-3")
        footer = ui.row().classes(
            "fixed bottom-0 left-0 right-0 z-10 bg-white border-t border-gray-300 p-2 gap-2 justify-center items-center"
        )
        with footer:
            self._buttons()
        # Keys typed while a button has the focus belong to the button; one clicked by hand gives it back to the page.
        ui.add_body_html(
            "<script>addEventListener('click', event => {"
            " if (event.detail && document.activeElement.closest('button')) document.activeElement.blur() })</script>"
        )
        self._show()

    @property
    def item(self) -> Item | None:
        """The item on the page; None after the last one."""
        return self.questions.items[self.number] if self.number < len(self.questions.items) else None

    def _first_open(self) -> int:
        done = self.store.of(self.questions.task, self.person)
        numbers = enumerate(self.questions.items)
        return next((n for n, item in numbers if (item.id, item.content) not in done), len(self.questions.items))

    def _buttons(self) -> None:
        ui.button("Back", on_click=self._back).props("flat no-caps").tooltip("Left arrow")
        if self.questions.task == "localize":
            ui.button("Cannot tell", on_click=self._cannot_tell).props("outline no-caps").tooltip("C")
        ui.button("-", on_click=lambda: self._zoom(-1)).props("flat round aria-label='Zoom out'").tooltip("-")
        ui.button("+", on_click=lambda: self._zoom(1)).props("flat round aria-label='Zoom in'").tooltip("+")
        ui.button("Next", on_click=self._next).props("unelevated no-caps").tooltip("Enter or right arrow")

    def _show(self) -> None:
        """Draw the current item, with the answer that the person has given to it, if any."""
        total = len(self.questions.items)
        self.position.text = f"{min(self.number + 1, total)} of {total}"
        self.progress.value = self.number / total
        self.zoom, self.marked = 0, None
        self.shown = time.monotonic()
        self.body.clear()
        with self.body:
            if self.item is None:
                ui.label("All done, thank you.").classes("text-2xl font-medium")
                ui.label("Your answers are kept. Go back to change one, or close this page.").classes("text-base")
                return
            given = self.store.of(self.questions.task, self.person).get((self.item.id, self.item.content))
            self._show_item(self.item, given)

    def _show_item(self, item: Item, given: Answer | None) -> None:
        if self.questions.task == "localize":
            ui.label(item.texts["description"]).classes("text-lg leading-snug")
        self.frame = ui.element("div").classes("w-full overflow-auto bg-gray-100 rounded").style("max-height: 62vh")
        with self.frame:
            self.image = ui.interactive_image(
                f"/image/{item.id}", on_mouse=self._on_click, events=["click"], cross="#0072b2"
            )
        self._fit(item)
        if self.questions.task != "localize":
            self._mark(item.keypoint, item)
        elif given is not None and given.x is not None and given.y is not None:
            self._mark((given.x, given.y), item)
        if self.questions.task == "compare":
            self._show_texts(item, given)
        if self.questions.task == "describe":
            self.text = ui.textarea("Your description", value=given.text if given else "").props("outlined autogrow")
            self.text.classes("w-full")
        self.verdict = ui.label(_words(given)).classes("text-sm text-gray-700")
        ui.label(_KEYS[self.questions.task]).classes("text-xs text-gray-600 max-sm:hidden")

    def _show_texts(self, item: Item, given: Answer | None) -> None:
        for key, name in enumerate(self.questions.order(item, self.person), start=1):
            chosen = given is not None and given.text == name
            button = ui.button(on_click=lambda name=name: self._prefer(name)).classes("w-full")
            button.props("no-caps align=left " + ("unelevated" if chosen else "outline"))
            colour = "text-white" if chosen else "text-black"
            with button:
                ui.label(f"{key}.  {item.texts[name]}").classes(
                    f"text-base text-left font-normal leading-snug {colour}"
                )
        ui.button("0.  No difference", on_click=lambda: self._prefer(None)).props("flat no-caps")

    def _fit(self, item: Item) -> None:
        """At zoom 1 the whole image fits the page; larger zooms scroll."""
        height = 60 if self.questions.task == "localize" else 45
        fitting = f"min(100%, {height * item.width / item.height:.2f}vh)"
        self.image.style(f"width: calc({fitting} * {ZOOMS[self.zoom]}); margin: 0 auto; cursor: crosshair")

    def _mark(self, point: tuple[float, float], item: Item) -> None:
        radius = max(item.width, item.height) / 60 / ZOOMS[self.zoom] ** 0.5
        x, y = point[0] + 0.5, point[1] + 0.5  # a pixel's centre is an integer for us, a half for the drawing
        ring = f'<circle cx="{x:.2f}" cy="{y:.2f}" r="{radius:.2f}" fill="none"'
        dot = f'<circle cx="{x:.2f}" cy="{y:.2f}" r="{radius / 6:.2f}" fill="#d55e00"/>'
        self.image.content = (
            f'{ring} stroke="white" stroke-width="{radius / 2:.2f}"/>'
            f'{ring} stroke="#d55e00" stroke-width="{radius / 4:.2f}"/>{dot}'
        )
        self.marked = point

    def _on_click(self, event: MouseEventArguments) -> None:
        item = self.item
        if item is None or self.questions.task != "localize":
            return
        x = min(max(event.image_x - 0.5, 0.0), item.width - 1.0)
        y = min(max(event.image_y - 0.5, 0.0), item.height - 1.0)
        self._keep("point", x=x, y=y, distance=item.distance(x, y))
        self._mark((x, y), item)

    def _on_key(self, event: KeyEventArguments) -> None:
        if not event.action.keydown or event.modifiers.ctrl or event.modifiers.meta or event.modifiers.alt:
            return
        key = str(event.key)
        if key in ("ArrowRight", "Enter"):
            self._next()
        elif key in ("ArrowLeft", "Backspace"):
            self._back()
        elif key in ("+", "="):
            self._zoom(1)
        elif key == "-":
            self._zoom(-1)
        elif key.lower() == "c" and self.questions.task == "localize":
            self._cannot_tell()
        elif key in ("0", "1", "2") and self.questions.task == "compare" and self.item is not None:
            self._prefer(None if key == "0" else self.questions.order(self.item, self.person)[int(key) - 1])

    def _cannot_tell(self) -> None:
        if self.item is not None:
            self._keep("cannot_tell")
            self._go(1)

    def _prefer(self, name: str | None) -> None:
        if self.item is not None:
            self._keep("prefer" if name else "tie", text=name)
            self._go(1)

    def _next(self) -> None:
        item = self.item
        if item is None:
            return
        if self.questions.task == "describe" and len((self.text.value or "").strip()) >= MIN_DESCRIPTION:
            self._keep("text", text=" ".join(self.text.value.split()))
        if (item.id, item.content) in self.store.of(self.questions.task, self.person):
            self._go(1)
        else:
            ui.notify(_MISSING[self.questions.task], type="warning", position="top")

    def _back(self) -> None:
        self._go(-1)

    def _go(self, step: int) -> None:
        self.number = min(max(self.number + step, 0), len(self.questions.items))
        self._show()

    def _zoom(self, step: int) -> None:
        if self.item is None:
            return
        self.zoom = min(max(self.zoom + step, 0), len(ZOOMS) - 1)
        self._fit(self.item)
        x, y = self.item.width / 2, self.item.height / 2
        if self.marked is not None:
            self._mark(self.marked, self.item)
            x, y = self.marked
        ui.run_javascript(
            f"setTimeout(() => {{ const frame = getHtmlElement({self.frame.id});"
            f"frame.scrollLeft = {x / self.item.width:.4f} * frame.scrollWidth - frame.clientWidth / 2;"
            f"frame.scrollTop = {y / self.item.height:.4f} * frame.scrollHeight - frame.clientHeight / 2; }}, 50)"
        )

    def _keep(self, verdict: Verdict, **values: Any) -> None:
        """On disk when this returns."""
        assert self.item is not None
        answer = Answer(
            task=self.questions.task,
            item=self.item.id,
            content=self.item.content,
            person=self.person,
            verdict=verdict,
            seconds=round(time.monotonic() - self.shown, 2),
            **values,
        )
        self.store.add(answer)
        self.verdict.text = _words(answer)


def _words(answer: Answer | None) -> str:
    if answer is None:
        return ""
    return {"point": "Kept: your point. Click again to move it.", "cannot_tell": "Kept: cannot tell."}.get(
        answer.verdict, "Kept."
    )


_KEYS: dict[Task, str] = {
    "localize": "Keys: C cannot tell, Enter or right arrow next, left arrow back, + and - zoom",
    "compare": "Keys: 1 and 2 choose, 0 no difference, arrows go back and on, + and - zoom",
    "describe": "Keys, outside the text: Enter or right arrow next, left arrow back, + and - zoom",
}

_MISSING: dict[Task, str] = {
    "localize": "Click the point first, or say that you cannot tell (C)",
    "compare": "Choose one first (1, 2, or 0 for no difference)",
    "describe": "Write a description first",
}
