"""The figures that the paper reports (Talking Points, sections 4.1 to 4.3 and appendix A.4), to stand beside ours."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PaperFigure:
    """One row of one of the paper's tables. ``pck`` are PCK@0.1 and PCK@0.2 where the appendix breaks mPCK down.

    ``key`` names the evaluation of ours that stands beside it. ``test_set`` and ``localizer`` tell rows apart that
    are not on the same points or not through the same localizer, in the tables that have such rows.
    """

    table: str
    method: str
    key: str
    mpck: float
    pck: tuple[float, float] | None = None
    test_set: str = ""
    localizer: str = ""

    @property
    def keys(self) -> tuple[str, str]:
        """Names of the evaluation beside it, the first that exists: one for this table alone, one for all tables."""
        return f"{self.table}_{self.key}", self.key


TITLES = {
    "table_1": "Descriptions located by the Point Localizer, LlamaPointInPart test set (paper, tables 1 and 6)",
    "table_2": "Cross-category generalisation on AP-10K before and after adaptation (paper, tables 2 and 7)",
    "table_3": "The Gaussian mask (paper, tables 3 and 8)",
    "table_4": "Adaptation of the language model (paper, tables 4 and 9)",
    "figure_1": "Descriptions by several authors, 100 test points (paper, figure 1)",
}

FIGURES = (
    PaperFigure("table_1", "OMG-LLaVA", "omg_llava", 31.03, (17.26, 44.80)),
    PaperFigure("table_1", "DAM", "dam", 42.87, (28.24, 57.49)),
    PaperFigure("table_1", "Point Descriptor", "descriptor", 78.13, (63.93, 92.33)),
    PaperFigure("table_1", "ground-truth description", "ground_truth", 78.83, (65.60, 92.05)),
    PaperFigure("table_2", "Canidae, zero-shot", "canidae_zero_shot", 29.85, (15.97, 43.72), "Canidae"),
    PaperFigure("table_2", "Canidae, adapted on Bovidae", "canidae_adapted", 29.96, (16.16, 43.76), "Canidae"),
    PaperFigure("table_2", "Bovidae, zero-shot", "bovidae_zero_shot", 28.56, (15.49, 41.62), "Bovidae"),
    PaperFigure("table_2", "Bovidae, adapted on Canidae", "bovidae_adapted", 30.36, (16.63, 44.09), "Bovidae"),
    PaperFigure("table_3", "without Gaussian mask", "no_gaussian", 23.63, (11.54, 35.72)),
    PaperFigure("table_3", "Point Descriptor", "descriptor", 78.13, (63.93, 92.33)),
    PaperFigure("table_4", "without language-model adaptation", "frozen_lm", 47.60, (27.90, 67.30), localizer="frozen"),
    PaperFigure("table_4", "Point Localizer", "ground_truth", 78.83, (65.60, 92.05)),
    PaperFigure("figure_1", "human", "human", 56.0),
    PaperFigure("figure_1", "ChatGPT-5", "gpt", 62.0),
    PaperFigure("figure_1", "Point Descriptor", "descriptor", 78.0),
    PaperFigure("figure_1", "ground-truth description", "ground_truth", 78.0),
)
"""Values in percent. Bold claims of the text that have no table are left out."""

ROWS = tuple(dict.fromkeys(figure.key for figure in FIGURES))
"""The keys of all rows, each once. With ``<table>_`` before it a key is that of the row in one table alone."""
