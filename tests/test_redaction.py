from __future__ import annotations

import io
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.columns import Columns
from rich.panel import Panel
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

from talking_points.build_config import BuildConfig, dataset_settings
from talking_points.config import ConfigError, load_config
from talking_points.errors import RunError
from talking_points.redacted_console import RedactedConsole
from talking_points.redaction import (
    guard_logs,
    hide_secrets,
    is_secret_name,
    protect,
    protect_settings,
    redact,
    redact_error,
    redact_errors,
    seal,
    unseal,
)


@pytest.mark.parametrize(
    "name",
    [
        "token",
        "HF_TOKEN",
        "OPENAI_API_KEY",
        "api-key",
        "apikey",
        "x-api-key",
        "Authorization",
        "use_auth_token",
        "password",
        "POSTGRES_PASSWORD",
        "AWS_SECRET_ACCESS_KEY",
        "client_secret",
        "PREFECT_API_AUTH_STRING",
        "sig",
        "key",
        "DB_PASS",
        "MYSQL_PWD",
        *("PGPASSWORD", "DBPASSWORD", "dbpassword", "clientSecret", "accessToken", "accesskey", "AccountKey"),
        *("api%5Fkey", "pass", "jwt", "sas"),
    ],
)
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("max_tokens", "bos_token", "pad_token", "eosToken", "keypoints", "token_block", "author", "tokenizer"),
        *("key_points", "n_keys"),
    ],
)
def test_names_of_other_things(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://user:pass@host/v1", "http://***@host/v1"),
        ("https://tok3n@host/v1", "https://***@host/v1"),
        ("http://host/v1?key=abc&n=1", "http://host/v1?key=***&n=1"),
        ("http://host/?X-Amz-Signature=abc", "http://host/?X-Amz-Signature=***"),
        ("https://host/?sv=1&sig=a%3D", "https://host/?sv=1&sig=***"),
        ("https://user:ab@c9@host/v1", "https://***@host/v1"),
        ("no folder https:/user:pw@host/x", "no folder https:/***@host/x"),
        ("https://h/?clientSecret=abc&n=1", "https://h/?clientSecret=***&n=1"),
        ("https://h/?a=1&api%5Fkey=abc", "https://h/?a=1&api%5Fkey=***"),
        ("https://h/?accesskey=abc", "https://h/?accesskey=***"),
        ("https://h/?jwt=abc", "https://h/?jwt=***"),
        ("AccountName=x;AccountKey=abcdefgh1;", "AccountName=x;AccountKey=***"),
        ("client_secret=abcdefgh1", "client_secret=***"),
        ("AWS_SECRET_ACCESS_KEY=abcdefgh1", "AWS_SECRET_ACCESS_KEY=***"),
        ("SECRET_KEY=abcdefgh1 PGPASSWORD=abcdefgh1", "SECRET_KEY=*** PGPASSWORD=***"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nabc", "***"),
        ("C:/me@work https://h/?page=1", "C:/me@work https://h/?page=1"),
        ("Authorization: Bearer abc.def-ghi", "Authorization: Bearer ***"),
        ("key sk-proj-EXAMPLE123456 is wrong", "key *** is wrong"),
        ("token hf_abcdefghijklmnopqrst", "token ***"),
        ("mail me@example.org, 3 keys, hf_transfer, a=b", "mail me@example.org, 3 keys, hf_transfer, a=b"),
        ("risk-taking-adventures and sk-8", "risk-taking-adventures and sk-8"),
    ],
)
def test_secrets_are_known_by_their_form(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize("secret", ["pässword/with?odd&things", "plainsecret", "trailing-newline\n", 'with"quote'])
def test_a_value_is_hidden_in_every_form_in_which_it_is_met(secret: str) -> None:
    import json
    from urllib.parse import quote, quote_plus

    protect(secret)
    for text in (secret, repr(secret), json.dumps(secret), quote(secret, safe=""), quote_plus(secret), secret.strip()):
        assert secret.strip() not in redact(f"<{text}>")
        assert "***" in redact(f"<{text}>")


def test_settings_are_stored_without_their_secrets_and_with_all_else() -> None:
    settings = {
        "options": {"token": "plain-secret-1", "top_p": 0.5, "headers": {"X-Api-Key": "plain-secret-2"}},
        "roots": ["http://u:plain-secret-3@h/", "/data"],
        "max_tokens": 5,
        "password": "",
    }
    protect_settings(settings)
    assert hide_secrets(settings) == {
        "options": {"token": "***", "top_p": 0.5, "headers": {"X-Api-Key": "***"}},
        "roots": ["http://***@h/", "/data"],
        "max_tokens": 5,
        "password": "",
    }
    assert redact("plain-secret-1 plain-secret-2 plain-secret-3") == "*** *** ***"


def test_an_error_leaves_without_its_secret_and_without_what_led_to_it() -> None:
    protect("planted-secret")
    try:
        try:
            raise ValueError("planted-secret in the cause")
        except ValueError as cause:
            raise RunError("outer planted-secret") from cause
    except RunError as error:
        safe = redact_error(error)
    assert isinstance(safe, RunError)
    assert str(safe) == "outer ***"
    assert safe.__cause__ is None


class _Odd(Exception):
    def __str__(self) -> str:
        return "always planted-secret"


def test_an_error_that_makes_its_own_message_is_replaced() -> None:
    protect("planted-secret")

    @redact_errors
    def fails() -> None:
        raise _Odd

    with pytest.raises(RuntimeError, match=r"_Odd: always \*\*\*"):
        fails()
    harmless = KeyError("x")
    assert redact_error(harmless) is harmless


def test_log_records_are_redacted_whoever_handles_them(caplog: pytest.LogCaptureFixture) -> None:
    protect("planted-secret")
    before = logging.getLogRecordFactory()
    try:
        guard_logs()
        guard_logs()
        log = logging.getLogger("some.library")
        log.warning("GET %s", "http://h/?x=planted-secret")
        try:
            raise ValueError("planted-secret")
        except ValueError:
            log.exception("failed")
        log.warning("%d of %d", 1, 2)
    finally:
        logging.setLogRecordFactory(before)
    assert "planted-secret" not in caplog.text
    assert "ValueError: ***" in caplog.text
    assert "1 of 2" in caplog.text


def test_a_traceback_at_the_end_of_a_process_shows_none() -> None:
    code = (
        "import threading\n"
        "from talking_points.redaction import guard_process\n"
        "guard_process()\n"
        "def fail(): raise ValueError('in a thread: planted-secret')\n"
        "thread = threading.Thread(target=fail); thread.start(); thread.join()\n"
        "raise ValueError('at the end: planted-secret')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"MY_TOKEN": "planted-secret"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    # The source lines of the code itself are not shown for -c; the messages are.
    assert "in a thread: ***" in done.stderr
    assert "at the end: ***" in done.stderr
    assert "planted-secret" not in done.stderr


def test_an_override_with_a_secret_is_recorded_as_a_mark() -> None:
    override = "local_caption.options.token=planted-secret"
    mark = seal(override)
    assert "planted" not in mark
    assert unseal(mark) == override
    assert seal("output=/tmp/x") == unseal("output=/tmp/x") == "output=/tmp/x"
    assert "pw" not in seal("local_caption.endpoint=http://user:pw@host/v1")


BASE = ["local_caption.backend=openai", "local_caption.model=m", "local_caption.endpoint=http://h/v1", "output=x"]


@pytest.mark.parametrize(
    "key", ["sk-proj-EXAMPLE123456", "hf_abcdefghij0123456789", "a1b2c3d4e5f6a1b2c3d4e5f6", "my key"]
)
def test_a_key_in_place_of_its_variables_name_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ConfigError, match="name of an environment variable") as caught:
        load_config(BuildConfig, None, [*BASE, f"local_caption.api_key_env={key}"])
    cause = caught.value.__cause__
    assert key not in f"{caught.value}{cause}"
    assert key not in redact(f"anywhere else: {key}") or " " in key


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "MY_KEY_2", "key", "MISTRAL_API_KEY_FOR_TEAM_2026"])
def test_names_of_variables_are_taken(name: str) -> None:
    config = load_config(BuildConfig, None, [*BASE, f"local_caption.api_key_env={name}"])
    assert config.local_caption.api_key_env == name


