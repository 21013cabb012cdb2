"""What was learnt, in the few figures that decide whether learning works: for the small run and for dashboards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from talking_points.evaluation.controls import control_predictions, other_points
from talking_points.evaluation.reports import Report, evaluate_predictions
from talking_points.examples.config import FeatureConfig
from talking_points.examples.inference import describe_points, localize_points
from talking_points.examples.points import PointSet, load_points
from talking_points.examples.words import judge_words
from talking_points.models.descriptor import PointDescriptor
from talking_points.models.localizer import PointLocalizer
from talking_points.training.config import TrainConfig


@dataclass(frozen=True)
class Judges:
    """Two localizers that were trained apart, and where features are kept. ``b`` may be missing in a quick run.

    ``text_only`` is the control of ``a``, a localizer that never sees an image.
    """

    a: PointLocalizer
    b: PointLocalizer | None
    features: FeatureConfig
    text_only: PointLocalizer | None = None

    @classmethod
    def load(cls, a: Path, b: Path | None, features: FeatureConfig, text_only: Path | None = None) -> Judges:
        """From their folders."""
        other, blind = (PointLocalizer.from_pretrained(path).eval() if path else None for path in (b, text_only))
        return cls(PointLocalizer.from_pretrained(a).eval(), other, features, blind)

    @classmethod
    def of_run(cls, config: TrainConfig, *, second: bool, text_only: bool = False) -> Judges:
        """Those of a run: its localizer and, where they are trained, the judge with another seed and the control."""
        b = config.output / "judge-b" if second else None
        blind = config.output / "text-only" if text_only else None
        return cls.load(config.output / "localizer", b, config.features, blind)

    def mpck(self, points: PointSet) -> dict[str, float]:
        """mPCK of the points' texts under each judge, without any control."""
        return {judge: self._report(judge, model, judge, points).mpck for judge, model in self._judges.items()}

    def reports(self, name: str, points: PointSet, references: Sequence[str] | None = None) -> dict[str, Report]:
        """How each judge finds the points' texts; that of ``a`` has all controls where there is a text-only one."""
        controls = {}
        if self.text_only is not None:
            controls["judge_a"] = control_predictions(points, self.a, self.features, self.text_only)
        return {
            judge: self._report(judge, model, name, points, controls=controls.get(judge), references=references)
            for judge, model in self._judges.items()
        }

    @property
    def _judges(self) -> dict[str, PointLocalizer]:
        return {"judge_a": self.a, **({"judge_b": self.b} if self.b is not None else {})}

    def _report(self, judge: str, model: PointLocalizer, name: str, points: PointSet, **given: Any) -> Report:
        return evaluate_predictions(
            name, points, localize_points(model, points, self.features), localizer=judge, **given
        )


def rewritten(points: PointSet, descriptor: Path, features: FeatureConfig, *, withheld: bool = False) -> PointSet:
    """The points with a descriptor's greedy descriptions; empty ones are kept as they are."""
    model = PointDescriptor.from_pretrained(descriptor).eval()
    written = describe_points(model, points, features, withheld=withheld, max_new_tokens=120)
    return points.with_texts({example.id: text for example, text in zip(points.examples, written, strict=True)})


def descriptor_figures(
    points: PointSet, descriptor: Path, judges: Judges, truth: Mapping[str, Report], *, withheld: bool = False
) -> dict[str, Any]:
    """mPCK under every judge, its ratio to ``truth``, that of the ground truth under the same judge, the words' truth,
    and the controls.
    """
    own = rewritten(points, descriptor, judges.features, withheld=withheld)
    references = [example.text for example in points.examples]
    found = judges.reports("descriptor", own, references)
    return {
        "mpck": {judge: report.mpck for judge, report in found.items()},
        "ratio": {judge: report.mpck / truth[judge].mpck for judge, report in found.items()},
        "pck": found["judge_a"].pck,
        "words": found["judge_a"].words,
        "controls": found["judge_a"].controls,
        "above_text_only": found["judge_a"].above_text_only,
    }


