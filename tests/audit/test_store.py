"""Answers are on disk when given, and several people may give them at once."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from talking_points.audit.items import AuditError
from talking_points.audit.store import Answer, AnswerStore
from talking_points.dataset_files import DatasetError
from talking_points.sqlite_files import ForeignDatabaseError
from tests.test_sqlite_files import plant_journal

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


def test_a_file_of_answers_that_somebody_else_made(tmp_path: Path) -> None:
    """It comes with the dataset: no link is followed, and damage is named."""
    folder = tmp_path / "dataset" / "audit"
    folder.mkdir(parents=True)
    path = folder / "answers.sqlite"
    outside = tmp_path / "outside.sqlite"
    path.symlink_to(outside)
    with pytest.raises(ForeignDatabaseError, match="it is a link"):
        AnswerStore(path)
    assert not outside.exists()
    path.unlink()
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 500)
    with pytest.raises(AuditError, match="cannot be used"):
        AnswerStore(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ForeignDatabaseError, match="no regular file"):
        AnswerStore(path)


ENDLESS = (
    "CREATE VIEW answers(number, task, item, content, person, verdict, x, y, distance, text, seconds, time) AS"
    " WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c)"
    " SELECT n, 'localize', 'i', 'c', 'p' || n, 'point', 1.0, 1.0, 0.5, NULL, 1.0, 't' FROM c"
)


@pytest.mark.parametrize(
    ("ours", "statement"),
    [
        (False, ENDLESS),
        (False, "CREATE TABLE answers (number INTEGER PRIMARY KEY, task, item, content, person, verdict, x, y)"),
        (True, "CREATE TRIGGER run AFTER INSERT ON answers BEGIN DELETE FROM answers; END"),
        (True, "CREATE VIRTUAL TABLE more USING fts5(words)"),
        (True, "CREATE INDEX more ON answers (task)"),
    ],
    ids=["endless view", "other columns", "trigger", "virtual table", "index"],
)
def test_another_schema_is_refused_before_a_row_is_read(tmp_path: Path, ours: bool, statement: str) -> None:
    path = tmp_path / "audit" / "answers.sqlite"
    path.parent.mkdir()
    if ours:
        AnswerStore(path).add(ANSWER)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)
    with pytest.raises(ForeignDatabaseError, match=r"answers\.sqlite is not as .*\(its tables are others\): move"):
        AnswerStore(path).latest("localize")


@pytest.mark.parametrize(("column", "value"), [("x", "many"), ("task", 7), ("item", None), ("text", b"x")])
def test_values_of_other_types_are_refused(tmp_path: Path, column: str, value: object) -> None:
    """SQLite keeps the types of a table only while it writes."""
    path = tmp_path / "audit" / "answers.sqlite"
    AnswerStore(path).add(replace(ANSWER, text="words"))
    with closing(sqlite3.connect(path)) as connection, connection:
        table = connection.execute("SELECT sql FROM sqlite_master").fetchone()[0]
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET sql = 'CREATE TABLE answers (number INTEGER PRIMARY KEY, task,"
            " item, content, person, verdict, x, y, distance, text, seconds, time)'"
        )
        connection.execute("PRAGMA writable_schema = RESET")
        connection.execute(f"UPDATE answers SET {column} = ?", (value,))
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET sql = ?", (table,))
    with pytest.raises(ForeignDatabaseError, match="damaged"):
        AnswerStore(path).latest("localize")


def test_the_file_that_a_journal_names_stays(tmp_path: Path) -> None:
    victim, path = tmp_path / "thesis.tex", tmp_path / "audit" / "answers.sqlite"
    victim.write_text("mine")
    AnswerStore(path).add(ANSWER)
    plant_journal(path, victim)
    with pytest.raises(ForeignDatabaseError, match=r"answers\.sqlite-journal is not as .*names another file"):
        AnswerStore(path)
    assert victim.exists()


def test_a_link_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "dataset" / "audit").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match="found a link"):
        AnswerStore(tmp_path / "dataset" / "audit" / "answers.sqlite")
    assert not list((tmp_path / "elsewhere").iterdir())
