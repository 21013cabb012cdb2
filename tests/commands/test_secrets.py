"""Every command fails with secrets planted wherever one may stand, and a Hub and an orchestrator that repeat them.

Builds that fail in the middle are in ``tests/flows/test_secrets.py``. A new command fails here until it has a line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from commands import cli
from commands.console import app
from tests.flows.test_secrets import content
from tests.publishing.small_dataset import write_dataset

KEY, PASSWORD, QUERY, OPTION, HUB, STRING, PROXY = SECRETS = [
    f"planted{name}Secret9" for name in ("Key", "Password", "Query", "Option", "Hub", "String", "Proxy")
]
URL = f"https://user:{PASSWORD}@host/x?key={QUERY}"
STEP = json.dumps({"backend": "openai", "model": "m", "endpoint": URL, "options": {"token": OPTION}})
FAILURES: dict[str, list[list[str]]] = {
    "doctor": [[]],
    "init": [["{t}/taken"]],
    "draw-sample": [["{t}/file", "--images", "1"]],
    "build": [
        ["-s", f"local_caption={STEP}", "-s", "output={t}/out"],
        ["-s", f"local_caption={STEP}", "-s", "seed=x", "-s", f"local_caption.api_key_env={KEY}"],
        ["-s", f"output=s3://user:{PASSWORD}@bucket/x?key={QUERY}"],
        ["-s", f"sources.partimagenet.root={URL}", "-s", "output={t}/out"],
        ["--config", URL],
    ],
    "build-instructions": [["-s", f"sources.partimagenet.root={URL}", "-s", "output={t}/i"], ["--config", URL]],
    "stop": [[URL], [f"nothing://user:{PASSWORD}@bucket/x?key={QUERY}"]],
    "status": [[URL], [f"nothing://user:{PASSWORD}@bucket/x?key={QUERY}"]],
    "view": [["org/name"], [URL]],
    "report": [[URL]],
    "compare": [[URL, URL]],
    "publish": [["{t}/dataset", "org/name"], ["{t}/dataset", URL], [URL, "org/name"]],
    "rehydrate": [["org/name", "--output", "{t}/restored"], [URL, "--output", "{t}/restored"]],
    "audit": [[URL, "--report"]],
    "convert-omg-llava": [[URL, "--output", "{t}/converted"]],
    "convert-capellm": [[URL, URL, "--output", "{t}/converted"]],
    "train-localizer": [["-s", "dataset=org/name"], ["-s", f"dataset={URL}"], ["-s", f"start={URL}"]],
    "train-descriptor": [["-s", "dataset=org/name"], ["-s", f"token={OPTION}"]],
    "adapt-descriptor": [["-s", f"keypoints.root={URL}"], ["-s", "descriptor_path=org/name"]],
    "describe-keypoints": [
        ["-s", "output={t}/k", "-s", "author=model", "-s", f"text={STEP}", "-s", "sets=[four_legs]"],
        ["-s", f"poses.own={URL}"],
    ],
    "train-answerer": [["-s", f"poses.root={URL}"], ["-s", f"nothing={URL}"]],
    "write-pose-rows": [["-s", f"keypoints.root={URL}"], ["-s", f"nothing={URL}"]],
    "evaluate-poses": [["-s", f"answerer={URL}"], ["--config", URL]],
    "outline-points": [[URL, "--segmenter", URL], ["org/name", "--segmenter", "org/name"]],
    "train-segmenter": [["-s", f"instructions.root={URL}"], ["-s", f"start={URL}"]],
    "refine-segmenter": [["-s", f"segmenter_path={URL}"], ["-s", f"nothing={URL}"]],
    "evaluate-segmentation": [["-s", f"instructions={URL}"], ["-s", f"model={URL}"]],
    "evaluate": [["-s", "localizer=org/name", "-s", "output={t}/e"], ["-s", f"localizer={URL}"]],
    "tables": [["{t}/tables", URL], ["{t}/tables", f"human={URL}"]],
    "retrain-and-evaluate": [["-s", "folder={t}/c", "-s", f"train.dataset={URL}"]],
    "restore-champion": [["-s", f"folder={URL}"]],
    "describe": [["{t}/image.png", "1", "1", "--model", name] for name in ("org/name", URL)],
    "localize": [["{t}/image.png", "nose", "--model", name] for name in ("org/name", URL)],
    "answer": [["{t}/image.png", "nose", "--model", name] for name in ("org/name", URL)],
    "segment": [["{t}/image.png", "nose", "--model", name] for name in ("org/name", URL)],
    "publish-model": [["{t}/dataset", "org/name"], [URL, URL]],
    "plan": [["--config", URL], ["-s", f"release={URL}"]],
    "reproduce": [["--config", URL], ["-s", f"release={URL}", "-s", "output={t}/r"]],
    "rehearse": [["{t}/taken", "--hub", URL]],
    "server": [["--home", URL]],
    "deploy": [[]],
    "notify": [["hook"]],
}


class _Echo(BaseHTTPRequestHandler):
    """Refuses everything, and repeats what it was given wherever an answer can hold text."""

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        told = f"{self.headers.get('Authorization')} {self.path} {self.headers.get('Proxy-Authorization')}"
        body = json.dumps({"error": told}).encode()
        self.send_response(403, told.replace("\n", " "))
        self.send_header("X-Error-Message", told)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815


@pytest.fixture(scope="module")
def echo() -> Iterator[str]:
    http = ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
    http.daemon_threads = True
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"user:{PASSWORD}@127.0.0.1:{http.server_address[1]}"
    http.shutdown()
    http.server_close()


def test_every_command_is_among_them() -> None:
    assert set(FAILURES) == set(typer.main.get_command(cli.app).commands)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_no_command_shows_or_keeps_a_planted_secret(echo: str, tmp_path: Path) -> None:
    from PIL import Image

    for name in ("home", "tmp", "here", "taken"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "taken" / "prefect.yaml").write_text("")
    write_dataset(tmp_path / "dataset")
    Image.new("RGB", (60, 40)).save(tmp_path / "image.png")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "PREFECT"))} | {
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "tmp"),
        "HF_TOKEN": HUB,
        "HF_ENDPOINT": f"http://{echo}",
        "HF_HUB_DISABLE_XET": "1",
        "OPENAI_API_KEY": f"{KEY}\n",
        "PREFECT_API_URL": f"http://{echo}/api",
        "PREFECT_API_AUTH_STRING": f"admin:{STRING}",
        "HTTPS_PROXY": f"http://user:{PROXY}@127.0.0.1:9",
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        "COLUMNS": "1000",
    }
    commands = [
        [name, *(word.replace("{t}", str(tmp_path)) for word in line)]
        for name, lines in FAILURES.items()
        for line in lines
    ]
    done = subprocess.run(
        [sys.executable, "-m", "tests.commands.everyday"],
        input=json.dumps(commands),
        cwd=tmp_path / "here",
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    outcomes = json.loads(done.stdout)["found"]
    ended = [
        (command, found["code"], found["traceback"][-1500:]) for command, found in zip(commands, outcomes, strict=True)
    ]
    assert all(code in (1, 2) or name == ["doctor"] for name, code, _ in ended), ended
    assert not "\n".join(f"{command}: {traceback}" for command, _, traceback in ended if traceback)
    texts = [
        (f"{command}", found["message"] + found["printed"]) for command, found in zip(commands, outcomes, strict=True)
    ]
    texts += [("stderr", done.stderr), *((str(path), text) for path, text in content(tmp_path))]
    found = [(secret, where) for secret in SECRETS for where, text in texts if secret in text]
    assert not found


@pytest.mark.parametrize(
    "url",
    [
        "https://user:Zq8wErTy77@host/x",
        "https://user:ab@Zq8wErTy77@host/x?a=1",
        "https://host/x?clientSecret=Zq8wErTy77",
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        ["report", "{}"], ["compare", "{}", "{}"], ["publish", "{}", "org/name"], ["publish-model", "{}", "org/name"],
        ["server", "--home", "{}"], ["status", "a", "b{}"], ["build", "--limit", "{}"], ["{}"], ["--{}"],
        ["plan", "--{}=1"], ["audit", "{}", "--port", "x{}"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_secret_in_a_word_of_the_command_line_is_not_repeated(url: str, command: list[str]) -> None:
    done = CliRunner().invoke(app, [word.format(url) for word in command], env={"COLUMNS": "60"})
    assert done.exit_code == 2
    assert "Zq8wErTy77" not in "".join(done.output.split())
    assert "Zq8w" not in done.output
