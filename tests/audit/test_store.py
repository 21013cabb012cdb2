"""Answers are on disk when given, and several people may give them at once."""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import replace
from pathlib import Path

from talking_points.audit.store import Answer, AnswerStore

ANSWER = Answer("localize", "item", "content", "ann", "point", 1.5, 2.5, 0.01, None, 3.0)


def test_the_last_answer_counts_and_none_is_lost(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path / "audit" / "answers.sqlite")
    store.add(ANSWER)
    store.add(replace(ANSWER, verdict="cannot_tell", x=None, y=None, distance=None))
    store.add(replace(ANSWER, person="ben"))
    store.add(replace(ANSWER, task="compare", verdict="prefer", text="draft"))
    store.add(replace(ANSWER, content="other words"))
    latest = AnswerStore(store.path).latest("localize")
    assert [(answer.person, answer.verdict, answer.content) for answer in latest] == [
        ("ann", "cannot_tell", "content"),
        ("ben", "point", "content"),
        ("ann", "point", "other words"),
    ]
    assert latest[1].time.endswith("+00:00")
    assert replace(latest[1], time="", person="ann") == ANSWER
    assert set(store.of("localize", "ann")) == {("item", "content"), ("item", "other words")}


def _answer_then_die(path: Path, person: str, count: int) -> None:
    store = AnswerStore(path)
    for number in range(count):
        store.add(replace(ANSWER, person=person, item=f"item {number}"))
    os._exit(9)


def test_several_processes_at_once_each_killed_after_its_last_answer(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    context = multiprocessing.get_context("spawn")
    people = [context.Process(target=_answer_then_die, args=(path, f"person {n}", 20)) for n in range(3)]
    for process in people:
        process.start()
    for process in people:
        process.join(60)
    assert [process.exitcode for process in people] == [9, 9, 9]
    assert len(AnswerStore(path).latest("localize")) == 60


def test_names_and_texts_are_values_not_queries(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path / "answers.sqlite")
    hostile = "x'; DROP TABLE answers; --"
    store.add(replace(ANSWER, person=hostile, text=hostile))
    assert store.of("localize", hostile)["item", "content"].text == hostile
