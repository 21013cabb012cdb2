"""The Prefect server that a command starts for itself, or finds configured: its address, its password, its process."""

from __future__ import annotations

import os
import secrets
import socket
import stat
import subprocess
import sys
import threading
import time
import tomllib
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from commands.processes import end_at_once, keep_what_is_made, start, stop
from talking_points.config import ConfigError
from talking_points.network import answer_within, unreachable
from talking_points.owners import find_closed, owner_of
from talking_points.proxies import reach_this_machine_directly, refuse_unusable_proxies
from talking_points.regular_files import read_text
from talking_points.terminal import tell

PASSWORD = "PREFECT_API_AUTH_STRING"
"""The variable in which Prefect's clients, and the processes that they start, find the server's password."""

_SERVER_START, _SERVER_STOP = 180.0, 3.0
"""Seconds that the server gets to answer, and to end before it is killed."""
_UNUSED = (
    *("SCHEDULER", "LATE_RUNS", "PAUSE_EXPIRATIONS", "FOREMAN", "CANCELLATION_CLEANUP", "CLEANUP_RECONCILER"),
    *("REPOSSESSOR", "TRIGGERS", "EVENT_LOGGER", "EVENT_PERSISTER"),
)
_ONE_RUN = {
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
    "PREFECT_SERVER_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false",  # looking whether to register imports every collection
    **{f"PREFECT_SERVER_SERVICES_{name}_ENABLED": "false" for name in _UNUSED},
}
"""What a server is spared that serves one run of one command: nobody has its password to look at it, nothing is
scheduled, and of events it keeps what they say of task runs. A block that is saved brings its own type. The runs stay
in Prefect's database."""
_PATIENCE = 10.0
"""Seconds that a configured server, which takes connections, gets to answer, unless ``_PATIENCE_SET`` says more."""
_PATIENCE_SET = "PREFECT_API_REQUEST_TIMEOUT"
"""How long Prefect's clients wait for an answer: set by those whose server is slow."""
_SILENCE = 2.0
"""Seconds after which its user is told what is waited for."""
_LOCAL = ("127.0.0.1", "localhost")
_NO_API = "another page is there; the address of the API ends with /api"


def claim_port() -> int | None:
    """Before Prefect is imported: the port of a server of this command's own, or None when one is configured.

    All parts of Prefect, and worker processes, must find the address and the password in the environment;
    ``orchestrator`` starts the server there. Prefect would start a temporary one by itself, but a Ctrl-C in the
    terminal ends that one too, so that the run cannot report that it was stopped; it outlives a command that is
    killed; and it answers anybody on this machine.
    """
    if find_configured_server() is not None:
        return None
    port = free_port()
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    os.environ[PASSWORD] = new_password()
    refuse_unusable_proxies()
    reach_this_machine_directly()
    return port


def find_configured_server() -> str | None:
    """The URL of the server that the environment or the active profile names, or None; its password is found as well.

    Raises ``ConfigError`` where nothing answers there, or not to this password: Prefect would try for a minute.
    """
    url = active_settings().get("PREFECT_API_URL")
    if url is not None:
        _check_address(url)
        _find_password(url)
        _check_answer(url, _patience())
    return url


def _patience() -> float:
    """Seconds to wait for an answer. Raises ``ConfigError`` where the setting is no number above zero."""
    given = active_settings().get(_PATIENCE_SET, _PATIENCE)
    with suppress(ValueError):
        if 0 < (seconds := float(given)) < 1e6:
            return seconds
    raise ConfigError(f"{_PATIENCE_SET}: expected seconds above zero, such as 60, found {given!a}")


def active_settings() -> dict[str, str]:
    """Prefect's settings in the active profile and, before them, the environment; empty ones are none."""
    profiles_file = Path(os.environ.get("PREFECT_PROFILES_PATH", prefect_home() / "profiles.toml"))
    try:
        profiles = tomllib.loads(read_text(profiles_file)) if profiles_file.is_file() else {}
        active = os.environ.get("PREFECT_PROFILE", profiles.get("active"))
        chosen = profiles.get("profiles", {}).get(active, {}).items()
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"expected profiles of Prefect in {profiles_file}: {error}; mend it, or remove it") from error
    given = {name: value for name, value in os.environ.items() if name.startswith("PREFECT_") and value}
    return {name: str(value) for name, value in chosen if value} | given


def prefect_home() -> Path:
    """Where Prefect keeps its database."""
    return Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()


def new_password() -> str:
    """A password nobody can guess, in the form ``user:password`` that Prefect's UI asks for."""
    return f"admin:{secrets.token_urlsafe(24)}"


def password_file(port: int) -> Path:
    """Where ``talking-points server`` keeps the password of the server on this port while it runs."""
    return prefect_home() / f"talking-points-server-{port}.password"


_stopped: list[int] = []
"""Ports of this process's own servers that are gone, which Prefect's clients do not know."""


def own_server_is_gone() -> bool:
    """Whether this process has had a server of its own: there is nobody left whom its clients could tell anything."""
    return bool(_stopped)


