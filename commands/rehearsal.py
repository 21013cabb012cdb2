"""``talking-points rehearse``: the whole way to the paper's tables on tiny models in the true layouts, in minutes.

It walks the steps of ``configs/reproduce/paper.yaml`` with their own configurations; only places and sizes differ.
Models start in bfloat16 from an official-looking release, LLaVA and Llama are a stand-in behind a managed server (or
tiny weights of theirs behind vLLM on the CPU, where its environment is named), and what is drawn takes the place of
the datasets. One page says what ran, what a GPU would change, and what was skipped.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from talking_points.config import load_config
from talking_points.evaluation.reproduction import (
    ReproduceConfig,
    StepOfReproduction,
    command_line,
    output_of,
    report_folders,
)
from talking_points.proxies import is_this_machine
from talking_points.terminal import tell
from talking_points.whole_files import write_text

PAPER = "configs/reproduce/paper.yaml"
_SOURCES = ("pascal_part116", "ade20k_part234", "partimagenet", "ap10k")
_ANIMALS = 16
"""Images of AP-10K: enough for both families."""
_LOOK = "a small, dark, round spot on a smooth, pale surface"
_SERVED_STEPS = ("local_caption", "generate", "refine")

_SERVED = {
    False: "here a stand-in speaks their protocol from a managed server (--vllm: vLLM on the CPU does, with tiny "
    "weights), and texts that it cannot write are composed.",
    True: "here it served tiny weights on the CPU, in AWQ's 4 bits where it has kernels for them, and texts that these "
    "could not write were composed.",
}
"""What stood in for the servers of a GPU, by whether vLLM was at hand."""
ON_A_GPU = (
    "OMG-LLaVA captions whole images; here its weights are random and write no words, so that the object caption is "
    "composed, and the model is asked only as the baseline of table 1.",
    "vLLM serves LLaVA and Llama; {served}",
    "Attention, bfloat16 kernels and memory are a GPU's; shapes, dtypes, files and configurations are those of here.",
    "Nothing here says how fast or how good the 7B models are.",
)


@dataclass
class Rehearsal:
    """What ran so far, as lines of the page."""

    folder: Path
    vllm: bool = False
    rows: list[tuple[str, str, float]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def ran(self, name: str, command: str, started: float) -> None:
        """Remember a step that ended well."""
        seconds = time.monotonic() - started
        self.rows.append((name, command, seconds))
        tell(f"{name}: {seconds:.1f} s")

    def page(self) -> str:
        """The page in Markdown."""
        lines = ["# Rehearsal", "", "| step | of the paper's way | seconds |", "|---|---|---|"]
        lines += [f"| {name} | `{command}` | {seconds:.1f} |" for name, command, seconds in self.rows]
        lines += [
            "",
            f"{len(self.rows)} steps in {sum(row[2] for row in self.rows):.0f} s.",
            "",
            "What a GPU would change:",
            "",
        ]
        lines += [f"- {line}".replace("{served}", _SERVED[self.vllm]) for line in ON_A_GPU]
        lines += ["", "Skipped:", "", *(f"- {line}" for line in self.skipped or ["nothing"]), ""]
        return "\n".join(lines)


def rehearse(folder: Path, *, images: int = 6, hub: str | None = None, vllm: Path | None = None) -> Path:
    """Walk the way in ``folder``; returns the page.

    ``hub`` is a repository ``org/name`` of a Hub on this machine, ``vllm`` an environment with vLLM.
    """
    from talking_points.sources.drawn import draw_sample

    paper = load_config(ReproduceConfig, PAPER)
    rehearsal = Rehearsal(folder, vllm is not None)
    started = time.monotonic()
    roots = draw_sample(folder / "data", images, sources=list(_SOURCES[:3]))
    roots |= draw_sample(folder / "data", _ANIMALS, sources=["ap10k"])
    rehearsal.ran("data", "the downloads of talking-points doctor --paper", started)
    if vllm is None:
        rehearsal.skipped.append("vLLM itself: no environment of it was named (--vllm DIR; make vllm-env makes one)")
    elif not _computes_four_bits():
        rehearsal.skipped.append("AWQ's 4 bits: vLLM's kernels for them need AVX-512, which this CPU lacks")
    tiny = _in_folder(paper, folder, roots, vllm)
    for step, own in zip(paper.steps, tiny.steps, strict=True):
        started = time.monotonic()
        _run(own, tiny)
        made = output_of(own, tiny, own.settings())
        if not made.is_file():
            raise RuntimeError(f"the step {own.name} left no {made}")
        rehearsal.ran(step.name, command_line(step, paper), started)
    _publish(rehearsal, folder, hub)
    started = time.monotonic()
    _load(folder, roots)
    rehearsal.ran("load", "PointDescriptor.from_pretrained, PointLocalizer.from_pretrained", started)
    page = folder / "rehearsal.md"
    write_text(page, rehearsal.page())
    return page


def _in_folder(
    paper: ReproduceConfig, folder: Path, roots: dict[str, Path], vllm: Path | None = None
) -> ReproduceConfig:
    """The paper's steps with places below ``folder`` and sizes for two CPU cores."""
    steps = [step.model_copy(update={"overrides": _overrides(step, folder, roots, vllm)}) for step in paper.steps]
    return ReproduceConfig(output=folder / "reproduction", converted=folder / "build/omg-llava", steps=tuple(steps))


