"""What a row costs with a small model in process, and what the verifier says of its texts.

    talking-points draw-sample build/sample && talking-points build --config configs/build/sample.yaml
    python benchmarks/small_model.py build/llamapointinpart --rows 24

Rows and captions are those of a built dataset; drafts, refinements with their rounds, and verifications are those of
``configs/build/laptop.yaml``, asked without a request cache. Processor seconds are those of all threads of the process;
loading the model is apart. To compare two states of the project or two settings, run one after the other, several
times. With ``--texts`` all answers are written to a file, so that two runs can be compared byte by byte.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.parquet as pq
from texts import ANSWER
from texts import rows as ordinary_rows

from talking_points.build_config import BuildConfig
from talking_points.config import load_config
from talking_points.descriptions.asking import Answer, ask
from talking_points.descriptions.backends import open_backend
from talking_points.descriptions.composed import compose_instead
from talking_points.descriptions.steps import generate_request, refine_request
from talking_points.descriptions.verification import verify
from talking_points.records import SOURCES, Candidate
from talking_points.stop_requests import clear_stop
from tasks.refine import refine_until_accepted

Result = TypeVar("Result")


def main() -> None:
    """Write the texts of some rows, and print what that took as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, nargs="?", help="a built dataset's folder; default: rows of one kind")
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--config", default="build/laptop.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="as for 'build'")
    parser.add_argument("--texts", type=Path, help="JSON file for the texts")
    given = parser.parse_args()
    config = load_config(BuildConfig, given.config, given.set)
    rows, texts = read_rows(given.dataset, given.rows) if given.dataset else make_rows(given.rows)
    clear_stop()
    spent: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Result]) -> Result:
        started = time.process_time()
        result = work()
        spent[name] = spent.get(name, 0.0) + time.process_time() - started
        return result

    def shown(row: Candidate) -> tuple[str, str]:
        return texts["object_caption"][row.id], texts["local_caption"][row.id]

    backend = timed("load", lambda: open_backend(config.generate))
    requests = {row.id: generate_request(row, *shown(row), config.generate, config.seed) for row in rows}
    drafts = timed("draft", lambda: ask(backend, requests.values(), config.generate, None))
    refused_drafts = Counter(answer.error.reason for answer in drafts.values() if answer.error)
    composed = compose_instead({row.id: requests[row.id] for row in rows if drafts[row.id].error}, drafts)
    if config.refine != config.generate:
        backend.close()
        backend = timed("load", lambda: open_backend(config.refine))
    texts["draft"] = {name: (composed.get(name) or answer).text for name, answer in drafts.items()}
    answers, rounds = timed(
        "refinement",
        lambda: refine_until_accepted(
            rows, texts, backend, None, config.refine, config.verification, config.seed, config.merged_captions
        ),
    )
    timed("verification", lambda: [verify(answers[row.id].text + " ", row, config.verification) for row in rows])
    backend.close()
    edits = {row.id: refine_request(row, *shown(row), texts["draft"][row.id], (), 0, config.refine, 0) for row in rows}
    refused = {name: answer.error for name, answer in answers.items() if answer.error}
    instead = compose_instead({name: edits[name] for name in refused}, answers)
    if given.texts:
        written = {row.id: [drafts[row.id].text, answers[row.id].text] for row in rows}
        given.texts.write_text(json.dumps(written, indent=1, sort_keys=True) + "\n")
    print(
        json.dumps(
            {
                "rows": len(rows),
                "cpu_s_per_row": round((sum(spent.values()) - spent["load"]) / len(rows), 2),
                **{f"{name}_cpu_s": round(seconds, 2) for name, seconds in spent.items()},
                "drafts": taken(drafts, rows) | {"written": len(rows) - len(composed), "refused": dict(refused_drafts)},
                "refinements": taken(answers, rows)
                | {
                    "accepted_by_round": dict(sorted(Counter(rounds[n] for n in answers if n not in refused).items())),
                    "accepted_from_own_draft": sum(n not in refused and n not in composed for n in answers),
                    "composed_instead": len(instead),
                    "refused": dict(Counter(error.reason for error in refused.values() if error)),
                },
            }
        )
    )


def read_rows(folder: Path, count: int) -> tuple[list[Candidate], dict[str, dict[str, str]]]:
    """Candidates and captions of ``count`` rows of a dataset, spread over all of them."""
    files = sorted((folder / "data").rglob("*.parquet"))
    every = [row for file in files for row in pq.read_table(file).drop_columns(["image"]).to_pylist()]
    every.sort(key=lambda row: row["id"])
    chosen: list[dict[str, Any]] = every[:: max(1, len(every) // count)][:count]
    whole = {"image_phash": 0, "instance_exact": True}
    rows = [Candidate.from_row(whole | row | {"source": SOURCES[row["source"]]}) for row in chosen]
    captions = {name: {row["id"]: row[name] for row in chosen} for name in ("object_caption", "local_caption")}
    return rows, captions


def make_rows(count: int) -> tuple[list[Candidate], dict[str, dict[str, str]]]:
    """Candidates and captions that differ in nothing but their ids."""
    rows = ordinary_rows(count)
    return rows, {name: dict.fromkeys((row.id for row in rows), ANSWER) for name in ("object_caption", "local_caption")}


def taken(answers: dict[str, Answer], rows: list[Candidate]) -> dict[str, float]:
    """Requests and tokens per row."""
    names = ("requests", "tokens_in", "tokens_out")
    return {name: round(sum(getattr(answers[row.id], name) for row in rows) / len(rows), 1) for name in names}


if __name__ == "__main__":
    main()
