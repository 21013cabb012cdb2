"""Champion and challenger: a newly trained pair of models takes the place of the current one only when it is better.

::

    <folder>/champion.json              which run is the champion, which was before it, and their scores
    <folder>/history.jsonl              one row per finished run
    <folder>/history.md, history.png    the same as a table and as a plot
    <folder>/runs/<fingerprint>/        models, cards and reports of a run; the champion's and the one's before it stay
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from talking_points.config import ConfigError, fingerprint
from talking_points.evaluation.champions import champion_of, read_history
from talking_points.evaluation.config import DescriptionSet, EvaluateConfig
from talking_points.evaluation.digests import digest_code, digest_images, digest_weights
from talking_points.evaluation.evaluate import evaluate
from talking_points.evaluation.reports import Report, compare
from talking_points.evaluation.retraining_config import RetrainConfig
from talking_points.hub_client import bounded_hub
from talking_points.locks import only_writer
from talking_points.plotting import plain_style
from talking_points.training.stages import stage_settings
from talking_points.whole_files import write_json, write_text


class Retraining:
    """One run of champion against challenger in a folder.

    A dataset on the Hub is taken as it is now: its branch or tag is replaced by the commit that it names, so that new
    data is a new run. Raises ``ConfigError`` where the Hub does not tell.
    """

    def __init__(self, config: RetrainConfig) -> None:
        train = config.train.model_copy(update={"revision": _commit(config.train.dataset, config.train.revision)})
        self.config = config.model_copy(update={"train": train})
        self.folder = config.folder
        self.fingerprint = run_fingerprint(self.config)
        self.run = self.run_folder(self.fingerprint)
        self.evaluation = self.run / "evaluation"
        self.train = train.model_copy(update={"output": self.run})
        self.text_only = self.train.text_only()

    def run_folder(self, run: str) -> Path:
        """Where the models, cards and reports of a run are."""
        return self.folder / "runs" / run

    @property
    def written(self) -> dict[str, str]:
        """Paths of what a judged run leaves: its folder, the report of its score, and the history it stands in."""
        report = self.evaluation / "descriptor.json"
        return {"path": str(self.run), "report": str(report), "history": str(self.folder / "history.md")}

    @property
    def champion(self) -> dict[str, Any] | None:
        """The champion's entry, or None before the first run."""
        return champion_of(self.folder)

    def find_finished(self) -> dict[str, Any] | None:
        """The history's entry of this very data, configuration and code: there is nothing to do."""
        return next((row for row in self.history() if row["run"] == self.fingerprint), None)

    def history(self) -> list[dict[str, Any]]:
        """Entries of all finished runs, oldest first."""
        return read_history(self.folder / "history.jsonl")

    def judge(self) -> dict[str, Any]:
        """Evaluate the trained run against the champion on the same points; returns the verdict, not yet in force.

        A run's score is mPCK of its own descriptor's descriptions through its own localizer. The challenger is better
        when the whole confidence interval of the paired difference lies above zero; the first run needs no opponent.
        """
        report = self._report(self.fingerprint)
        champion = self._opponent
        entry: dict[str, Any] = {
            "run": self.fingerprint,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "mpck": report.mpck,
            "interval": report.interval,
            "above_text_only": report.above_text_only,
            "points": report.points,
            "against": None if champion is None else champion["run"],
            "difference": None,
            "promoted": champion is None,
        }
        if champion is not None:
            # Evaluated again, since the test set may have changed with the dataset.
            difference = compare(self._report(champion["run"]), report)
            entry |= {"difference": asdict(difference), "promoted": difference.interval.low > 0}
        return entry

    def conclude(self, entry: dict[str, Any]) -> None:
        """Put the verdict in force: promote the run when it is better, then write the history, which ends the run.

        Raises ``FolderInUseError`` where another run does so, and ``ConfigError`` where one has taken the place of the
        champion that this run was held against.
        """
        with only_writer(self.folder, "a choice of the champion"):
            opponent = self._opponent
            if (None if opponent is None else opponent["run"]) != entry["against"]:
                raise ConfigError(
                    f"{self.folder} has another champion than the one that run {entry['run']} was held against: run "
                    "again to judge it against the new one"
                )
            rows = self.history()
            if entry["promoted"]:
                champion = {"run": self.fingerprint, "mpck": entry["mpck"], "previous": opponent}
                write_json(self.folder / "champion.json", champion)
            lines = [json.dumps(row) + "\n" for row in (*rows, entry)]
            write_text(self.folder / "history.jsonl", "".join(lines))
            self._draw_history()

    @property
    def _opponent(self) -> dict[str, Any] | None:
        """The champion that this run is held against."""
        champion = self.champion
        if champion is not None and champion["run"] == self.fingerprint:
            # An earlier attempt died between promoting this run and writing its history.
            return champion["previous"]
        return champion

    def _report(self, run: str) -> Report:
        """A run's own descriptions through its own localizer, on the current test points, above its own control.

        A champion from before runs had a control is set against that of this run.
        """
        models = self.run_folder(run)
        stage = self.text_only.localizer.stage
        control = models / stage if (models / stage).is_dir() else self.run / stage
        settings = EvaluateConfig(
            output=self.evaluation if run == self.fingerprint else self.run / "champion",
            dataset=self.config.train.dataset,
            revision=self.config.train.revision,
            split=self.config.split,
            limit=self.config.limit,
            localizer=str(models / "localizer"),
            text_only=str(control),
            sets={
                "ground_truth": DescriptionSet(),
                "descriptor": DescriptionSet(descriptor=str(models / "descriptor")),
            },
            features=self.config.train.features,
        )
        return evaluate(settings)["descriptor"]

    def _draw_history(self) -> None:
        rows = self.history()
        lines = [
            "| run | at | mPCK | interval | above text only | against | difference | promoted |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for row in rows:
            change = "" if row["difference"] is None else f"{row['difference']['difference']:+.2f}"
            low, high = row["interval"]["low"], row["interval"]["high"]
            above = row.get("above_text_only")  # the first runs of an older folder have none
            lines.append(
                f"| {row['run']} | {row['at']} | {row['mpck']:.2f} | {low:.1f} to {high:.1f} "
                f"| {'' if above is None else format(above['difference'], '+.2f')} | {row['against'] or ''} "
                f"| {change} | {'yes' if row['promoted'] else 'no'} |"
            )
        write_text(self.folder / "history.md", "\n".join(lines) + "\n")
        self._plot_history(rows)

    @plain_style()
    def _plot_history(self, rows: list[dict[str, Any]]) -> None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 3), layout="constrained")
        axis = figure.subplots()
        places = range(len(rows))
        low = [row["mpck"] - row["interval"]["low"] for row in rows]
        high = [row["interval"]["high"] - row["mpck"] for row in rows]
        axis.errorbar(places, [row["mpck"] for row in rows], yerr=[low, high], fmt="o", color="#888888", capsize=3)
        promoted = [place for place in places if rows[place]["promoted"]]
        axis.plot(promoted, [rows[place]["mpck"] for place in promoted], "o-", color="#2a6f97", label="champion")
        axis.set_xlabel("run")
        axis.set_ylabel("mPCK")
        axis.legend()
        figure.savefig(self.folder / "history.png", dpi=110)


def run_fingerprint(config: RetrainConfig) -> str:
    """Names everything that a run's models depend on: data, configuration and code, each by its content."""
    settings = [stage_settings(config.train, kind) for kind in ("vision", "localizer", "descriptor")]
    data = [digest_images(config.train.vision), digest_weights(config.train.start)]
    return fingerprint([settings, data, config.split, config.limit, digest_code()])


def _commit(dataset: str, revision: str | None) -> str | None:
    """The commit that a revision of a dataset on the Hub names now; a folder's revision as it is."""
    from huggingface_hub import HfApi

    if Path(dataset).is_dir() or re.fullmatch(r"[0-9a-f]{40}", revision or ""):
        return revision
    bounded_hub()
    try:
        return HfApi().dataset_info(dataset, revision=revision).sha
    except Exception as error:
        # The cause is cut off: its frames hold request headers, and so the token.
        raise ConfigError(
            f"cannot find the dataset {dataset} at {revision or 'main'} ({type(error).__name__}): expected the folder "
            "of a finished build, or a dataset on the Hub that this machine can reach and its token may read"
        ) from None