@contextmanager
def orchestrator(port: int | None, meanwhile: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Around a flow run: the server that was claimed, for as long as the block lasts, or the configured one.

    ``meanwhile`` is done while the server starts, which takes seconds: importing what the block needs.
    """
    if port is None:
        with end_at_once(), keep_what_is_made():
            meanwhile()
        yield
        return
    tell("starting the orchestrator")
    try:
        with running_server(port, meanwhile, _ONE_RUN):
            yield
    finally:
        _stopped.append(port)


@contextmanager
def running_server(
    port: int | None = None,
    meanwhile: Callable[[], object] = lambda: None,
    further: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """A Prefect server of this process on 127.0.0.1; gives the URL of its API. It does not outlive the process.

    It answers to whoever has the password in this process's environment (one is made where there is none), and lets
    no page but its own UI read its answers. ``further`` settings give way to those of the environment.
    """
    port = port or free_port()
    check_port("127.0.0.1", port)
    url = f"http://127.0.0.1:{port}/api"
    environment = {**(further or {}), **os.environ} | {
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_API_AUTH_STRING": os.environ.setdefault(PASSWORD, new_password()),
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(f"http://{name}:{port}" for name in _LOCAL),
        "PREFECT_SERVER_ANALYTICS_ENABLED": os.environ.get("PREFECT_SERVER_ANALYTICS_ENABLED", "false"),
        "PREFECT_SERVER_LOGGING_LEVEL": os.environ.get("PREFECT_SERVER_LOGGING_LEVEL", "ERROR"),
        "DO_NOT_TRACK": os.environ.get("DO_NOT_TRACK", "1"),
    }
    reach_this_machine_directly()
    home = prefect_home()
    keep_private(home)
    command = [sys.executable, "-P", "-m", "commands.prefect_server", "--port", str(port)]
    # In Prefect's own folder: where the command was called, files could change the server's settings.
    server = start(command, environment, folder=home, stdout=subprocess.DEVNULL)
    try:
        with end_at_once(server), keep_what_is_made():
            meanwhile()
        _wait_until_healthy(server, url)
        yield url
    finally:
        stop(server, _SERVER_STOP)


def keep_private(home: Path) -> None:
    """Make Prefect's folder, or what is there of ours, readable by this user alone: its database holds secrets.

    The key that its Secret blocks are encrypted with lies in the same file. A folder of somebody else is left alone.
    """
    if closed := find_closed(home):
        raise ConfigError(
            f"expected a folder of this user's own for Prefect's database at {home}, found that {closed} is closed to "
            f"this user and belongs to {owner_of(closed)}: set PREFECT_HOME to another folder"
        )
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    if os.name != "posix":
        return
    for path in (home.resolve(), *home.glob("prefect.db*")):
        with suppress(OSError):
            found = path.lstat()
            if found.st_mode & 0o077 and found.st_uid == os.geteuid() and not path.is_symlink():
                path.chmod(stat.S_IMODE(found.st_mode) & ~0o077)


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def check_port(host: str, port: int) -> None:
    """Raise ``ConfigError`` where nothing can listen."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"expected a free port, found that {port} of {host} cannot be listened on ({error}): stop what listens "
            "there, or choose another with --port"
        ) from error


def _find_password(url: str) -> None:
    """Take the password of a server that this user has started here with ``talking-points server``."""
    address = urlsplit(url)
    if PASSWORD not in os.environ and address.hostname in _LOCAL and address.port:
        with suppress(FileNotFoundError):
            os.environ[PASSWORD] = read_text(password_file(address.port)).strip()
        reach_this_machine_directly()


def _check_address(url: str) -> None:
    try:
        address = urlsplit(url)
        usable = address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(f"PREFECT_API_URL: expected an address such as http://127.0.0.1:4200/api, found {url!a}")


def _check_answer(url: str, patience: float) -> None:
    if os.environ.get("PREFECT_API_KEY"):
        return  # a server in the cloud, with rules of its own
    reason = unreachable(url)
    request = urllib.request.Request(f"{url.rstrip('/')}/admin/version")
    if PASSWORD in os.environ:
        request.add_header("Authorization", f"Basic {b64encode(os.environ[PASSWORD].encode()).decode()}")
    try:
        if reason is None:
            with _told_to_wait(url, patience):
                # Headers that come byte by byte keep within a time limit for each of them.
                answer = answer_within(2 * patience, lambda: urllib.request.urlopen(request, timeout=patience))
            answer.close()  # what follows the headers is not read
            reason = None if answer.headers.get_content_type().endswith("json") else _NO_API
    except urllib.error.HTTPError as error:
        if error.code == 401:
            raise ConfigError(
                f"the Prefect server at {url} asks for a password: set {PASSWORD} to what was printed when it started"
            ) from error
        reason = _NO_API if error.code == 404 else None
    except TimeoutError:
        reason = f"no answer within {patience:g} s; {_PATIENCE_SET}=60 waits longer for a slow one"
    except (OSError, HTTPException) as error:
        reason = str(error)
    if reason:
        raise ConfigError(
            f"expected a Prefect server at {url} (PREFECT_API_URL), found none that answers ({reason}): start it, e.g. "
            "with 'talking-points server', or unset the variable or the profile that names it"
        )


@contextmanager
def _told_to_wait(url: str, patience: float) -> Iterator[None]:
    """A busy server answers late, another program on its port never: whoever waits learns for what."""
    waiting = threading.Timer(
        _SILENCE, tell, [f"waiting for the Prefect server at {url}, which takes connections: at most {patience:g} s"]
    )
    waiting.daemon = True
    waiting.start()
    try:
        yield
    finally:
        waiting.cancel()


def _wait_until_healthy(server: subprocess.Popen[bytes], url: str) -> None:
    ask = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
    deadline = time.monotonic() + _SERVER_START
    while time.monotonic() < deadline and server.poll() is None:
        with suppress(OSError), ask(f"{url}/health", timeout=5):
            return
        time.sleep(0.2)
    raise ConfigError(
        f"the Prefect server did not answer at {url} (exit code {server.poll()}): see its messages above, which a "
        "build shows with --verbose only"
    )
