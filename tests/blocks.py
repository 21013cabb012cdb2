"""The fenced blocks of every page, and how each is tested: run as it is printed, or why not.

``tests/test_blocks.py`` looks at this table and runs most of it.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]

HERE = "tests/test_blocks.py::test_the_pages_work_when_they_are_copied"
SERVED = "tests/flows/test_schedule.py::test_the_commands_of_the_page_speak_to_a_server"
OWN_DATA = "tests/sources/test_own_objects.py::test_the_page_does_what_it_says"
KEYPOINTS = "tests/flows/test_poses.py::test_from_nothing_to_a_report"
SEGMENTATION = "tests/flows/test_segmentation.py::test_the_way_of_the_page_leads_to_an_answer"
INSTRUCTIONS = "tests/flows/test_instructions.py::test_the_page_works_as_printed"
TRAINED = "tests/flows/test_training.py::test_the_commands_of_the_readme_lead_from_a_dataset_to_the_papers_tables"
OUTLINED = "tests/flows/test_own_data.py::test_images_alone_become_questions_and_points"
CLUSTER = "tests/flows/test_clusters.py::test_the_commands_of_the_page_build_on_a_cluster"
LONG = "tests/test_long_blocks.py::test_long_blocks_run_as_they_are_printed"
WINDOWS = "tests/test_platforms.py::test_what_is_typed_on_windows_is_what_is_typed_on_macos"
SETTINGS = "tests/test_blocks.py::test_settings_are_those_that_there_are"


@dataclass(frozen=True)
class Run:
    """Run as it is printed, or with other texts in place of those in ``replaced``, by the test ``by``."""

    by: str
    replaced: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Parsed:
    """Its commands, options, configurations and imports are looked at; ``why`` it is not run."""

    why: str


@dataclass(frozen=True)
class Shown:
    """No code: a picture in characters, or what the block before prints, compared by the test ``by``."""

    by: str | None = None


CLASSES: dict[tuple[str, str], Run | Parsed | Shown] = {
    ("README.md", "make build\nmake test"): Run(HERE, (("make test", "true"),)),
    ("README.md", ". .venv/bin/activate"): Run(HERE),
    ("README.md", 'dataset = datasets.load_dataset("build/llamapointinpart")\ndataset["train"]'): Run(HERE),
    ("README.md", "flowchart LR"): Shown(),
    ("README.md", "talking-points build --config configs/build/rules.yaml"): Run(
        "tests/test_readme.py::test_the_command_for_the_real_datasets_is_a_valid_one",
        (("/data/PascalPart116", "a drawn one"), ("/data/ADE20KPart234", "a drawn one"),
         ("/data/PartImageNet", "a drawn one"), ("/data/llamapointinpart", "a temporary folder")),
    ),
    ("README.md", "<output>/README.md"): Shown(),
    ("README.md", "import datasets\nfrom talking_points import PointDescriptor, PointLocalizer"): Run(HERE),
    ("README.md", "talking-points doctor --paper"): Run(HERE),
    ("README.md", "make vllm-env"): Run(LONG),
    ("README.md", "talking-points convert-omg-llava data"): Run(
        "tests/flows/test_rehearsal.py::test_every_step_of_the_papers_way_runs_on_tiny_models",
        (("data/omg-llava", "a tiny release"),),
    ),
    ("README.md", "make poses"): Run(LONG),
    ("README.md", "make outlines"): Run(LONG),
    ("README.md", "make learn"): Run(LONG),
    ("README.md", "talking-points train-localizer"): Run(
        TRAINED,
        (("configs/train/tiny.yaml", "with two steps on a few drawn images"),),
    ),
    ("CONTRIBUTING.md", "flowchart TB"): Shown(),
    ("docs/keypoints.md", "talking-points answer photo.jpg"): Run(LONG),
    ("docs/keypoints.md", "from PIL import Image\n\nfrom talking_points import PointAnswerer"): Run(LONG),
    ("docs/keypoints.md", "talking-points train-answerer --set poses.own=DIR"): Run(LONG),
    ("docs/keypoints.md", "talking-points doctor --source mp100"): Run(HERE, (("--images 60", "--images 6"),)),
    ("docs/keypoints.md", "talking-points describe-keypoints --set output=build/texts-rules"): Run(HERE),
    ("docs/keypoints.md", "talking-points describe-keypoints --set output=build/texts-model"): Run(
        HERE, (("http://127.0.0.1:8000/v1", "ENDPOINT"), ("text.model=MODEL", "text.model=m"))
    ),
    ("docs/keypoints.md", "talking-points evaluate-poses"): Run(KEYPOINTS),
    ("docs/segmentation.md", "talking-points draw-sample build/sample-plain"): Run(
        SEGMENTATION,
        (("--images 200", "six images"), ("max_steps=300", "two steps"), ("backbone_steps=200", "two steps"),
         ("max_steps=16", "four steps"), ("limit=50", "three questions")),
    ),
    ("docs/segmentation.md", "from PIL import Image\n\nfrom talking_points import Segmenter"): Run(SEGMENTATION),
    ("docs/instructions.md", "talking-points draw-sample build/sample"): Run(INSTRUCTIONS),
    ("docs/instructions.md", "from talking_points.instructions.rows import read_instructions"): Run(INSTRUCTIONS),
    ("docs/instructions.md", "refer/"): Shown(),
    ("docs/models.md", "from talking_points import PointDescriptor, PointLocalizer\n\ndescriptor"): Run(HERE),
    ("docs/models.md", "import talking_points.models.auto"): Run(HERE),
    ("docs/models.md", "talking_points ['PointDescriptor']"): Shown(HERE),
    ("docs/models.md", "talking-points describe build/llamapointinpart"): Run(HERE),
    ("docs/models.md", '{"id": "a", "image": "photos/dog.png", "text": "the left ear of the dog"}'): Run(HERE),
    ("docs/models.md", '"text": "the left ear of the dog", "point": [31.5, 20.25], "model"'): Shown(HERE),
    ("docs/models.md", "from PIL import Image\n\nfrom talking_points import PointDescriptor, describe_rows"): Run(HERE),
    ("docs/models.md", "first 2"): Shown(HERE),
    ("docs/models.md", "talking-points publish-model"): Run(HERE),
    ("docs/models.md", 'model = PointDescriptor.from_pretrained("org/point-descriptor")'): Run(HERE),
    ("docs/operating.md", "python3.11 -m venv .venv"): Run(LONG),
    ("docs/operating.md", "talking-points build --config configs/build/sample.yaml"): Run(HERE),
    ("docs/operating.md", "talking-points server"): Run(
        SERVED, (("talking-points server", "with a free port and folders of the test"),)
    ),
    ("docs/operating.md", "prefect deployment run build-llamapointinpart"): Run(
        SERVED, (("127.0.0.1:4200", "the server's"), ("server-4200", "its port"))
    ),
    ("docs/operating.md", "export PREFECT_API_URL=http://prefect.example:4200/api"): Run(
        SERVED,
        (("prefect.example:4200", "the test's"), ("user:password", "its password"), ("/data/results", "its records"),
         ("--type process", "with --run-once: it ends after one look")),
    ),
    ("docs/operating.md", "talking-points-server-4200.password)\npython -c"): Run(
        SERVED, (("127.0.0.1:4200", "the server's"), ("server-4200", "its port"))
    ),
    ("docs/operating.md", "export PREFECT_RESULTS_LOCAL_STORAGE_PATH"): Run(
        SERVED, (("/data/llamapointinpart", "the output of a run that failed"), (" ID ", "its id"))
    ),
    ("docs/operating.md", "export POSTGRES_PASSWORD"): Run(LONG),
    ("docs/operating.md", "prices:"): Run(SETTINGS),
    ("docs/operating.md", "<folder>/champion.json"): Shown(),
    ("docs/operating.md", "publish:"): Run(SETTINGS),
    ("docs/operating.md", "talking-points evaluate"): Run(
        TRAINED,
        (("limit=100", "as many as there are"),),
    ),
    ("docs/operating.md", "talking-points train-localizer"): Run(LONG),
    ("docs/operating.md", "accelerate launch"): Run(LONG),
    ("docs/operating.md", "remote-file-system/results"): Run(SERVED),
    ("docs/own_data.md", "talking-points adapt-descriptor"): Run(TRAINED),
    ("docs/own_data.md", "talking-points build-instructions"): Run(OUTLINED),
    ("docs/own_data.md", "birds/"): Shown(),
    ("docs/own_data.md", "import json\nfrom pathlib import Path"): Run(OWN_DATA),
    ("docs/own_data.md", "train/robin bird"): Shown(OWN_DATA),
    ("docs/own_data.md", "street/"): Shown(),
    ("docs/own_data.md", "import json\n\ndetections"): Run(OWN_DATA),
    ("docs/own_data.md", "all/robin"): Shown(OWN_DATA),
    ("docs/own_data.md", "# my_package/birds.py"): Run(OWN_DATA),
    ("docs/own_data.md", "[project.entry-points"): Run(OWN_DATA),
    ("docs/clusters.md", "dask scheduler"): Run(CLUSTER),
    ("docs/clusters.md", "dask worker"): Run(CLUSTER, (("scheduler.example:8786", "the scheduler's"),)),
    ("docs/clusters.md", "talking-points build"): Run(
        CLUSTER,
        (("scheduler.example:8786", "the scheduler's"), ("http://prefect.example:4200/api", "the test's"),
         ("s3://points/llamapointinpart", "a temporary folder"), ("/data/PartImageNet", "a drawn one")),
    ),
    ("docs/clusters.md", "resources: {object_caption"): Run(SETTINGS),
    ("docs/clusters.md", "dask_jobqueue.SLURMCluster"): Run(SETTINGS),
    ("docs/clusters.md", "dask_kubernetes.operator.KubeCluster"): Run(SETTINGS),
    ("docs/clusters.md", "runner: {kind: ray"): Run(SETTINGS),
    ("docs/clusters.md", "request_cache: postgresql"): Run(SETTINGS),
    ("docs/texts.md", "generate:"): Run(SETTINGS),
    ("docs/texts.md", "vllm run-batch"): Parsed("wants vLLM and a model"),
    ("docs/texts.md", "python benchmarks/small_model.py"): Run(LONG),
    ("docs/texts.md", "python benchmarks/peers.py"): Run(LONG),
    ("docs/texts.md", "pip install --no-deps --target build/smollm2"): Run(
        LONG,
        (("dataset=build/others", "dataset=build/llamapointinpart-paper"),
         ("dataset=build/rules", "dataset=build/llamapointinpart-paper")),
    ),
    ("docs/texts.md", "judge: {by: localizer"): Run(SETTINGS),
    ("docs/texts.md", "judge: {backend: openai"): Run(SETTINGS),
    ("docs/texts.md", "near_duplicates: true"): Run(SETTINGS),
    ("docs/platforms.md", "python3 -m venv .venv"): Run(LONG),
    ("docs/platforms.md", "py -3.11 -m venv .venv"): Run(WINDOWS),
}  # fmt: skip
"""By page and what the block has in it; of two that fit, the longer text says which."""

ENDS_WITH = {"talking-points localize rows.jsonl": 1, "talking-points doctor --paper": 2}
"""Exit codes that the pages announce, where they are not 0."""


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    text: str

    @property
    def kinds(self) -> list[tuple[str, str]]:
        """The keys of ``CLASSES`` that fit."""
        return [key for key in CLASSES if key[0] == self.page and key[1] in self.text]

    @property
    def kind(self) -> Run | Parsed | Shown | None:
        """Its class: that of the longest text that it has in it."""
        return CLASSES[max(self.kinds, key=lambda key: len(key[1]))] if self.kinds else None

    @property
    def commands(self) -> list[str]:
        """What is typed: continuation lines joined."""
        return self.text.replace("\\\n", " ").splitlines() if self.language in ("bash", "powershell") else []

    def typed(self, *values: object) -> list[str]:
        """Its commands, with ``values`` in place of the texts that its class replaces, or with those that it names."""
        assert isinstance(self.kind, Run | Shown)
        replaced = self.kind.replaced if isinstance(self.kind, Run) else ()
        lines = self.commands
        for (written, _), value in zip(replaced, values or [other for _, other in replaced], strict=True):
            lines = [line.replace(written, str(value)) for line in lines]
        return lines

    def printed_by(self, test: str) -> bool:
        return self.kind is not None and not isinstance(self.kind, Parsed) and self.kind.by == test


def read_blocks() -> Iterator[Block]:
    for page in PAGES:
        text = (ROOT / page).read_text()
        for found in re.finditer(r"^( *)(`{3,})(\w*)\n(.*?)^\1\2$", text, flags=re.DOTALL | re.MULTILINE):
            yield Block(page, text[: found.start()].count("\n") + 1, found[3], found[4])


BLOCKS = list(read_blocks())


def printed_by(test: str) -> list[Block]:
    """The blocks that a test runs."""
    return [block for block in BLOCKS if block.printed_by(test)]


def run_lines(lines: list[str], folder: Path, environment: Mapping[str, str]) -> str:
    """Run lines in one fresh shell, each of which ends as the page says. Returns what they print."""
    script = []
    for line in lines:
        code = next((code for start, code in ENDS_WITH.items() if line.startswith(start)), 0)
        script += [line, f'code=$?; [ $code = {code} ] || {{ echo "exit code $code: "{shlex.quote(line)}; exit 1; }}']
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)], cwd=folder, env=environment, capture_output=True, text=True, timeout=580,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout
