"""Whether a worker, perhaps on another machine, can do the work of a build: what it runs, and what it sees.

The driver says what it has itself (``expect``); every worker compares that with what it finds, when the build starts
and before its first task, and says in words what differs.
"""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib import metadata, util
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import talking_points
from talking_points.allocator import keep_freed_memory
from talking_points.build_config import BuildConfig
from talking_points.config import ConfigError, Section
from talking_points.descriptions.asking import release_backend
from talking_points.descriptions.backends import BACKENDS
from talking_points.errors import InputError
from talking_points.extras import how_to_install
from talking_points.instructions.config import InstructionBuildConfig
from talking_points.redaction import protect_settings, redact
from tasks.running.claims import this_worker
from tasks.running.lease import LEASES
from tasks.running.runner_checks import ANSWERS, last_line
from tasks.running.storage import Storage

PACKAGES = (
    *("talking-points", "numpy", "opencv-contrib-python", "pillow", "pyarrow", "pycocotools", "scipy"),
    *("jinja2", "matplotlib", "sacrebleu", "pydantic", "prefect"),
)
"""Packages that rows, requests and files depend on, or that carry the tasks."""
CARRIERS = {"dask": ("dask", "distributed"), "ray": ("ray",)}
"""Packages that carry the tasks, by kind of cluster: their releases talk to their own kind alone."""
MISSING = "missing"
"""The version of a package that is not installed."""
_LOOKED_AT = 500
"""Files of a source that its digest for workers is made of: enough to tell a folder from another one."""


class WorkerDiffers(InputError):
    """A worker runs other code than the driver of the build, or does not see what it sees."""


class Need(Section):
    """What a stage needs of the worker that is given it: a package, with the extra that installs it, and the versions
    of all packages that its answers depend on.
    """

    package: str
    extra: str
    versions: dict[str, str]


class Expectation(Section):
    """What a worker is expected to run and to see; ``needs``: by stage."""

    token: str
    python: str
    code: str
    packages: dict[str, str]
    roots: dict[str, tuple[str, str]]
    output: str
    lease: int
    results: str | None
    api: str | None
    needs: dict[str, Need]
    answers: str | None = None


def expect(
    config: BuildConfig | InstructionBuildConfig,
    roots: Mapping[str, str],
    lease: int,
    results: Path | None,
    api: str | None,
) -> Expectation:
    """What this process, the driver of a build, has; and marks for workers to find in the output and the results.

    ``results``: the folder of the result records, where they are kept in one. Both have to be seen by every worker.
    ``api``: the URL of the Prefect server that workers report to.
    """
    storage = Storage(config.output)
    asking, read = {}, dict(roots)
    if isinstance(config, BuildConfig):
        asking = config.asking
    elif config.points is not None:
        read["points"] = str(config.points.absolute())
    expected = Expectation(
        token=secrets.token_hex(8),
        python=_python(),
        code=code_digest(),
        packages=_versions((*PACKAGES, *CARRIERS.get(config.runner.kind, ()))),
        roots={name: (root, root_digest(root)) for name, root in read.items()},
        output=storage.place,
        lease=lease,
        results=None if results is None else str(results),
        api=api,
        answers=config.request_cache if isinstance(config, BuildConfig) else None,
        needs={
            stage: Need(package=entry.package, extra=entry.extra, versions=_versions(entry.decided_by))
            for stage, step in asking.items()
            if (entry := BACKENDS[step.backend]).package
        },
    )
    storage.write_bytes(_mark(expected), expected.token.encode())
    if results is not None:
        results.mkdir(parents=True, exist_ok=True)
        _result_mark(expected).write_text(expected.token)
    return expected


def forget_marks(expected: Expectation) -> None:
    """Remove what ``expect`` has left."""
    with suppress(OSError):
        Storage(expected.output).remove(_mark(expected))
        if expected.results is not None:
            _result_mark(expected).unlink(missing_ok=True)


def find_differences(expected: Expectation, stages: tuple[str, ...]) -> list[str]:
    """What is different here, in words; empty where this process can do the tasks of these stages."""
    found = [*_other_code(expected), *_other_roots(expected), *_unseen_places(expected), *_unreached_server(expected)]
    found += _unusable_cache(expected)
    for stage in stages:
        found += _lacks(stage, expected.needs.get(stage))
    return list(dict.fromkeys(found))


def _other_code(expected: Expectation) -> list[str]:
    found = [*other_python(_python(), expected), *_own_other_versions(expected.packages)]
    # Of another release it goes without saying.
    if not found and code_digest() != expected.code:
        found.append(
            f"its code in {Path(talking_points.__file__).parent} is not that of the build: install the build's there, "
            "and start the worker again"
        )
    return found


def other_python(own: str, expected: Expectation) -> list[str]:
    """What is said of an interpreter that is not that of the build."""
    return [] if own == expected.python else [f"it runs Python {own}, the build {expected.python}"]


def other_versions(own: Mapping[str, str | None], expected: Mapping[str, str]) -> list[str]:
    """What is said of packages that are not those of the build; None, or ``MISSING``, for one that is not there."""
    found = {name: own.get(name) or MISSING for name in expected}
    return [
        f"it has {f'no {name}' if found[name] == MISSING else f'{name} {found[name]}'}, the build {version}; install "
        "what requirements.lock pins"
        for name, version in expected.items()
        if found[name] != version
    ]


