"""The same job through this pipeline and through others: what each costs beside the model, and what a kill costs.

    python benchmarks/peers.py --rows 300 --peers ours,datasets,datatrove,curator

Three chat requests per row, the first with a 336x336 JPEG in it, 32 in flight, against a loopback server that answers
at once (``null_server.py``, whose time is not counted). Every peer has an environment of its own in ``--folder``, with
the pinned version, made by ``uv`` or ``pip`` when it is not there; one that cannot be installed is left out. Processor
time is that of the whole tree of processes. ``ours`` is the command ``talking-points build`` from the first text to the
finished dataset (captions, drafts, refinements, verification, Parquet, figures, card, and the temporary Prefect
server); its keypoints are found beforehand. The table is printed last: the first run, a second one that finds all done,
and a run that is killed after half of the requests and repeated, with the requests that were asked more than once.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
PINS = {
    "datasets": ["datasets==5.2.0", "httpx==0.28.1"],
    # What its extra "inference" has beside engines of gigabytes.
    "datatrove": ["datatrove==0.10.1", "aiosqlite==0.22.1", "httpx==0.28.1", "orjson==3.13.0", "xxhash==4.1.0"],
    "curator": ["bespokelabs-curator==0.1.31"],
}
IN_FLIGHT = 32
SOURCES = ("pascal_part116", "ade20k_part234", "partimagenet")


@dataclass
class Measured:
    """One run: processor seconds of all its processes, wall seconds, MiB of the largest, requests that were asked."""

    cpu: float
    wall: float
    peak: float
    requests: int
    code: int


class Job:
    """Runs a command against the null server and counts."""

    def __init__(self, url: str, log: Path) -> None:
        self.url, self.log = url, log

    def count(self) -> int:
        with urllib.request.urlopen(f"{self.url.removesuffix('/v1')}/count") as answer:
            return int(answer.read())

    def run(self, command: list[str], kill_after: int | None = None) -> Measured:
        """Run to the end, or until so many requests were answered and everything is killed."""
        asked, began = self.count(), time.perf_counter()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with self.log.open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
            ended = (0, 0, before)
            while kill_after is not None and not ended[0] and self.count() - asked < kill_after:
                time.sleep(0.01)
                ended = os.wait4(process.pid, os.WNOHANG)
            if not ended[0]:
                if kill_after is not None:
                    os.killpg(process.pid, signal.SIGKILL)
                ended = os.wait4(process.pid, 0)
            _, status, used = ended
            process.returncode = os.waitstatus_to_exitcode(status)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        wall = time.perf_counter() - began
        return Measured(cpu, wall, used.ru_maxrss / 1024, self.count() - asked, process.returncode)


def measure(job: Job, fresh: Callable[[], list[str]], requests: int) -> list[str]:
    """The cells of a peer's row. ``fresh`` makes room for a run from nothing and returns the command."""
    command = fresh()
    first, second = job.run(command), job.run(command)
    command = fresh()
    killed, resumed = job.run(command, kill_after=requests // 2), job.run(command)
    repeated = killed.requests + resumed.requests - requests
    failed = [str(run.code) for run in (first, second, resumed) if run.code]
    rows = requests / 3000
    return [
        f"{first.cpu / rows:.1f}", f"{first.wall:.1f}", f"{first.peak:.0f}", str(first.requests),
        f"{second.cpu:.1f}", f"{second.wall:.1f}", str(second.requests),
        f"{resumed.cpu:.1f}", str(repeated), f"exit code {', '.join(failed)}" if failed else "",
    ]  # fmt: skip


def ours(folder: Path, url: str, rows: int) -> Callable[[], list[str]]:
    """The command, and a build that has everything before its texts."""
    talking_points = [str(Path(sys.executable).with_name("talking-points")), "--quiet"]
    sample, output, before = folder / "sample", folder / "ours", folder / "ours-before"
    if not sample.is_dir():
        images = str(max(12, rows // 5))
        subprocess.run(
            [*talking_points, "draw-sample", sample, "--images", images], check=True, stdout=subprocess.DEVNULL
        )
    roots = dict(zip(SOURCES, ("PascalPart116", "ADE20KPart234", "PartImageNet"), strict=True))
    step = (
        f"{{backend: openai, model: m, endpoint: '{url}', concurrency: {IN_FLIGHT}, request: {{image_format: jpeg}}}}"
    )

    def command(*more: str) -> list[str]:
        given = [f"output={output}", "keypoints.per=part", f"limit={rows}", "sampling.equal_shares=false"]
        given += [f"sources.{name}.root={sample / root}" for name, root in roots.items()]
        given += more
        return [*talking_points, "build", "-c", "build/rules.yaml", *(word for one in given for word in ("--set", one))]

    def fresh() -> list[str]:
        shutil.rmtree(output, ignore_errors=True)
        if not before.is_dir():
            subprocess.run(command(), check=True, stdout=subprocess.DEVNULL)
            output.rename(before)
        # With its times: they are in the digest of what was listed.
        shutil.copytree(before, output)
        texts = [f"{name}={step}" for name in ("local_caption", "generate", "refine")]
        return command("resume=if_possible", *texts)

    return fresh


def another(name: str, folder: Path, url: str, rows: int) -> Callable[[], list[str]] | None:
    """The job of a peer in its environment; None where that cannot be made."""
    python = folder / f"env-{name}" / "bin" / "python"
    ready = python.with_name("ready")
    if not ready.exists():
        uv = shutil.which("uv")
        shutil.rmtree(python.parents[1], ignore_errors=True)
        bare = ["--without-pip"] if uv else []
        subprocess.run([sys.executable, "-m", "venv", *bare, str(python.parents[1])], check=True)
        pip = [uv, "pip", "install", "--python", str(python)] if uv else [str(python), "-m", "pip", "install"]
        if subprocess.run([*pip, *PINS[name]], check=False).returncode:
            return None
        ready.touch()

    def fresh() -> list[str]:
        shutil.rmtree(folder / name, ignore_errors=True)
        return [
            str(python),
            str(HERE / "peer_jobs.py"),
            name,
            url,
            str(rows),
            str(folder / "image.jpg"),
            str(folder / name),
        ]

    return fresh


def main() -> None:
    """Measure the peers one after another and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--peers", default="ours,datasets,datatrove,curator")
    parser.add_argument("--folder", type=Path, default=Path("build/peers"), help="environments, samples and results")
    given = parser.parse_args()
    folder = given.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    picture(folder / "image.jpg")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/v1"
    os.environ |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "PREFECT_HOME": str(folder / "prefect")}
    os.environ |= {"TELEMETRY_ENABLED": "false", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
    job = Job(url, folder / "log.txt")
    columns = ["CPU-s per 1,000 rows", "wall s", "peak MiB", "requests"]
    columns += ["second run CPU-s", "wall s", "requests", "after a kill CPU-s", "requests repeated", ""]
    table = [["", *columns], ["---"] * (len(columns) + 1)]
    server = subprocess.Popen([sys.executable, str(HERE / "null_server.py"), str(port)])
    try:
        while True:
            try:
                job.count()
                break
            except OSError:
                time.sleep(0.1)
        for name in given.peers.split(","):
            fresh = ours(folder, url, given.rows) if name == "ours" else another(name, folder, url, given.rows)
            table.append([name, *(measure(job, fresh, 3 * given.rows) if fresh else ["cannot be installed"])])
            print(json.dumps(table[-1]), file=sys.stderr)
    finally:
        server.terminate()
        server.wait()
    for row in table:
        print(f"| {' | '.join(row)} |")


def picture(path: Path) -> None:
    """A JPEG as smooth as photographs are."""
    import numpy as np
    from PIL import Image

    coarse = np.random.default_rng(0).integers(0, 255, (24, 24, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(coarse).resize((336, 336), Image.Resampling.BICUBIC).save(content, "JPEG", quality=95)
    path.write_bytes(content.getvalue())


if __name__ == "__main__":
    main()
