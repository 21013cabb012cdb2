"""Text of a dataset is shown as text, in a terminal, in Markdown, in HTML and in LaTeX."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from commands import cli  # noqa: F401  (adds the commands)
from commands.compare import print_comparison
from commands.console import app, exit_codes
from talking_points.audit.findings import write_report
from talking_points.audit.items import load_questions
from talking_points.audit.store import ANSWERS, Answer, AnswerStore
from talking_points.errors import InputError
from talking_points.escaping import fence_text, for_code, for_latex, for_markdown, for_terminal
from talking_points.evaluation.tables import Row, Table
from talking_points.publishing.card import render_card
from talking_points.publishing.comparison import Comparison
from talking_points.publishing.markdown import Markdown, markdown_environment
from talking_points.publishing.model_card import render_model_card
from talking_points.publishing.quality import render_page
from talking_points.terminal import show_json
from tests.publishing.small_dataset import ROWS, small_manifest, write_dataset

HOSTILE = [
    "![x](https://evil.example/pixel.png)",
    "[click](https://evil.example)",
    "<img src=x onerror=alert(1)>",
    "<https://evil.example>",
    "https://evil.example/a www.evil.example someone@evil.example",
    "a | b | c",
    "`code` ``",
    "*bold* _it_ ~~gone~~",
    "# heading",
    "- item",
    "1. item",
    "line\n\n# heading\n",
    "&lt;script&gt; &#x3c;",
    "[ref]: https://evil.example",
    "a\\|b",
    "```",
    "===",
    "---",
    "\x1b[2J\x1b]0;title\x07\x9b31m",
    "\u202egnp.exe",
]


def parsed(markdown: str) -> list[Any]:
    """All tokens of GitHub's Markdown, nested ones included."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown)
    return [inner for token in tokens for inner in (token, *(token.children or ()))]


def read_back(markdown: str) -> str:
    return "".join(token.content for token in parsed(markdown) if token.type in ("text", "text_special"))


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_markdown_shows_a_text_as_itself(text: str) -> None:
    written = for_markdown(text)
    kinds = {token.type for token in parsed(written)}
    assert kinds <= {"paragraph_open", "paragraph_close", "inline", "text", "text_special"}, kinds
    assert read_back(written) == for_terminal(" ".join(text.split()))
    assert "://" not in written, "no reader makes a link of it"
    cells = [token for token in parsed(f"| a | b |\n|---|---|\n| {written} | x |\n") if token.type == "td_open"]
    assert len(cells) == 2


@given(st.text())
def test_any_text_stays_in_its_paragraph_and_its_cell(text: str) -> None:
    written = for_markdown(text)
    assert {token.type for token in parsed(f"x {written} x")} <= {
        "paragraph_open", "paragraph_close", "inline", "text", "text_special",
    }  # fmt: skip
    assert len([token for token in parsed(f"|a|b|\n|-|-|\n|{written}|x|\n") if token.type == "td_open"]) == 2


@given(st.text())
def test_code_ends_where_it_should(text: str) -> None:
    (block,) = [token for token in parsed(fence_text(text, "yaml")) if token.type == "fence"]
    assert block.info == "yaml"
    kinds = [token.type for token in parsed(f"a `{for_code(text)}x` b") if token.type == "code_inline"]
    assert kinds == ["code_inline"]


@given(st.text())
def test_a_terminal_is_not_moved(text: str) -> None:
    shown = for_terminal(text)
    assert not [character for character in shown if ord(character) < 32 and character not in "\n\t"]
    assert not set(shown) & {"\x1b", "\x7f", "\x9b", "\u202e", "\u2066"}


@pytest.mark.parametrize("text", [r"\input{/etc/passwd}", "^^5cinput", "$x$", "{a}", "50 % & #_~"])
def test_latex_shows_a_text_as_itself(text: str) -> None:
    written = for_latex(text)
    for command in (r"\textbackslash{}", r"\textasciitilde{}", r"\textasciicircum{}", *(f"\\{c}" for c in "%&_#${}")):
        written = written.replace(command, "")
    assert not set(written) & set("\\^$%&#_~{}")


def bad_tokens(markdown: str) -> list[str]:
    return [
        f"{token.type} {token.content[:80]}"
        for token in parsed(markdown)
        if "evil" in str(token.attrs) or (token.type.startswith("html") and "img" in token.content)
    ]


def test_cards_hold_no_link_of_a_dataset() -> None:
    hostile = " ".join(HOSTILE[:4])
    manifest = small_manifest(ROWS, "embed")
    manifest |= {
        "name": hostile,
        "fingerprint": "`" + hostile,
        "created_with": {hostile: hostile},
        "composition": {"pascal_part116": {hostile: {hostile: 1}}},
        "config": {"seed": 0, "text": f"\n\n```\n\n{hostile}\n\n```"},
    }
    manifest["stages"] = {hostile: {"rows_in": 1, "rows_out": 0, "rejected": {hostile: 1}}}
    spent = {"requests": 1, "tokens_in": 1, "tokens_out": 1, "cost": 1.0}
    manifest["cost"] = {"currency": hostile, "total": 1.0, "steps": {hostile: spent}}
    manifest["steps"] = {name: dict.fromkeys(step, hostile) for name, step in manifest["steps"].items()}
    for source in manifest["sources"].values():
        source["skipped"] = {hostile: 1}
    body = render_card(manifest).split("---\n", 2)[2]
    assert not bad_tokens(body)
    card = render_model_card(hostile, "localizer", config={"a": hostile}, dataset=hostile, dataset_revision=hostile)
    assert not bad_tokens(card.split("---\n", 2)[2])


