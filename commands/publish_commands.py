"""Commands on finished datasets: publish, put the images back, check by people."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated

import typer

from commands.console import KEPT, app, exit_codes, needs_extra
from talking_points.config import ConfigError
from talking_points.hub_names import unavailable
from talking_points.locks import only_writer
from talking_points.owners import refuse_closed
from talking_points.terminal import show, tell
from talking_points.units import counted, format_size

Output = Annotated[Path, typer.Argument(help="folder of a finished dataset")]
Root = Annotated[Path | None, typer.Option(help="folder of this source")]


@app.command()
def publish(
    output: Output,
    repo: Annotated[str, typer.Argument(help="org/name on the Hugging Face Hub")],
    private: Annotated[bool, typer.Option("--private", help="create the repository private; default: public")] = False,
    revision: Annotated[str | None, typer.Option(help="tag of this version; default: made from the content")] = None,
    images: Annotated[str | None, typer.Option(help="embed, reference or thumbnail; default: as the terms ask")] = None,
    allow_partial: Annotated[bool, typer.Option("--allow-partial", help="publish a preview, and say so")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would go up, contact nobody")] = False,
) -> None:
    """Upload a dataset to the Hub, tag it and read it back. The token comes from HF_TOKEN or the hub's login."""
    from talking_points.publishing import hub

    with exit_codes(KEPT):
        if images not in (None, "embed", "reference", "thumbnail"):
            raise ConfigError(f"expected --images embed, reference or thumbnail, found {images}")
        tell(f"publish: checking {output}")
        with nullcontext() if dry_run else _only_publisher(output):
            report = hub.publish(
                output,
                repo,
                private=private,
                tag=revision,
                images=images,  # type: ignore[arg-type]  # checked above
                allow_partial=allow_partial,
                dry_run=dry_run,
            )
    for warning in report.warnings:
        show(f"warning: {warning}")
    for name, size in report.files.items():
        show(f"  {name}: {format_size(size)}")
    kind = "private" if private else "public: --private keeps it to its owners"
    new = f" (a new repository is {kind})" if dry_run else ""
    done = "would be published" if dry_run else f"published at {report.url}"
    show(f"{counted(sum(report.rows.values()), 'row')} of {report.repo} {done}, revision {report.tag}{new}")


@app.command("publish-model")
def publish_model(
    folder: Annotated[Path, typer.Argument(help="folder of a trained model")],
    repo: Annotated[str, typer.Argument(help="org/name on the Hugging Face Hub")],
    public: Annotated[bool, typer.Option("--public", help="create the repository public; default: private")] = False,
    revision: Annotated[str | None, typer.Option(help="tag of this version; default: made from the weights")] = None,
    report: Annotated[
        list[Path] | None, typer.Option(help="report of an evaluation for the card, the main one first")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would go up, contact nobody")] = False,
) -> None:
    """Upload a trained model with its card to the Hub and tag it: weights, settings and tokenizer, nothing else."""
    with exit_codes(KEPT):
        tell(f"publish-model: checking {folder}")
        with needs_extra("train"):
            from talking_points.publishing import model_release

        release = model_release.prepare_model(folder, repo, report or ())
        tag = revision or release.tag
        for name, size in release.sizes.items():
            show(f"  {name}: {format_size(size)}")
        if dry_run:
            kind = "public" if public else "private"
            show(f"{folder} would be published as {repo}, revision {tag} (a new repository is {kind})")
            return
        address = model_release.publish_model(folder, repo, tag=tag, card=release.card, private=not public)
    show(f"{folder} published at {address}")


@contextmanager
def _only_publisher(output: Path) -> Iterator[None]:
    """Refuse a folder that a build writes to or another publication reads; one that is closed to us needs no lock."""
    from tasks.running.folder_lock import in_use
    from tasks.running.stages import WORK
    from tasks.running.storage import Storage

    if in_use(Storage(output)):
        raise ConfigError(f"a build is writing to {output}: wait for it, then publish what it has made")
    work = output / WORK
    own = work.is_dir() and not work.is_symlink() and os.access(work, os.W_OK)
    with only_writer(work / "publishing", "a publication") if own else nullcontext():
        yield


@app.command()
def rehydrate(
    dataset: Annotated[str, typer.Argument(help="org/name, or a folder")],
    output: Annotated[Path, typer.Option(help="new folder for the dataset with its images")],
    pascal_part116: Root = None,
    ade20k_part234: Root = None,
    partimagenet: Root = None,
    roots: Annotated[
        list[str] | None, typer.Option("--root", help="NAME=DIR: the folder of any other source; may be repeated")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="tag or commit of a dataset on the Hub")] = None,
) -> None:
    """Put the images back into a dataset that was published without them; every digest is checked."""
    from talking_points.publishing.rehydrate import rehydrate as put_back
    from talking_points.records import REGION_LABELS

    given = {"pascal_part116": pascal_part116, "ade20k_part234": ade20k_part234, "partimagenet": partimagenet}
    with exit_codes():
        for root in roots or ():
            name, separator, folder = root.partition("=")
            if not separator or not folder or name not in REGION_LABELS:
                raise ConfigError(
                    f"expected --root NAME=DIR with a name of {', '.join(REGION_LABELS)}; found {root[:80]!r}"
                )
            given[name] = Path(folder)
        reason = None if Path(dataset).exists() else unavailable(dataset, "dataset")
        if reason:
            raise ConfigError(f"expected the folder of a dataset or one on the Hub, found none at {dataset}: {reason}")
        tell(f"rehydrate: reading {dataset}")
        report = put_back(dataset, {name: root for name, root in given.items() if root}, output, revision=revision)
    counts = ", ".join(f"{name} {count}" for name, count in report.images.items())
    show(f"{report.dataset}: {counted(sum(report.rows.values()), 'row')}, images put back: {counts}")


@app.command()
def audit(
    output: Output,
    share: Annotated[float, typer.Option(help="share of the split's rows to check")] = 0.05,
    task: Annotated[str, typer.Option(help="localize, compare or describe")] = "localize",
    split: Annotated[str, typer.Option(help="of the dataset")] = "test",
    against: Annotated[Path | None, typer.Option(help="compare with the descriptions of this dataset")] = None,
    seed: Annotated[int, typer.Option(help="chooses the rows")] = 0,
    host: Annotated[
        str, typer.Option(help="address to listen on; others than this machine need the printed token")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="where the page is served")] = 8085,
    report: Annotated[bool, typer.Option("--report", help="write the report of the answers so far and end")] = False,
) -> None:
    """Serve a page on which people check descriptions, then write the report."""
    from talking_points.audit.address import bind

    with exit_codes():
        # Before what takes seconds to import and to read.
        bound = None if report else bind(host, port)
    from talking_points.audit.findings import write_report
    from talking_points.audit.items import load_questions
    from talking_points.audit.store import ANSWERS, AnswerStore

    with exit_codes(KEPT):
        if task not in ("localize", "compare", "describe"):
            raise ConfigError(f"expected --task localize, compare or describe, found {task}")
        refuse_closed(output / "audit")
        tell(f"audit: reading {output}")
        questions = load_questions(output, task, share=share, seed=seed, split=split, against=against)  # type: ignore[arg-type]
        if bound is not None:
            with needs_extra("audit"):
                from talking_points.audit.app import serve
            serve(questions, AnswerStore(output / ANSWERS), bound=bound, host=host)
        summary = write_report(output, questions)
    if summary["answers"]:
        show(f"{counted(summary['answers'], 'answer')}; report in {output / 'audit'}")
    else:
        show("no answers yet: run this command without --report, and let people answer at the address that it prints")