def test_a_dataset_does_not_depend_on_a_secret(tmp_path: Path) -> None:
    stored = [
        dataset_settings(load_config(BuildConfig, None, [*BASE, f"local_caption.options.token=secret-number-{n}"]))
        for n in range(2)
    ]
    assert stored[0] == stored[1]
    assert "secret-number" not in str(stored)


@pytest.mark.parametrize(
    "text",
    [
        "http://u:p/sshhh9@h/v1",
        "http://u:pa sshhh9@h/v1",
        "Authorization: Token sshhh9abcdef",
        "x-api-key: sshhh9abcdef",
        "api-key=sshhh9abcdef",
        "{'api_key': 'sshhh9abcdef'}",
        "token:sshhh9abcdef",
        "https://h/v1?code=sshhh9abcdef",
        "https://h/v1#key=sshhh9abcdef",
        "//u:sshhh9abcdef@h.example/v1",
        "from u:sshhh9abcdef@localhost/v1",
    ],
)
def test_what_nobody_told_is_known_by_its_form(text: str) -> None:
    assert "sshhh9" not in redact(text)
    assert redact(text).endswith(("/v1", "***", "***'}"))


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:8000/v1 answers; write to me@example.org",
        "token: expected a text, found a number",
        "expected a key=value setting",
        "the model org/name@main at http://localhost:8000",
        "image tokens: 256, and no password is needed",
        "python:3.11-slim@sha256:12ab, mailto:me@example.org, at 10:30:22 me@example.org",
    ],
)
def test_a_message_without_secrets_is_shown_as_it_is(text: str) -> None:
    assert redact(text) == text