def _own_other_versions(expected: Mapping[str, str]) -> list[str]:
    return other_versions(_versions(tuple(expected)), expected)


def _other_roots(expected: Expectation) -> Iterator[str]:
    for name, (root, digest) in expected.roots.items():
        try:
            if Path(root).is_dir():
                os.scandir(root).close()
            else:
                Path(root).stat()
        except FileNotFoundError:
            yield f"it has nothing at {root}, the root of {name}"
        except OSError as error:
            yield f"it cannot read {root}, the root of {name} ({error.strerror})"
        else:
            if root_digest(root) != digest:
                yield f"it has other files at {root}, the root of {name}"


def _unseen_places(expected: Expectation) -> Iterator[str]:
    seen, why = "", ""
    try:
        seen = Storage(expected.output).read_bytes(_mark(expected)).decode(errors="replace")
    except FileNotFoundError:
        pass  # it sees another folder, or none
    except Exception as error:  # of a store anything: no package for it, no key, another region
        why = redact(f" ({type(error).__name__}: {last_line(error)})")
    if seen != expected.token:
        needs = "" if "://" not in expected.output else "; its package, keys and endpoint are wanted on every machine"
        yield f"it does not see the output {expected.output}{why}, which has to be one place for all workers{needs}"
    if expected.results is not None and _read(_result_mark(expected)) != expected.token:
        yield (
            f"it does not see the result records in {expected.results}: name a place that all workers see, "
            "PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK of an object store or "
            "PREFECT_RESULTS_LOCAL_STORAGE_PATH of a folder"
        )


def _unreached_server(expected: Expectation) -> Iterator[str]:
    url = urlsplit(expected.api or "")
    if url.hostname is None or (url.scheme in getproxies() and not proxy_bypass(url.hostname)):
        return  # what a proxy reaches is its own affair
    try:
        place = (url.hostname, url.port or (443 if url.scheme == "https" else 80))
        socket.create_connection(place, timeout=ANSWERS).close()
    except (OSError, UnicodeError) as error:
        yield (
            f"it does not reach the Prefect server of the build at {place[0]}:{place[1]} ({error}): PREFECT_API_URL "
            "has to name one that all workers reach"
        )


def _unusable_cache(expected: Expectation) -> Iterator[str]:
    if expected.answers is None:
        return
    from talking_points.descriptions.shared_cache import check_shared_cache

    protect_settings(expected.answers)
    try:
        check_shared_cache(expected.answers)
    except ConfigError as error:
        yield f"{error} (the password comes from ~/.pgpass or PGPASSWORD of every machine, or stands in the URL)"


def _lacks(stage: str, need: Need | None) -> list[str]:
    if need is None:
        return []
    if util.find_spec(need.package) is None:
        return [f"the package '{need.package}', which {stage} needs, is not installed; {how_to_install(need.extra)}"]
    return _own_other_versions(need.versions)


def check_worker(expected: Expectation, stage: str) -> None:
    """Set this process up for a build, once, and compare it once for every stage. Raises ``WorkerDiffers``."""
    if (expected.token, stage) in _fit:
        return
    set_up_worker()
    differences = find_differences(expected, (stage,))
    if differences:
        raise WorkerDiffers(f"the worker {this_worker()} cannot do the tasks of this build: {'; '.join(differences)}")
    _fit.add((expected.token, stage))


_fit: set[tuple[str, str]] = set()


@cache
def set_up_worker() -> None:
    """What a worker process needs once, before its first task."""
    code_digest()  # of the code that it has loaded, whatever is installed there later
    keep_freed_memory()
    # A worker has as many cores as it was given: libraries that take all of them slow each other down.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if "cv2" in sys.modules or util.find_spec("cv2") is not None:
        import cv2

        cv2.setNumThreads(1)


def end_stage() -> None:
    """Release the model that this worker keeps between the tasks of a stage."""
    release_backend()


@cache
def code_digest() -> str:
    """Digest of the code that makes shards: of the library, the tasks and the prompts."""
    digest = hashlib.sha256()
    folder = Path(talking_points.__file__).parent.parent
    for part in ("talking_points", "tasks", "prompts"):
        for path in sorted((folder / part).rglob("*")):
            if path.suffix in (".py", ".jinja", ".md", ".json") and path.is_file():
                digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def root_digest(root: str) -> str:
    """Digest of the names and sizes of the first files of a source, which takes no longer for a large one."""
    digest = hashlib.sha256()
    for path in islice(_files(Path(root)), _LOOKED_AT):
        with suppress(OSError):
            digest.update(f"{path.relative_to(root).as_posix()}\0{path.stat().st_size}\n".encode(errors="replace"))
    return digest.hexdigest()[:16]


def _files(folder: Path) -> Iterator[Path]:
    for parent, directories, names in os.walk(folder):
        directories.sort()
        yield from (Path(parent, name) for name in sorted(names))


def _python() -> str:
    return ".".join(platform.python_version_tuple()[:2])


def _versions(names: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = MISSING
    return found


def _mark(expected: Expectation) -> str:
    return f"{LEASES}/{expected.lease:08d}.seen"


def _result_mark(expected: Expectation) -> Path:
    return Path(expected.results or "", f".seen-{expected.token}")


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None
