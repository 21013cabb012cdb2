"""Prefect's API answers to whoever has the password, under its own name, and to no other website's page."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from prefect.settings import Settings

from commands import orchestrator
from commands.orchestrator import PASSWORD, claim_port, keep_private, password_file, prefect_home, running_server
from commands.server import keep_password
from talking_points.config import ConfigError
from tests.fault_server import MODEL, FaultServer, serving
from tests.flows.building import CONFIG, overrides
from tests.patience import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

EVIL = "http://evil.example"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The URL of a server's API, and its password. What lies where the command is called changes nothing."""
    folder = tmp_path_factory.mktemp("state")
    (folder / "prefect.toml").write_text("[server.api]\nauth_string = 'admin:known'\ncors_allowed_origins = '*'\n")
    (folder / "prefect.py").write_text("raise SystemExit('code of the working folder was run')\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(folder / "prefect"))
        patch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        patch.setenv("http_proxy", "http://127.0.0.1:9")
        patch.setenv(PASSWORD, orchestrator.new_password())
        patch.delenv("PREFECT_API_URL", raising=False)
        for name in ("NO_PROXY", "no_proxy"):
            patch.setenv(name, "")
        patch.chdir(folder)
        with running_server() as url:
            yield url, os.environ[PASSWORD]


def test_a_server_of_one_run_is_spared_what_nobody_looks_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect passes over a variable that it does not know."""
    for name, value in orchestrator._ONE_RUN.items():
        monkeypatch.setenv(name, value)
    server = Settings().server
    switched = [server.ui.enabled, server.register_blocks_on_start, server.memoize_block_auto_registration]
    assert switched == [False] * 3
    services = server.services
    for name in orchestrator._UNUSED:
        assert not getattr(services, name.lower()).enabled, name
    assert services.task_run_recorder.enabled


def test_only_the_password_opens_it(server: tuple[str, str]) -> None:
    url, password = server
    user, _, secret = password.partition(":")
    assert len(secret) >= 32
    asked = [("POST", "block_documents/filter"), ("POST", "flow_runs/filter"), ("POST", "deployments/filter")]
    for method, path in asked:
        with httpx.Client(trust_env=False) as client:
            assert client.request(method, f"{url}/{path}", json={}).status_code == 401
            assert client.request(method, f"{url}/{path}", json={}, auth=(user, "known")).status_code == 401
            assert client.request(method, f"{url}/{path}", json={}, auth=("admin", secret)).status_code == 200


def test_no_other_page_may_read_it(server: tuple[str, str]) -> None:
    url, password = server
    with httpx.Client(trust_env=False, auth=("admin", password.partition(":")[2])) as client:
        for method in ("GET", "OPTIONS"):
            headers = {"Origin": EVIL, "Access-Control-Request-Method": "POST"}
            answer = client.request(method, f"{url}/admin/version", headers=headers)
            assert "access-control-allow-origin" not in answer.headers
        own = url.removesuffix("/api")
        answer = client.get(f"{url}/admin/version", headers={"Origin": own})
        assert answer.headers["access-control-allow-origin"] == own


def test_runs_that_are_made_at_once_wait_for_each_other(server: tuple[str, str]) -> None:
    """Of thirty that a database in a file was asked for, it had answered 27 with "database is locked"."""
    url, password = server

    def ask(address: str, **content: object) -> httpx.Response:
        auth = ("admin", password.partition(":")[2])
        return httpx.post(f"{url}/{address}", json=content, auth=auth, timeout=90, trust_env=False)

    flow = ask("flows/", name="made at once").json()["id"]
    ask("work_pools/", name="pool", type="process")
    deployed = ask("deployments/", name="d", flow_id=flow, work_pool_name="pool", entrypoint="x.py:y", path="/x").json()
    with ThreadPoolExecutor(10) as pool:
        answers = pool.map(lambda _: ask(f"deployments/{deployed['id']}/create_flow_run", parameters={}), range(20))
        assert {answer.status_code for answer in answers} == {201}


@pytest.mark.parametrize("host", ["evil.example", "evil.example:4200", "127.0.0.1.evil.example", ""])
@pytest.mark.parametrize("path", ["/api/health", "/api/admin/version", "/", "/ui-settings"])
def test_it_answers_to_its_own_names_only(server: tuple[str, str], host: str, path: str) -> None:
    url, password = server
    with httpx.Client(trust_env=False, auth=("admin", password.partition(":")[2])) as client:
        address = url.removesuffix("/api") + path
        assert client.get(address, headers={"Host": host}).status_code == 400
        port = url.removesuffix("/api").rsplit(":", 1)[1]
        assert client.get(address, headers={"Host": f"localhost:{port}"}).status_code == 200


def test_the_kept_password_is_for_this_user_alone_and_goes_with_the_server(
    server: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, password = server
    port = int(url.removesuffix("/api").rsplit(":", 1)[1])
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.setenv("PREFECT_API_URL", url)
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv(PASSWORD, password)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    password_file(port).symlink_to(elsewhere)
    with keep_password(port) as path:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert elsewhere.read_text() == "mine"
        monkeypatch.delenv(PASSWORD)
        assert claim_port() is None
        assert os.environ[PASSWORD] == password, "commands of this user find it"
        monkeypatch.delenv(PASSWORD)
        monkeypatch.setenv("PREFECT_API_URL", f"http://prefect.example:{port}/api")
        with pytest.raises(ConfigError, match="found none that answers"):
            claim_port()
        assert PASSWORD not in os.environ, "it is sent to nobody else"
    assert not path.exists()
    monkeypatch.setenv("PREFECT_API_URL", url)
    with pytest.raises(ConfigError, match="asks for a password"):
        claim_port()


def test_what_the_server_keeps_is_for_this_user_alone(
    server: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    databases = list(prefect_home().glob("prefect.db*"))
    assert databases
    for path in (prefect_home(), *databases):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
    loose = tmp_path / "loose"
    loose.mkdir(mode=0o755)
    (loose / "prefect.db").touch(mode=0o644)
    (loose / "prefect.db-wal").symlink_to(tmp_path)
    before = tmp_path.stat().st_mode
    keep_private(loose)
    assert stat.S_IMODE(loose.stat().st_mode) == 0o700
    assert stat.S_IMODE((loose / "prefect.db").stat().st_mode) == 0o600
    assert tmp_path.stat().st_mode == before


def test_a_build_has_a_closed_server_and_tells_its_password_to_nobody(drawn: dict[str, Path], tmp_path: Path) -> None:
    with serving(FaultServer(delay=600)) as model:
        step = f"local_caption={{backend: openai, model: {MODEL}, endpoint: '{model.url}', timeout: 900}}"
        command = [str(Path(sys.executable).with_name("talking-points")), "build", "--config", CONFIG]
        command += [word for setting in overrides(tmp_path / "out", drawn, "limit=3", step) for word in ("-s", setting)]
        # The server of the other tests has a folder and a proxy of its own, from which a build would refuse to start.
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("PREFECT_API") and name.lower() != "http_proxy"
        }
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=environment | {"PREFECT_HOME": str(tmp_path / "prefect")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_for(lambda: server_port(process.pid) is not None, 240, "the build's own server")
            port = server_port(process.pid)
            ask = f"http://127.0.0.1:{port}/api"
            wait_for(lambda: answers(f"{ask}/health"), 240, "it answers")
            assert httpx.post(f"{ask}/flow_runs/filter", json={}, trust_env=False).status_code == 401
            variables = Path(f"/proc/{process.pid}/environ").read_bytes()
            assert PASSWORD.encode() not in variables, "made by the command, not given to it"
            children = children_of(process.pid)
            values = [entry for pid in children for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")]
            (secret,) = {entry.split(b":", 1)[1] for entry in values if entry.startswith(PASSWORD.encode())}
            for pid in (process.pid, *children):
                assert secret not in Path(f"/proc/{pid}/cmdline").read_bytes()
        finally:
            process.terminate()
            output, _ = process.communicate(timeout=60)
        assert secret not in output
        for path in (path for path in tmp_path.rglob("*") if path.is_file()):
            assert secret not in path.read_bytes(), path


def children_of(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def server_port(parent: int) -> int | None:
    """The port that the server among a command's children was told to listen on."""
    for pid in children_of(parent):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        if "--port" in words:
            return int(words[words.index("--port") + 1])
    return None


def answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.HTTPError:
        time.sleep(0.2)
        return False