def test_paths_in_the_environment_are_no_secrets(tmp_path: Path) -> None:
    code = (
        "from talking_points.redaction import protect_environment, redact, seal; import os; protect_environment()\n"
        "print(redact(os.getcwd() + '/out'), seal('output=' + os.getcwd()), redact('sesame-9876'), "
        "redact('hush-12345'))"
    )
    told = {"PWD": str(tmp_path), "OLDPWD": str(tmp_path.parent), "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path)}
    secrets = {"OPENAI_KEY": "sesame-9876", "GITHUB_PAT": "hush-12345"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | told | secrets | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [f"{tmp_path}/out", f"output={tmp_path}", "***", "***"]


FORM = "hf_" + "Zq8wErTy77abcdefgh" * 3


@pytest.mark.parametrize("make", [str, Text, lambda text: Text.assemble(("a ", "bold"), text)])
def test_a_key_that_a_table_breaks_in_two_is_not_shown(make: Callable[[str], Any]) -> None:
    protect("a secret of several words that nobody has a form for")
    table = Table(title=f"of {FORM}", caption=FORM)
    for column in (FORM, "b"):
        table.add_column(column, overflow="fold", max_width=12)
    table.add_row(make(f"key {FORM} here"), make("has a secret of several words that nobody has a form for"))
    nested = Table.grid()
    nested.add_row(Panel(make(FORM), title=FORM))
    table.add_row(nested, "")
    out = io.StringIO()
    console = RedactedConsole(file=out, width=30)
    console.print(table, make(FORM), Columns([make(FORM)]))
    with Progress(TextColumn("{task.description}"), console=console) as bars:
        bars.add_task(f"from {FORM}", total=None)
    shown = re.sub(r"[^\w]", "", out.getvalue())
    assert "Zq8wEr" not in shown
    assert "nobody" not in shown
    assert "here" in shown


def test_every_console_is_one_that_hides() -> None:
    root = Path(__file__).parents[1]
    for path in (path for floor in ("commands", "tasks", "flows") for path in (root / floor).rglob("*.py")):
        assert not re.search(r"(?<!Redacted)Console\(", path.read_text()), path


def test_logs_of_libraries_hold_nothing_that_a_terminal_obeys(caplog: pytest.LogCaptureFixture) -> None:
    """A library logs what stands in a file of others, such as the type of a model."""
    guard_logs()
    logging.getLogger("some.library").warning("\x1b[1munknown type\x1b[0m %s", "\x1b]0;title\x07\x1b[31mx\u202ey")
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("unknown type ")
    assert not set(message) & {"\x1b", "\x07", "\u202e"}
