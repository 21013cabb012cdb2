"""The page on which a dataset is looked at: filters, a list, one row with its image, by mouse, touch or keyboard."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nicegui import ui
from nicegui.events import KeyEventArguments

from talking_points.audit.browsing import DatasetRows, Filter, Place, RejectedFilter, list_writers
from talking_points.audit.instruction_browsing import draw_region, outlines_of
from talking_points.audit.items import AuditError, read_image
from talking_points.audit.pages import PRIMARY
from talking_points.image_files import ImageFileError, read_header

PAGE = 20
"""Rows of a page of the list."""

_KEYS = "Keys: left and right arrow row by row, page up and page down, / search, Esc out of it"
_ANY = "any"
_WRAP = "overflow-wrap: anywhere"
"""Between words; within one only where it is longer than the line, as paths and digests are."""


class ViewPage:
    """The state of one open page."""

    def __init__(self, rows: DatasetRows, title: str) -> None:
        self.rows = rows
        self.filter: Filter | RejectedFilter = Filter()
        self.found = rows.find(Filter())
        self.place = 0
        ui.colors(primary=PRIMARY)
        ui.keyboard(on_key=self._on_key)
        ui.add_body_html(
            "<script>addEventListener('keydown', event => {"
            " const active = document.activeElement, search = document.querySelector('.search-field input');"
            " if (event.key === 'Escape' && active) active.blur();"
            # Here and not on the server: what is typed on the way to it and back would be lost.
            " if (event.key === '/' && search && !event.ctrlKey && !event.metaKey && !event.altKey"
            " && !active.closest('input, textarea, select')) { event.preventDefault(); search.focus() } });"
            "addEventListener('click', event => {"
            " if (event.detail && document.activeElement.closest('button')) document.activeElement.blur() })</script>"
        )
        with ui.column().classes("w-full max-w-7xl mx-auto p-2 sm:p-4 gap-3 pb-20"):
            with ui.row().classes("w-full items-baseline gap-3"):
                ui.label(title).classes("text-xl font-medium").style(_WRAP)
                self.count = ui.label().classes("text-sm text-gray-700")
            self.filters = ui.row().classes("w-full items-end gap-2")
            with ui.row().classes("w-full gap-4 items-start no-wrap"):
                self.list = ui.column().classes("w-96 shrink-0 gap-1 max-md:hidden")
                self.detail = ui.column().classes("grow min-w-0 gap-3")
        footer = ui.row().classes(
            "fixed bottom-0 left-0 right-0 z-10 bg-white border-t border-gray-300 p-2 gap-2 justify-center items-center"
        )
        with footer:
            ui.button("Back", on_click=lambda: self._go(-1)).props("flat no-caps").tooltip("Left arrow")
            self.position = ui.label().classes("text-sm text-gray-700")
            ui.button("Next", on_click=lambda: self._go(1)).props("unelevated no-caps").tooltip("Right arrow")
            ui.label(_KEYS).classes("text-xs text-gray-600 max-md:hidden")
        self._show_filters()
        self._search()

    @property
    def rejected(self) -> bool:
        """Whether the rejected rows are looked at."""
        return isinstance(self.filter, RejectedFilter)

    def _show_filters(self) -> None:
        """One field per column that the rows looked at have; a change of kind draws them anew."""
        self.filters.clear()
        names = ("source", "stage", "reason") if self.rejected else ("split", "source", "object", "part", "flag")
        if not self.rejected and "kind" in self.rows.table.column_names:
            names = ("kind", *names)
        if not self.rejected and "judge" in self.rows.table.column_names:
            names = (*names, "judge")
        with self.filters:
            search = ui.input("Search", value=self.filter.words).props("dense outlined clearable debounce=250")
            search.classes("search-field w-full sm:w-64").on_value_change(
                lambda event: self._set("words", event.value or "")
            )
            kinds = {False: "kept", True: f"rejected ({self.rows.rejected.num_rows:,})"}
            ui.select(kinds, value=self.rejected, label="rows", on_change=lambda event: self._kind(event.value)).props(
                "dense outlined options-dense"
            ).classes("grow sm:grow-0 w-32")
            for name in names:
                column = "flags" if name == "flag" else name
                counts = self.rows.choices(column, rejected=self.rejected)
                options = {_ANY: _ANY} | {value: f"{value} ({count:,})" for value, count in counts.items()}
                ui.select(
                    options,
                    value=_ANY,
                    label=name,
                    with_input=len(options) > 12,
                    on_change=lambda event, name=name: self._set(name, None if event.value == _ANY else event.value),
                ).props("dense outlined options-dense").classes("grow sm:grow-0 w-32")

    def _kind(self, rejected: bool) -> None:
        self.filter = RejectedFilter() if rejected else Filter()
        self._show_filters()
        self._search()

    def _set(self, name: str, value: Any) -> None:
        self.filter = replace(self.filter, **{name: value})
        self._search()

    def _search(self) -> None:
        found = self.filter
        self.found = self.rows.find_rejected(found) if isinstance(found, RejectedFilter) else self.rows.find(found)
        total = self.rows.rejected.num_rows if self.rejected else len(self.rows)
        self.count.text = f"{len(self.found):,} of {total:,} rows"
        self.place = 0
        self._show()

    def _show(self) -> None:
        first = self.place // PAGE * PAGE
        shown = [int(number) for number in self.found[first : first + PAGE]]
        self.list.clear()
        with self.list:
            for offset, line in enumerate(self.rows.lines(shown, rejected=self.rejected)):
                self._show_line(line, first + offset)
        self.position.text = f"{self.place + 1:,} of {len(self.found):,}" if len(self.found) else "none"
        self.detail.clear()
        with self.detail:
            if not len(self.found):
                ui.label("No row is like that.").classes("text-lg")
            elif self.rejected:
                self._show_rejected(self.rows.lines([int(self.found[self.place])], rejected=True)[0])
            else:
                self._show_row(int(self.found[self.place]))

    def _show_line(self, line: dict[str, Any], place: int) -> None:
        own = (line["stage"], line["reason"]) if self.rejected else (line["object"], line["part"])
        title = (": " if self.rejected else ", ").join(filter(None, own))
        text = line["text"] or line["detail"] if self.rejected else line["description"]
        button = ui.button(on_click=lambda: self._at(place)).props("flat no-caps align=left dense")
        button.classes("w-full " + ("bg-blue-50" if place == self.place else ""))
        with button, ui.column().classes("gap-0 w-full min-w-0"):
            ui.label(title).classes("text-sm font-medium text-black text-left truncate w-full")
            ui.label(text).classes("text-xs text-gray-700 text-left font-normal truncate w-full")

    def _show_row(self, number: int) -> None:
        row = self.rows.row(number)
        if "question" in row:
            self._show_instruction(row, number)
            return
        ui.label(row["description"]).classes("text-lg leading-snug break-words")
        with ui.row().classes("gap-1"):
            for flag in row["flags"]:
                ui.badge(flag).props("color=amber-2 text-color=black")
            if "judge" in row:
                ui.badge(f"judge: {row['judge']}").props("color=blue-2 text-color=black")
        x, y = row["keypoint"]
        size = image_size(self.rows.places[number])
        if size is None:
            ui.label("The pixels are not part of this dataset: see talking-points rehydrate.").classes("text-gray-700")
        else:
            with ui.element("div").classes("w-full bg-gray-100 rounded"):
                image = ui.interactive_image(f"/image/{number}")
            image.style(f"width: min(100%, {52 * size[0] / size[1]:.2f}vh); margin: 0 auto")
            # A preview is smaller than the image that the point is in; pixel centres are integers in both.
            across, down = size[0] / row["image_width"], size[1] / row["image_height"]
            image.content = _ring((x + 0.5) * across, (y + 0.5) * down, max(size) / 60)
        with ui.element("div").classes("w-full grid gap-3 sm:grid-cols-2"):
            for title, text in (("Draft", row["draft"]), ("Refined", row["description"])):
                _text(title, text)
            for title, text in (("Object caption", row["object_caption"]), ("Local caption", row["local_caption"])):
                _text(title, text)
        facts = [
            ("object", row["object"]), ("part", row["part"]), ("source", row["source"]), ("split", row["split"]),
            ("places", " / ".join((row["object_location"], row["part_location"], row["point_location"]))),
            ("point", f"({x:.1f}, {y:.1f}) of {row['image_width']} x {row['image_height']} pixels"),
            ("image", row["image_path"]), ("sha256", row["image_sha256"]), ("id", row["id"]),
        ]  # fmt: skip
        _facts("Where it comes from", facts)
        _facts("Written by", list_writers(row))

    def _show_instruction(self, row: dict[str, Any], number: int) -> None:
        ui.label(row["question"]).classes("text-lg leading-snug break-words")
        with ui.row().classes("gap-1"):
            for flag in (row["kind"], *row["flags"]):
                ui.badge(flag).props("color=amber-2 text-color=black")
        size = image_size(self.rows.places[number])
        if size is None:
            ui.label("The pixels are not part of this dataset: see talking-points rehydrate.").classes("text-gray-700")
        else:
            with ui.element("div").classes("w-full bg-gray-100 rounded"):
                image = ui.interactive_image(f"/image/{number}")
            image.style(f"width: min(100%, {52 * size[0] / size[1]:.2f}vh); margin: 0 auto")
            image.content = draw_region(row, size)
            drawn = outlines_of(row)[1]
            ui.label(f"Orange: the outlines in the {drawn}; blue: box and point.").classes("text-sm text-gray-700")
        _text("Answer", row["answer"])
        facts = [
            ("expression", row["expression"] or "none means this region alone"),
            ("object", row["object"]), ("part", row["part"] or "the whole"),
            ("source", row["source"]), ("split", row["split"]),
            ("outline", f"{row['points']} points, IoU {row['round_trip_iou']:.3f} with the mask once written and read"),
            ("pieces, holes", f"{row['components']}, {row['holes']}"),
            ("image", row["image_path"]), ("sha256", row["image_sha256"]), ("region", row["region"]), ("id", row["id"]),
        ]  # fmt: skip
        _facts("Where it comes from", facts)

    def _show_rejected(self, row: dict[str, Any]) -> None:
        ui.label(f"{row['stage']}: {row['reason']}").classes("text-lg break-words")
        _text("Detail", row["detail"])
        _text("Text that was refused", row["text"] or "none")
        _facts("Which row", [("source", row["source"]), ("id", row["id"] or "none yet")])

    def _on_key(self, event: KeyEventArguments) -> None:
        if not event.action.keydown or event.modifiers.ctrl or event.modifiers.meta or event.modifiers.alt:
            return
        steps = {"ArrowRight": 1, "ArrowDown": 1, "ArrowLeft": -1, "ArrowUp": -1, "PageDown": PAGE, "PageUp": -PAGE}
        key = str(event.key)
        if key in steps:
            self._go(steps[key])
        elif key in ("Home", "End"):
            self._at(0 if key == "Home" else len(self.found) - 1)

    def _go(self, step: int) -> None:
        self._at(self.place + step)

    def _at(self, place: int) -> None:
        bounded = max(0, min(place, len(self.found) - 1))
        if bounded != self.place:
            self.place = bounded
            self._show()


def image_size(place: Place) -> tuple[int, int] | None:
    """Width and height of the row's image in pixels; None where it has none that can be shown."""
    try:
        header = read_header(read_image(place))
    except (AuditError, ImageFileError):
        return None
    return header.width, header.height


def _ring(x: float, y: float, radius: float) -> str:
    """A ring around (x, y), in the coordinates of the drawing."""
    ring = f'<circle cx="{x:.2f}" cy="{y:.2f}" r="{radius:.2f}" fill="none"'
    return (
        f'{ring} stroke="white" stroke-width="{radius / 2:.2f}"/>'
        f'{ring} stroke="#d55e00" stroke-width="{radius / 4:.2f}"/>'
    )


def _text(title: str, text: str) -> None:
    with ui.column().classes("gap-0 min-w-0"):
        ui.label(title).classes("text-xs uppercase text-gray-600")
        ui.label(text).classes("text-base leading-snug break-words")


def _facts(title: str, facts: list[tuple[str, str]]) -> None:
    with ui.column().classes("gap-0 w-full min-w-0"):
        ui.label(title).classes("text-xs uppercase text-gray-600")
        for name, value in facts:
            with ui.row().classes("w-full gap-2 no-wrap items-baseline"):
                ui.label(name).classes("text-sm text-gray-700 w-28 shrink-0")
                ui.label(value).classes("text-sm min-w-0").style(_WRAP)
