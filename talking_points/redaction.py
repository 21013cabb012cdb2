"""Secrets stay out of everything that is printed, logged, stored or raised.

Two ways find them. The actual values in use are known: ``protect`` is told of every key, and ``protect_settings`` and
``protect_environment`` find them by the names they go by. What nobody told is known by its form: the user and password
of a URL, a query parameter or header that carries a key, the prefixes of well-known services.

``redact`` is applied at the edges: the command line's messages and tracebacks, log records, the errors that leave a
task or flow. ``hide_secrets`` gives the settings that may be stored.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, ParamSpec, TypeVar
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

from talking_points.escaping import for_terminal

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
"""Bold and colours, with which libraries mark their own messages."""

HIDDEN = "***"

_LEAST = 6
"""Characters below which a value is not looked for: replacing every "abc" would make any message unreadable."""

_SECRET_NAME = re.compile(
    r".*(?:password|passwd|passphrase)$|(?:^|.*[-_.])(?:token|secret|credentials?|authorization|auth|signature|sig)$"
    r"|(?:^|.*[-_.])(?:api|access|auth|account|secret|private|session|bearer|subscription|shared|sas|hf|x|license|encryption|signing|master)[-_]?"
    r"(?:key|token|secret)(?:[-_]?id)?$"
    r"|.*_auth_string$|^(?:key|pwd|pass|pat|jwt|sas|bearer|passcode)$|.*[-_.](?:pass|pwd|pat|jwt|sas)$|^apikey$|^connection[-_]?string$|^proxy[-_]authorization$|^cookie$",
    re.IGNORECASE,
)
_PUBLIC_NAME = re.compile(r"^(?:bos|eos|pad|unk|cls|sep|mask|image|video|audio|stop|start|end|boi|eoi)[-_]token$")
"""Tokens of tokenizers, which are words and no secrets."""

_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
"""Where a word begins in ``clientSecret``."""

_WORKING_FOLDERS = {"PWD", "OLDPWD"}
_VARIABLE_NAME = re.compile(r".*_(?:KEY|PAT)$", re.IGNORECASE)
"""Further names of secrets among environment variables: ``OPENAI_KEY``. Settings such as ``cache_key`` are none."""

_FORMS = re.compile(
    # A password may hold slashes and spaces, where what follows the colon is no port.
    # pathlib makes one slash of two.
    r"(?P<before>(?<=[a-z0-9+.-]{2}):/{1,2})(?:[^/\s'\"<>]+|[^/\s@'\"<>:]+:(?!\d{1,5}(?:[/\s]|$))[^@'\"<>\n]{1,200})(?=@)"
    # Without its scheme, or without the slashes too: what follows is the name of a machine, and no digest of an image.
    r"|(?P<bare>(?<![\w:/.+-])(?!mailto:)(?://)?[\w.+-]{1,80}:)(?!//)[^\s/@'\"<>:]{4,200}(?=@(?:localhost|[\w-]+(?:\.[\w-]+)+|\[)(?![\w.]*\())"
    r"|(?P<query>[?&;#](?:[\w.-]*[-_.])?(?:api[-_]?key|apikey|key|token|sig|signature|secret|password|passwd|pwd|auth"
    r"|code|credential)=)[^&\s'\"<>#]+"
    r"|(?P<header>\b(?:bearer|basic|authorization['\"]?\s*[:=]\s*['\"]?[a-z]+)\s+)[A-Za-z0-9._~+/=-]{8,}"
    # A value without a digit may be a word of the message: "token: expected a text".
    r"|(?P<pair>\b(?:x-)?(?:[a-z]+[-_]){0,4}(?:(?:api|access|account|secret|private|shared)[-_]?key|token"
    r"|(?:[a-z]{1,30})?(?:secret|password|passwd|passphrase))['\"]?\s*[:=]\s*['\"]?)"
    r"(?=[^\s'\",;}&]*\d)[^\s'\",;}&]{8,}"
    r"|-----BEGIN[A-Z ]{0,40}PRIVATE KEY-----[^-]{0,20000}"
    r"|\b(?:hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{12,}|gsk_\w{16,}|xai-\w{16,}|gh[pousr]_\w{16,}|github_pat_\w{16,}"
    r"|glpat-[\w-]{12,}|A[KS]IA[A-Z0-9]{16}|AIza[\w-]{30,}|xox[a-z]-[\w-]{10,}|nvapi-[\w-]{16,}|pnu_\w{16,})",
    re.IGNORECASE,
)

_QUERY = re.compile(r"(?P<before>[?&;#](?P<name>[\w.%+-]{1,80})=)[^&\s'\"<>#]+")
# A scheme is bounded, as one word of 100,000 letters would be looked through from each of them to its end.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{1,80}:/{1,2}[^\s'\"<>{}]+")

_lock = threading.Lock()
_values: set[str] = set()
_known: re.Pattern[str] | None = None
_sealed: dict[str, str] = {}

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def protect(*values: str | None) -> None:
    """Never show these values, in the forms in which they are met: as they are, escaped, and encoded for URLs."""
    global _known
    with _lock:
        before = len(_values)
        for value in values:
            for form in (value or "", (value or "").strip()):
                if len(form) >= _LEAST:
                    _values.update(
                        {form, quote(form, safe=""), quote_plus(form), json.dumps(form)[1:-1], repr(form)[1:-1]}
                    )
        if len(_values) != before:
            # The longest first: a secret may begin with another one.
            _known = re.compile("|".join(map(re.escape, sorted(_values, key=len, reverse=True))))


def protect_environment(environment: Mapping[str, str] = os.environ) -> None:
    """Protect the values of variables that are named as keys, tokens and passwords are, and those in URLs.

    A variable that says where something lies is none, whatever it is called: paths are no secrets, and settings and
    results speak of them.
    """
    for name, value in environment.items():
        if name not in _WORKING_FOLDERS and not value.startswith(("/", "~", "./", "../")):
            protect_settings(value, name)
            if _VARIABLE_NAME.match(name):
                protect(value)


def protect_settings(settings: Any, name: str = "") -> None:
    """Protect every secret in settings of any depth: by the name it stands under, or as a part of a URL."""
    if isinstance(settings, Mapping):
        for key, value in settings.items():
            protect_settings(value, str(key))
    elif isinstance(settings, list | tuple):
        for value in settings:
            protect_settings(value, name)
    elif isinstance(settings, str):
        if is_secret_name(name) or (name.endswith("api_key_env") and not is_variable_name(settings)):
            protect(settings)
        protect(*_url_secrets(settings))


def protect_arguments(arguments: Iterable[str]) -> None:
    """Protect the secrets of every URL in the words of a command line, whatever becomes of the URL later."""
    for argument in arguments:
        for found in _URL.findall(argument):
            protect(*_url_secrets(re.sub(r":/{1,2}", "://", found, count=1)))


def is_secret_name(name: str) -> bool:
    """Whether what goes by this name is a secret: ``token``, ``api_key``, ``HF_TOKEN``; not ``max_tokens``."""
    name = _HUMP.sub("_", unquote(name))
    return bool(_SECRET_NAME.match(name)) and not _PUBLIC_NAME.match(name.lower())


def is_variable_name(text: str) -> bool:
    """Whether this can be the name of an environment variable, and does not look like a key put in its place."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        return False
    looks_random = len(text) >= 20 and re.search(r"\d", text) and re.search(r"[a-z]", text)
    return not looks_random and not _FORMS.search(text)