def measure_trained(config: TrainConfig, count: int, *, second_judge: bool, ablations: bool) -> dict[str, Any]:
    """The figures of a run's models on ``count`` held-out points: localizer and controls, descriptor, ablations."""
    trained = config.output
    test = load_points(config.dataset, "test", limit=config.limit).sample(count, config.seed)
    judges = Judges.of_run(config, second=second_judge, text_only=True)
    truths = judges.reports("ground_truth", test)
    truth = truths["judge_a"]
    described = descriptor_figures(test, trained / "descriptor", judges, truths)
    words = described["words"]
    figures: dict[str, Any] = {
        "localizer_gt": truth.mpck,
        "localizer_gt_pck": truth.pck,
        **{control: truth.controls[control] for control in ("text_only", "shuffled_images", "centre")},
        "descriptor": {
            **described["ratio"],
            "part_name": words["part_named"],
            **{name: words[name] for name in ("true_words", "colour", "colour_chance")},
        },
        "in_domain": described["mpck"]["judge_a"],
        "details": {"ground_truth": _summary(truth), "descriptor": described},
    }
    if not ablations:
        return figures
    frozen = Judges.load(trained / "frozen-lm", None, config.features).mpck(test)["judge_a"]
    plain = descriptor_figures(test, trained / "no-gaussian", judges, truths)
    nowhere = descriptor_figures(test, trained / "no-location", judges, truths, withheld=True)
    variants = {"descriptor": described, "no_gaussian": plain, "no_location": nowhere}
    figures["details"] |= variants
    return figures | {
        "part_names": {name: found["words"]["part_named"] for name, found in variants.items()},
        "another_point": judges.mpck(other_points(test))["judge_a"],
        "frozen_lm": frozen,
        "no_gaussian": plain["mpck"]["judge_a"],
        "no_location": nowhere["mpck"]["judge_a"],
    }


def hard_figures(config: TrainConfig, dataset: Path, count: int) -> dict[str, Any]:
    """A run's localizer, its controls and the descriptor without a point on ``count`` held-out points elsewhere."""
    judges = Judges.of_run(config, second=False, text_only=True)
    test = load_points(dataset, "test").sample(count, config.seed)
    truth = judges.reports("ground_truth", test)["judge_a"]
    nowhere = rewritten(test, config.output / "no-location", judges.features, withheld=True)
    return {
        "localizer_gt": truth.mpck,
        **{control: truth.controls[control] for control in ("text_only", "centre")},
        "another_point": judges.mpck(other_points(test))["judge_a"],
        "no_location": judges.mpck(nowhere)["judge_a"],
        "points": truth.points,
    }


def adaptation_scores(points: PointSet, descriptor: Path, judges: Judges) -> dict[str, float]:
    """mPCK of one descriptor's texts under every judge, and the share of their true words in percent."""
    own = rewritten(points, descriptor, judges.features)
    words = judge_words([e.text for e in own.examples], [e.facts for e in own.examples])
    return {**judges.mpck(own), "true_words": words.true_words}


def adaptation_figures(start: Mapping[str, float], ends: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """``adaptation_scores`` before adaptation and after it, a seed each.

    After is the mean over the seeds, sd their standard deviation, None for a single one.
    """
    names = {"judge_a": "reward_judge", "judge_b": "independent_judge", "true_words": "true_words"}
    return {
        names[key]: {
            "before": start[key],
            "after": float(np.mean([end[key] for end in ends])),
            "sd": float(np.std([end[key] for end in ends], ddof=1)) if len(ends) > 1 else None,
        }
        for key in start
    }


def _summary(report: Report) -> dict[str, Any]:
    return {
        "mpck": report.mpck,
        "interval": report.interval,
        "pck": report.pck,
        "inside_part": report.inside_part,
        "levels": report.levels,
        "points": report.points,
        "above_text_only": report.above_text_only,
    }
