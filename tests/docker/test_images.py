"""The container files: what can be checked of them without a container engine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from commands import prefect_server

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKERFILES = sorted((REPOSITORY / "docker").glob("Dockerfile.*"))
COMPOSE = REPOSITORY / "docker" / "compose.yaml"


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_a_dockerfile_copies_what_exists_and_ends_without_root(path: Path) -> None:
    text = re.sub(r"\\\n", " ", path.read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert lines[0].startswith("FROM ")
    assert re.search(r":[\w.-]+@sha256:[0-9a-f]{64}$", lines[0]), "the base image has a tag and a digest"
    for line in lines:
        if line.startswith("COPY "):
            for source in line.split()[1:-1]:
                assert (REPOSITORY / source).exists(), line
        if "apt-get install" in line:
            assert "--no-install-recommends" in line
            assert "rm -rf /var/lib/apt/lists/*" in line
        if "pip install" in line:
            assert "--no-cache-dir" in line
    assert [line for line in lines if line.startswith("USER ")][-1] != "USER root"


def pins(name: str) -> dict[str, tuple[str, list[str]]]:
    """Name without extras, in lower case -> version and digests."""
    text = re.sub(r" \\\n\s+", " ", (REPOSITORY / name).read_text())
    found = {}
    for line in text.splitlines():
        if match := re.match(r"([\w.-]+)(?:\[[^]]*\])?==([^\s;]+)", line):
            key = re.sub(r"[-_.]+", "-", match[1]).lower()
            found[key] = (match[2], re.findall(r"--hash=sha256:([0-9a-f]{64})(?= |$)", line))
    return found


OF_THE_MACHINE = {"talking-points", "torch"}
"""What the tests need and their lock does not hold: the project, and PyTorch, of which each machine has its build."""


def test_locks_with_digests_pin_what_the_lock_pins() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    everything, base, gpu, dev, ray, builder = (
        pins(f"requirements{name}.lock") for name in ("", "-base", "-gpu", "-dev", "-ray", "-build")
    )
    assert not base.keys() & (gpu | dev | ray | builder).keys()
    for name, (version, digests) in (base | gpu | dev | ray | builder).items():
        assert digests, f"{name} has no digest"
        assert everything.get(name, (version,))[0] == version, name
    for vllm in (pins("requirements-vllm.lock"), pins("requirements-vllm-gpu.lock")):
        assert len(vllm) > 150
        assert all(digests for _, digests in vllm.values())
    (build,) = project["build-system"]["requires"]
    assert build == f"setuptools=={base['setuptools'][0]}"
    extras = project["project"]["optional-dependencies"]
    for wanted, locked in (
        (project["project"]["dependencies"], base),
        (extras["train"] + extras["llama-cpp"], base | gpu),
        (
            extras["dev"] + extras["train"] + extras["audit"] + extras["dask"],
            base | dev | dict.fromkeys(OF_THE_MACHINE),
        ),
        (extras["ray"], base | dev | ray),
        # What has no wheel is built with what a lock names.
        (["scikit-build-core"], builder),
    ):
        for requirement in wanted:
            name = re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()  # type: ignore[index]
            assert name in locked, requirement
    text = "".join(path.read_text() for path in REPOSITORY.glob("requirements-*.lock"))
    assert not re.search(r"://|file:|--find-links|--index|^/", text, re.MULTILINE)


def test_containers_and_make_install_by_digest() -> None:
    for path in (*DOCKERFILES, REPOSITORY / "Makefile"):
        text = path.read_text()
        assert "--require-hashes -r requirements-base.lock" in text, path
        assert "http" not in "".join(line for line in text.splitlines() if "pip install" in line), path
        for lock in re.findall(r"pip install .*-r (\S+\.lock)", text):
            assert re.search(rf"--require-hashes .*-r {re.escape(lock)}", text), f"{path}: {lock}"
        assert "--no-deps --no-build-isolation" in text, path
    text = re.sub(r"\\\n", " ", (REPOSITORY / "docker" / "Dockerfile.gpu").read_text())
    for step in re.findall(r"pip install [^&\n]*requirements-gpu\.lock", text):
        assert "--no-build-isolation" in step, "pip fetches what it builds with elsewhere without a digest"
    assert text.index("-r requirements-build.lock") < text.index("-r requirements-gpu.lock")


def test_compose_names_existing_images_and_services() -> None:
    compose = yaml.safe_load(COMPOSE.read_text())
    services = compose["services"]
    assert re.search(r"@sha256:[0-9a-f]{64}$", services["database"]["image"])
    for service in services.values():
        if "build" in service:
            assert (COMPOSE.parent / service["build"]["context"] / service["build"]["dockerfile"]).exists()
        assert set(service.get("depends_on", {})) <= set(services)
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in compose["volumes"]
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), "no service listens on other machines' requests by default"


def test_every_profile_has_a_worker_that_can_run_its_deployments() -> None:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    workers = {name: service for name, service in services.items() if name.startswith("worker")}
    profiles = {profile: service for service in workers.values() for profile in service["profiles"]}
    assert set(profiles) == {"cpu", "gpu"}
    assert profiles["gpu"]["environment"] == profiles["cpu"]["environment"]
    assert profiles["gpu"]["depends_on"] == profiles["cpu"]["depends_on"]
    assert profiles["gpu"]["deploy"]["resources"]["reservations"]["devices"], "training needs the GPU"
    dockerfile = (COMPOSE.parent.parent / profiles["gpu"]["build"]["dockerfile"]).read_text()
    assert "-r requirements-gpu.lock" in dockerfile, "training and evaluation import torch"
    assert "build/env-vllm" in dockerfile, "builds of paper.yaml start vLLM from there"


def test_the_server_takes_passwords_of_any_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    server, worker = services["server"]["environment"], services["worker"]["environment"]
    assert server["PREFECT_SERVER_API_AUTH_STRING"] == worker["PREFECT_API_AUTH_STRING"]
    assert services["deploy"]["environment"] == worker
    password = "p@s/s:w#%o$ rd'\""
    for name, value in server.items():
        monkeypatch.setenv(name, value.replace("${POSTGRES_PASSWORD}", password))
    from prefect.settings.models.root import Settings
    from sqlalchemy.engine import make_url

    settings = Settings().server
    assert settings.database.connection_url is not None
    url = make_url(settings.database.connection_url.get_secret_value())
    assert (url.password, url.username, url.host, url.database) == (password, "prefect", "database", "prefect")
    assert "*" not in settings.api.cors_allowed_origins
    assert services["server"]["command"][:4] == ["python", "-P", "-m", prefect_server.__name__]


def test_compose_accepts_the_file() -> None:
    candidates = (["docker", "compose"], ["docker-compose"])
    environment = os.environ | {"POSTGRES_PASSWORD": "x", "PREFECT_PASSWORD": "y"}
    for command in candidates:
        if shutil.which(command[0]) is None:
            continue
        if subprocess.run([*command, "version"], capture_output=True, check=False).returncode:
            continue
        for profile in ("cpu", "gpu", "vllm"):
            done = subprocess.run(
                [*command, "-f", str(COMPOSE), "--profile", profile, "config", "--quiet"],
                env=environment, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
        return
    pytest.skip("neither 'docker compose' nor docker-compose is installed")