def redact(text: str) -> str:
    """The text with every secret replaced by ``***``."""
    if _known is not None:
        text = _known.sub(HIDDEN, text)
    text = _QUERY.sub(lambda found: found["before"] + HIDDEN if is_secret_name(found["name"]) else found[0], text)
    return _FORMS.sub(lambda found: next((group for group in found.groups() if group), "") + HIDDEN, text)


def shown(text: str) -> str:
    """The text for a terminal or a log: without secrets, and without what a terminal obeys."""
    return for_terminal(redact(text))


def hide_secrets(value: Any, name: str = "") -> Any:
    """A copy of settings that may be stored: secrets are ``***``, everything else is as it was."""
    if isinstance(value, Mapping):
        return {key: hide_secrets(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [hide_secrets(item, name) for item in value]
    if isinstance(value, str):
        return HIDDEN if value and is_secret_name(name) else redact(value)
    return value


def seal(text: str) -> str:
    """A ``key=value`` setting whose value may be recorded by others: a secret one is replaced by a mark.

    ``unseal`` gives the setting back, in this process only.
    """
    key, separator, value = text.partition("=")
    if not separator or (not is_secret_name(key.rpartition(".")[2]) and redact(value) == value):
        return text
    mark = f"{key}=({HIDDEN} {len(_sealed) + 1})"
    _sealed[mark] = text
    return mark


def unseal(text: str) -> str:
    """The setting that ``seal`` put aside; any other text is its own."""
    return _sealed.get(text, text)


def redact_error(error: BaseException) -> BaseException:
    """The error, or one of its kind whose message, notes and chain hold no secret."""
    written = "".join(traceback.format_exception(error)) + repr(error)
    if redact(written) == written:
        return error
    # What led to it would be printed too, and its frames hold requests.
    error.__cause__ = error.__context__ = None
    error.__suppress_context__ = True
    error.__notes__ = [redact(note) for note in getattr(error, "__notes__", [])]
    error.args = tuple(redact(item) if isinstance(item, str) else item for item in error.args)
    shown = f"{error}{error!r}{vars(error)}"
    if redact(shown) == shown:
        return error
    return RuntimeError(f"{type(error).__name__}: {redact(str(error))}").with_traceback(error.__traceback__)


def redact_errors(call: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Decorator for what an orchestrator runs: the errors that leave it are kept in states, logs and records."""

    @functools.wraps(call)
    def guarded(*arguments: Arguments.args, **keywords: Arguments.kwargs) -> Result:
        guard_logs()
        try:
            return call(*arguments, **keywords)
        except Exception as error:
            safe = redact_error(error)
            if safe is error:
                raise
            raise safe from None

    return guarded


def guard_process() -> None:
    """Redact what this process logs and warns of, and the tracebacks that it ends with; protect its environment's
    secrets."""
    guard_logs()
    warnings.formatwarning = _format_redacted
    sys.excepthook = _print_redacted
    threading.excepthook = lambda given: _print_redacted(given.exc_type, given.exc_value, given.exc_traceback)


def guard_logs() -> None:
    """Redact every log record of this process when it is made, whoever handles it; may be called again.

    Libraries log what stands in files of others: what a terminal obeys goes out too.
    """
    protect_environment()
    make = logging.getLogRecordFactory()
    if getattr(make, "redacts", False):
        return

    def make_redacted(*arguments: Any, **keywords: Any) -> logging.LogRecord:
        record = make(*arguments, **keywords)
        try:
            message = record.getMessage()
        except (TypeError, ValueError):
            return record  # the handler reports a message that does not fit its arguments
        clean = shown(_COLOURS.sub("", message))
        if clean != message:
            record.msg, record.args = clean, ()
        if record.exc_info and record.exc_info[0]:
            written = "".join(traceback.format_exception(*record.exc_info)).rstrip()
            if (clean := shown(written)) != written:
                record.exc_info, record.exc_text = None, clean
        return record

    make_redacted.redacts = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(make_redacted)


def _format_redacted(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return shown(f"{filename}:{lineno}: {category.__name__}: {message}\n")


def _print_redacted(kind: type[BaseException], error: BaseException | None, where: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt | SystemExit):
        sys.__excepthook__(kind, error or kind(), where)
        return
    print(shown("".join(traceback.format_exception(kind, error, where))), end="", file=sys.stderr)


def _url_secrets(text: str) -> list[str]:
    """Passwords, users that stand for tokens, and keys of a query in a URL."""
    if "://" not in text:
        return []
    try:
        parts = urlsplit(text)
        user, password = parts.username, parts.password
    except ValueError:
        return []
    found = [password] if password else [user] if user else []
    found += [value for name, value in parse_qsl(parts.query) if is_secret_name(name)]
    return [form for value in found if value for form in (value, unquote(value))]