def test_a_field_of_a_card_is_escaped_by_default() -> None:
    """Without a filter in its template, and whatever it was made of."""
    hostile = "a|b<script>![x](http://evil.example/a.png)"
    environment = markdown_environment()
    for value, written in ((hostile, for_markdown(hostile)), ([hostile], for_markdown([hostile])), (7, "7")):
        assert environment.from_string("{{ value }}").render(value=value) == written
    assert environment.from_string("{{ value }}").render(value=Markdown(hostile)) == hostile
    assert environment.from_string("{{ value ~ '' }}").render(value=Markdown(hostile)) == for_markdown(hostile)


def test_tables_pages_and_terminals_hold_no_link_of_a_dataset(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = HOSTILE[0] + HOSTILE[2] + HOSTILE[-2] + "[bold]x[/bold] [link=https://evil.example]y[/link]"
    table = Table("k", hostile, [Row(hostile, ours={"mPCK": 1.0})], [hostile])
    assert not bad_tokens(table.markdown())
    comparison = Comparison((hostile, "b"), (hostile,), ((hostile, "1", "2"),), (), 0, (0, 0))
    page = render_page("comparison.html.jinja", comparison=comparison, pairs=[], titles={})
    assert "<img" not in page
    assert "\x1b" not in page
    print_comparison(comparison)
    with pytest.raises(BaseException, match="2"), exit_codes():
        raise InputError(hostile)
    printed = capsys.readouterr()
    assert "\x1b[2J" not in printed.out + printed.err
    assert "\\x1b[2J" in printed.err
    assert (
        "[bold]x[/bold]" in printed.out.replace("\n", "").replace("│", "").replace(" ", "") or "[bold]" in printed.out
    )


@pytest.mark.parametrize(
    "command",
    [
        ["init", "{folder}"],
        ["draw-sample", "{folder}", "--images", "1", "--sources", "partimagenet", "--workers", "1"],
        ["report", "{dataset}", "--to", "{folder}"],
        ["publish", "{dataset}", "org/name", "--dry-run"],
        ["compare", "{dataset}", "{dataset}", "--html", "{folder}.html"],
        ["audit", "{dataset}", "--report"],
        ["status", "{folder}"],
        ["build", "--dry-run", "-s", "output={folder}", "-s", "sources.partimagenet.root={folder}"],
        ["{folder}"],
    ],
    ids=lambda command: command[0],
)
def test_no_command_shows_a_name_that_a_terminal_obeys(command: list[str], tmp_path: Path) -> None:
    name = "a\x1b[31m\x9b2J\u202e[/b]:smile:"
    places = {"folder": tmp_path / name, "dataset": tmp_path / "d" / name}
    write_dataset(places["dataset"], rows={"test": 3})
    result = CliRunner().invoke(app, [word.format_map(places) for word in command])
    assert result.exit_code in (0, 2), result.output
    assert not set(result.output) & {"\x1b", "\x9b", "\u202e"}
    assert "smile" in result.output or command[0] in ("publish", "audit"), "the name is shown"


def test_json_stays_json_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    values = {"path": "a\x9b\x7f\u202e\ud800 é", "text": 'token=abcdefgh1"x'}
    for ascii_only in (True, False):
        show_json(values, ascii_only=ascii_only)
        line = capsys.readouterr().out
        assert json.loads(line) == values | {"text": 'token=***"x'}
        assert ("é" in line) is not ascii_only
        assert not set(line) & {"\x9b", "\x7f", "\u202e", "\ud800"}


def test_a_row_id_is_no_path_in_the_report_of_the_human_check(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    output = write_dataset(tmp_path / "dataset", rows={"test": 3})
    path = next((output / "data").iterdir())
    table = pq.read_table(path)
    for name, value in (("id", "../../../escaped"), ("description", HOSTILE[0])):
        values = pa.array([f"{value}{number}" for number in range(table.num_rows)])
        table = table.set_column(table.schema.get_field_index(name), name, values)
    pq.write_table(table, path)
    questions = load_questions(output, share=1.0)
    store = AnswerStore(output / ANSWERS)
    for item in questions.items:
        store.add(Answer("localize", item.id, item.content, "ann", "cannot_tell", seconds=1.0))
    write_report(output, questions)
    assert not list(tmp_path.glob("*escaped*"))
    assert len(list((output / "audit" / "worst").iterdir())) == 3
    assert not bad_tokens((output / "audit" / "report.md").read_text())