def _overrides(step: StepOfReproduction, folder: Path, roots: dict[str, Path], vllm: Path | None) -> tuple[str, ...]:
    here = step.settings()

    def moved(path: Any) -> str:
        return str(folder / str(path))

    if step.run == "build":
        return build_overrides(here.output, folder, roots, vllm)
    if step.run in ("train-localizer", "train-descriptor", "adapt-descriptor"):
        short = ("max_steps=2", "batch_size=2", "save_steps=2")
        sections = [f"{name}.{value}" for name in ("localizer", "descriptor", "adapt") for value in short]
        sections += [
            f"{name}.{value}" for name in ("localizer", "descriptor") for value in ("eval_steps=2", "eval_points=2")
        ]
        return (
            f"output={moved(here.output)}", f"dataset={moved(here.dataset)}", f"start={moved(here.start)}",
            f"features.folder={moved(here.features.folder)}", f"keypoints.root={roots['ap10k']}", "keypoints.limit=6",
            "adapt.max_new_tokens=4", "adapt.sample_steps=2", "allow_drawn=true", "threads=1", *sections,
        )  # fmt: skip
    if step.run == "evaluate":
        found = [
            f"output={moved(here.output)}",
            f"localizer={moved(here.localizer)}",
            f"text_only={moved(here.text_only)}",
        ]
        found += [f"features.folder={moved(here.features.folder)}", "limit=4"]
        found += [f"dataset={moved(here.dataset)}"] if here.dataset else [f"keypoints.root={roots['ap10k']}"]
        for name, source in here.sets.items():
            if source.descriptor:
                found.append(f"sets.{name}.descriptor={moved(source.descriptor)}")
            if source.backend:
                found += [
                    f"sets.{name}.backend.model={moved(source.backend.model)}",
                    f"sets.{name}.backend.max_tokens=8",
                ]
        return tuple(found)
    return ()


def build_overrides(output: Path | str, folder: Path, roots: dict[str, Path], vllm: Path | None) -> tuple[str, ...]:
    """Settings with which the paper's build runs on drawn sources, below ``folder``.

    Its servers are a stand-in, or vLLM on the CPU from the environment ``vllm``, with weights that are written here.
    """
    found = [f"output={folder / output}", "object_caption.backend=rules", "object_caption.model=null"]
    for name in _SOURCES[:3]:
        found += [f"sources.{name}.root={roots[name]}", f"sources.{name}.points=null"]
    found += _stand_in(folder) if vllm is None else _served_by_vllm(folder, vllm)
    return (
        *found,
        "verification.compose_refused=true",
        "verification.attempts=1",
        "verification.max_rejected_share=1.0",
    )


