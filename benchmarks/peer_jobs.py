"""The job of ``peers.py`` as each peer would be asked to do it. Runs in the peer's own environment.

python benchmarks/peer_jobs.py NAME URL ROWS IMAGE FOLDER
"""

from __future__ import annotations

import base64
import os
import sys
from importlib import util
from pathlib import Path
from typing import Any

IN_FLIGHT = 32
URL, ROWS, IMAGE, FOLDER = sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]), Path(sys.argv[5])
PROMPTS = {
    "caption": "Describe the middle of picture {id}.",
    "draft": 'Merge for {id}: "{caption}"',
    "text": 'Refine for {id}: "{draft}"',
}
"""What each of the three requests says; the first one shows the image."""


def body(name: str, row: dict[str, Any], image: bytes) -> dict[str, Any]:
    """A chat completion request."""
    content: Any = PROMPTS[name].format(**row)
    if name == "caption":
        shown = f"data:image/jpeg;base64,{base64.b64encode(image).decode()}"
        content = [{"type": "text", "text": content}, {"type": "image_url", "image_url": {"url": shown}}]
    return {"model": "m", "messages": [{"role": "user", "content": content}], "max_tokens": 256, "temperature": 0.0}


def run_datasets() -> None:
    """One asynchronous map per request; finished maps are found in the cache."""
    import datasets
    import httpx

    datasets.disable_progress_bars()
    image, source = IMAGE.read_bytes(), FOLDER / "rows.parquet"
    if not source.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_dict({"id": [f"{n:06d}" for n in range(ROWS)]}).to_parquet(str(source))
    rows = datasets.Dataset.from_parquet(str(source), cache_dir=str(FOLDER / "cache"))
    datasets.config.MAX_NUM_RUNNING_ASYNC_MAP_FUNCTIONS_IN_PARALLEL = IN_FLIGHT
    for name in PROMPTS:
        # Every map has an event loop of its own.
        client = httpx.AsyncClient(timeout=600, limits=httpx.Limits(max_connections=IN_FLIGHT))

        async def ask(row: dict[str, Any], name: str = name, client: httpx.AsyncClient = client) -> dict[str, str]:
            answer = await client.post(f"{URL}/chat/completions", json=body(name, row, image))
            return {name: answer.json()["choices"][0]["message"]["content"]}

        rows = rows.map(ask, new_fingerprint=f"peers-{name}")
    rows.to_parquet(str(FOLDER / "out.parquet"))


def run_datatrove() -> None:
    """One rollout of three requests per document, with checkpoints."""
    from datatrove.data import Document
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.inference.run_inference import InferenceConfig, InferenceRunner
    from datatrove.pipeline.writers import JsonlWriter

    image = IMAGE.read_bytes()

    async def rollout(document: Document, generate: Any) -> dict[str, str]:
        row = {"id": document.id}
        for name in PROMPTS:
            row[name] = (await generate(body(name, row, image))).text
        return row

    config = InferenceConfig(
        server_type="endpoint",
        endpoint_url=URL.removesuffix("/v1"),
        model_name_or_path="m",
        max_concurrent_generations=IN_FLIGHT,
        server_ready_delay_sec=0.1,
    )
    writer = JsonlWriter(str(FOLDER / "out"), output_filename="${rank}_${chunk_index}.jsonl", compression=None)
    runner = InferenceRunner(
        rollout, config, writer, checkpoints_local_dir=str(FOLDER / "checkpoints"), records_per_chunk=32
    )
    documents = [Document(text=f"{n:06d}", id=f"{n:06d}") for n in range(ROWS)]
    LocalPipelineExecutor(pipeline=[documents, runner], logging_dir=str(FOLDER / "logs"), tasks=1).run()


def run_curator() -> None:
    """One ``LLM`` per request; answers are kept in its working folder."""
    # It counts tokens with a vocabulary that it would download; a dependency of its own has the same file.
    vocabularies = Path(str(util.find_spec("litellm").origin)).parent / "litellm_core_utils" / "tokenizers"  # type: ignore[union-attr]
    os.environ.setdefault("TIKTOKEN_CACHE_DIR", str(vocabularies))
    from bespokelabs import curator

    rows: Any = [{"id": f"{n:06d}"} for n in range(ROWS)]
    limits = {"base_url": URL, "max_concurrent_requests": IN_FLIGHT, "max_requests_per_minute": 10**7}
    limits |= {"max_tokens_per_minute": 10**10, "require_all_responses": True}
    for name in PROMPTS:

        class Step(curator.LLM):
            key = name

            def prompt(self, row: dict[str, Any]) -> Any:
                text = PROMPTS[self.key].format(**row)
                return (text, curator.types.Image(content=_encoded())) if self.key == "caption" else text

            def parse(self, row: dict[str, Any], response: str) -> dict[str, Any]:
                return {**row, self.key: response}

        step = Step(model_name="m", backend="openai", backend_params={**limits, "api_key": "none"})
        rows = step(rows, working_dir=str(FOLDER / name)).dataset
    rows.to_parquet(str(FOLDER / "out.parquet"))


def _encoded() -> str:
    return base64.b64encode(IMAGE.read_bytes()).decode()


if __name__ == "__main__":
    {"datasets": run_datasets, "datatrove": run_datatrove, "curator": run_curator}[sys.argv[1]]()
