"""The ``talking-points`` command line: the same flows as the deployments, run here and now.

Exit codes: 0 done; 1 shards failed or too many rows were rejected; 2 wrong input or configuration; 130 stopped by
Ctrl-C. Heavy imports (Prefect, torch) happen inside the commands that need them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from commands.processes import STOPPED, end_at_once, keep_what_is_made, leave_at_once

with end_at_once():  # Ctrl-C in this part of a second is no error either
    import typer

    from commands import (  # noqa: F401  (add commands)
        answer,
        instruction_commands,
        model_commands,
        outline_points,
        paper_commands,
        publish_commands,
        report_commands,
        segment,
        training_commands,
        view_commands,
    )
    from commands.console import KEPT, Config, Overrides, Verbose, app, end_full, exit_codes
    from talking_points.config import ConfigError, load_config
    from talking_points.owners import refuse_closed
    from talking_points.terminal import show, show_json, tell


@app.command()
def build(
    config: Config = "configs/build/rules.yaml",
    overrides: Overrides = None,
    limit: Annotated[int | None, typer.Option(help="preview: at most so many points")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="validate everything and print the plan")] = False,
    verbose: Verbose = False,
) -> None:
    """Build the dataset: sources, keypoints, captions, descriptions, verification, Parquet, card."""
    given = [*(overrides or []), *([f"limit={limit}"] if limit is not None else [])]
    with exit_codes(KEPT):
        from talking_points.build_config import BuildConfig

        settings = load_config(BuildConfig, config, given)
        if dry_run:
            from commands.plan import print_plan

            print_plan(settings)
            return
        tell("build: checking configuration, sources and output")
        with end_at_once(), keep_what_is_made():
            from commands.build import build_dataset

        result = build_dataset(settings, config, given, verbose)
    show_json(result)


@app.command()
def init(folder: Annotated[Path, typer.Argument(help="where they go; made when it is not there")] = Path()) -> None:
    """Write the shipped configurations and deployments into a folder, to edit them there."""
    with exit_codes():
        from commands.init import write_project

        for path in write_project(folder):
            show(path)


@app.command("draw-sample")
def draw_sample_command(
    folder: Annotated[Path, typer.Argument(help="where the drawn datasets go")],
    images: Annotated[int, typer.Option(help="images per source", min=1)] = 60,
    seed: Annotated[int, typer.Option(help="chooses what is drawn")] = 0,
    sources: Annotated[str | None, typer.Option(help="names of sources with commas between; all when left out")] = None,
    variant: Annotated[
        str, typer.Option(help="standard, hard: several like objects, or plain: few classes, any size")
    ] = "standard",
    workers: Annotated[int, typer.Option(min=1, help="processes that draw")] = 2,
) -> None:
    """Draw annotated sample sources in the layouts of the real datasets.

    What was drawn there before is replaced, and named; anything else that lies there is left alone and refused.
    """
    from rich.progress import Progress

    from talking_points.redacted_console import RedactedConsole
    from talking_points.sources.drawn import draw_sample, drawn_roots, is_drawn

    console = RedactedConsole(stderr=True)
    with exit_codes(), Progress(console=console, disable=not console.is_terminal) as bars:
        bar = bars.add_task("drawing", total=None)

        def draw(done: int, total: int) -> None:
            bars.update(bar, completed=done, total=total)

        refuse_closed(folder)
        try:
            names = list(drawn_roots(folder)) if sources is None else [name.strip() for name in sources.split(",")]
            earlier = [path for name, path in drawn_roots(folder).items() if name in names and is_drawn(path)]
            if earlier:
                tell(f"replaces what was drawn before in {', '.join(map(str, earlier))}")
            roots = draw_sample(folder, images, seed, variant=variant, workers=workers, sources=names, progress=draw)
        except (ValueError, OSError) as error:
            raise ConfigError(f"cannot draw into {folder}: {error}") from error
    for name, root in roots.items():
        show(f"{name}: {root}")


@app.command()
def status(
    output: Annotated[str, typer.Argument(help="output folder of a build or a training")],
    rejected: Annotated[bool, typer.Option("--rejected", help="list the rejected rows")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the status as one line of JSON")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="draw it anew until it ends")] = False,
) -> None:
    """Show what a build or a training has done, does and has to do, stage by stage."""
    with exit_codes():
        from commands import status
        from commands.outputs import open_output

        if rejected + as_json + watch > 1:
            raise ConfigError("expected one of --rejected, --json and --watch, found more: ask for one after the other")
        view = status.watch_status if watch else status.print_status
        view = status.print_rejected if rejected else status.print_status_json if as_json else view
        view(open_output(output))


@app.command()
def stop(output: Annotated[str, typer.Argument(help="output of the build: folder or URL")]) -> None:
    """Ask the build that writes to an output to stop, on whatever machine it runs; what is finished is kept."""
    with exit_codes():
        from commands.outputs import open_output
        from commands.status import stop_build

        show(stop_build(open_output(output)))


@app.command()
def server(
    home: Annotated[Path, typer.Option(help="folder that deployments run in")] = Path(),
    port: Annotated[int, typer.Option(min=1, max=65535, help="where the server listens")] = 4200,
    results: Annotated[Path | None, typer.Option(help="result records, shared by all workers")] = None,
) -> None:
    """Run the orchestrator with its UI, a worker and all deployments on this machine, until Ctrl-C."""
    with exit_codes("closed"):
        from commands.server import serve

        serve(home, port, results)


@app.command()
def deploy(
    home: Annotated[Path, typer.Option(help="folder that deployments run in", envvar="TALKING_POINTS_HOME")] = Path(),
    results: Annotated[
        Path, typer.Option(help="result records, shared by all workers", envvar="TALKING_POINTS_RESULTS")
    ] = Path("build/results"),
) -> None:
    """Create or update the work pool, the deployments and the automation on the server PREFECT_API_URL names."""
    with exit_codes():
        from commands.server import deploy_to_configured

        deploy_to_configured(home.absolute(), results.absolute())


@app.command("notify")
def notify_command(
    block: Annotated[str, typer.Argument(help="a saved notification block, e.g. slack-webhook/ops")],
) -> None:
    """Send a message through a notification block of the configured server whenever a run fails or crashes."""
    with exit_codes():
        from commands.notifications import notify

        show(f"automation '{notify(block)}' sends to {block}")


@app.command()
def doctor(
    paper: Annotated[
        bool, typer.Option("--paper", help="list the datasets and weights of the paper's way; downloads nothing")
    ] = False,
    source: Annotated[
        tuple[str, Path] | None,
        typer.Option("--source", help="mp100 and its folder: every category's images, found and missing, and whose"),
    ] = None,
) -> None:
    """Check this machine: Python, libraries, extras, GPU, login of the Hub, Prefect server, disk."""
    if source is not None:
        with exit_codes():
            from commands.source_check import print_source

            print_source(*source)
        return
    if paper:
        with exit_codes():
            from commands.paper_commands import print_resources

            print_resources()
        return
    with exit_codes():
        tell("doctor: looking at what is installed, which takes some seconds")
    from commands.doctor import examine

    raise typer.Exit(0 if examine() else 1)


def main() -> None:
    """Entry point of the ``talking-points`` command."""
    try:
        app()
    except OSError as error:
        # What was printed last has met a full disk.
        end_full(error)
    except KeyboardInterrupt:  # while the commands are put together; once one runs, ``exit_codes`` answers
        tell("stopped; nothing was begun")
        leave_at_once(STOPPED)
    except SystemExit as end:
        from commands.orchestrator import own_server_is_gone

        if end.code == STOPPED and own_server_is_gone():
            leave_at_once(STOPPED)
        raise


if __name__ == "__main__":
    main()