def _stand_in(folder: Path) -> list[str]:
    program = folder / "bin" / "vllm"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m talking_points.stand_in_server "$@"\n')
    program.chmod(0o700)
    return [
        setting
        for name in _SERVED_STEPS
        for setting in (f"{name}.server.environment={program}", f"{name}.server.variables.STANDIN_ANSWER={_LOOK}")
    ]


def _served_by_vllm(folder: Path, vllm: Path) -> list[str]:
    from talking_points.models import stand_in_chat

    packed = _computes_four_bits()
    llava = stand_in_chat.write_llava(folder / "models" / "llava")
    llama = stand_in_chat.write_llama(folder / "models" / "llama", awq=packed)
    options = f"max_model_len: {stand_in_chat.CONTEXT}, max_num_seqs: 16, enforce_eager: true"
    found = []
    for name in _SERVED_STEPS:
        quantized = packed and name != "local_caption"
        found += [
            f"{name}.model={llava if name == 'local_caption' else llama}",
            f"{name}.revision=null",
            f"{name}.dtype={'bfloat16' if quantized else 'float32'}",
            f"{name}.options={{{options}{', quantization: awq' if quantized else ''}}}",
            f"{name}.server.environment={vllm.absolute()}",
            f"{name}.server.variables.VLLM_CPU_KVCACHE_SPACE='1'",
        ]
    return found


def _computes_four_bits() -> bool:
    """Whether vLLM has kernels for AWQ on this CPU."""
    import torch

    return bool(torch.cpu.get_capabilities().get("avx512_f"))


def _run(step: StepOfReproduction, config: ReproduceConfig) -> None:
    if step.run == "convert-omg-llava":
        convert_in_small(config.converted)
    elif step.run == "tables":
        from talking_points.evaluation.saved_reports import read_reports
        from talking_points.evaluation.tables import write_tables

        write_tables(read_reports([str(folder) for folder in report_folders(config)]), config.output / "tables")
    else:
        from flows.reproduce import FLOWS

        FLOWS[step.run](step.config, list(step.overrides))


def convert_in_small(output: Path) -> None:
    """An official-looking release of several files and fused keys, converted to bfloat16."""
    from talking_points.models.omg_llava.configuration import OmgLlavaConfig
    from talking_points.models.omg_llava.conversion import convert_release
    from talking_points.models.omg_llava.stand_in import ReleaseSizes, write_release

    sizes = ReleaseSizes()
    base = OmgLlavaConfig(
        image_size=64,
        decoder_size=sizes.size,
        decoder_heads=sizes.heads,
        text_config={"hidden_size": sizes.hidden, "num_attention_heads": sizes.attention_heads},
    )
    convert_release(write_release(output.with_name("release"), sizes), output, base=base)


def _publish(rehearsal: Rehearsal, folder: Path, hub: str | None) -> None:
    if hub is None:
        rehearsal.skipped.append("publishing: no Hub of this machine was named (--hub ORG/NAME with HF_ENDPOINT)")
        return
    from talking_points.errors import InputError

    if not is_this_machine(os.environ.get("HF_ENDPOINT", "")):
        raise InputError("a rehearsal publishes only to a Hub on this machine: set HF_ENDPOINT to its address")
    from talking_points.publishing.hub import publish

    started = time.monotonic()
    publish(folder / "build" / "llamapointinpart-paper", hub, images="embed")
    rehearsal.ran("publish", f"talking-points publish build/llamapointinpart-paper {hub}", started)


def _load(folder: Path, roots: dict[str, Path]) -> None:
    """The trained models as anybody would use them."""
    from talking_points import PointDescriptor, PointLocalizer, open_source
    from talking_points.image_files import read_rgb

    record = next(iter(open_source("ap10k", roots["ap10k"])))
    image, train = read_rgb(record.image_path), folder / "build" / "train-paper"
    descriptor = PointDescriptor.from_pretrained(train / "adapted-bovidae")
    localizer = PointLocalizer.from_pretrained(train / "localizer")
    descriptor.describe([image], [(5.0, 5.0)], max_new_tokens=4)
    localizer.localize([image], ["The point is on the ear."])
