"""Every fenced block of every page is run as it is printed, or says why it is not; a new one must find its class here.

What is run here is run in one folder with a home of its own, by one shell, on one build and one pair of tiny models.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from talking_points import PointDescriptor, PointLocalizer
from talking_points.build_config import BuildConfig
from talking_points.evaluation.retraining import RetrainConfig
from tests.publishing.local_hub import LocalHub
from tests.publishing.test_model_card import report
from tests.test_readme import PAGES, ROOT
from tests.training.conftest import small

HERE = "tests/test_blocks.py::test_the_pages_work_when_they_are_copied"
OWN_DATA = "tests/sources/test_own_objects.py::test_the_page_does_what_it_says"
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
    ("README.md", "$ git clone <this repository>"): Run(
        HERE, (("git clone <this repository> talking-points && cd talking-points", "cd project"),
               ("make test ", "true ")),
    ),
    ("README.md", "$ . .venv/bin/activate"): Run(HERE),
    ("README.md", 'dataset = datasets.load_dataset("build/llamapointinpart")\ndataset["train"]'): Run(HERE),
    ("README.md", "flowchart LR"): Shown(),
    ("README.md", "$ talking-points build --config configs/build/rules.yaml"): Run(
        "tests/test_readme.py::test_the_command_for_the_real_datasets_is_a_valid_one",
        (("/data/PascalPart116", "a drawn one"), ("/data/ADE20KPart234", "a drawn one"),
         ("/data/PartImageNet", "a drawn one"), ("/data/llamapointinpart", "a temporary folder")),
    ),
    ("README.md", "<output>/README.md"): Shown(),
    ("README.md", "import datasets\nfrom talking_points import PointDescriptor, PointLocalizer"): Run(HERE),
    ("README.md", "$ talking-points doctor --paper"): Parsed("real datasets and models of 7B"),
    ("README.md", "$ talking-points convert-omg-llava data"): Run(
        "tests/flows/test_rehearsal.py::test_every_step_of_the_papers_way_runs_on_tiny_models",
        (("data/omg-llava", "a tiny release"),),
    ),
    ("README.md", "$ make poses"): Parsed("a quarter of an hour; tests/flows/test_poses.py runs it smaller"),
    ("README.md", "$ make outlines"): Parsed("twenty minutes; tests/flows/test_outlines.py runs it smaller"),
    ("docs/keypoints.md", "$ talking-points doctor --source mp100"): Run(HERE, (("--images 60", "--images 6"),)),
    ("docs/keypoints.md", "$ talking-points describe-keypoints --set output=build/texts-rules"): Run(HERE),
    ("docs/keypoints.md", "$ talking-points describe-keypoints --set output=build/texts-model"): Parsed(
        "wants a language model; tests/tasks/test_keypoint_texts.py has a small one"
    ),
    ("docs/keypoints.md", "$ talking-points evaluate-poses"): Parsed(
        "wants MP-100 and models; tests/flows/test_poses.py has small ones"
    ),
    ("docs/segmentation.md", "$ talking-points draw-sample build/sample-plain"): Run(
        "tests/flows/test_segmentation.py::test_the_way_of_the_page_leads_to_an_answer",
        (("--images 200", "six images"), ("max_steps=300", "two steps"), ("backbone_steps=200", "two steps"),
         ("max_steps=16", "four steps"), ("limit=50", "three questions")),
    ),
    ("docs/segmentation.md", "from PIL import Image\n\nfrom talking_points import Segmenter"): Run(
        "tests/flows/test_segmentation.py::test_the_way_of_the_page_leads_to_an_answer",
    ),
    ("docs/instructions.md", "$ talking-points draw-sample build/sample"): Run(
        "tests/flows/test_instructions.py::test_the_page_works_as_printed",
    ),
    ("docs/instructions.md", "from talking_points.instructions.rows import read_instructions"): Run(
        "tests/flows/test_instructions.py::test_the_page_works_as_printed",
    ),
    ("docs/instructions.md", "refer/"): Shown(),
    ("docs/own_data.md", "$ talking-points build-instructions"): Parsed(
        "wants a trained segmenter; tests/sources/test_own_images.py has one that is told what to say"
    ),
    ("README.md", "$ make learn"): Parsed("40 minutes; what it calls is run smaller in tests/flows/test_learn.py"),
    ("README.md", "$ talking-points train-localizer"): Run(
        "tests/flows/test_training.py::test_the_commands_of_the_readme_lead_from_a_dataset_to_the_papers_tables",
        (("configs/train/tiny.yaml", "with two steps on a few drawn images"),),
    ),
    ("CONTRIBUTING.md", "flowchart TB"): Shown(),
    ("docs/models.md", "from talking_points import PointDescriptor, PointLocalizer\n\ndescriptor"): Run(HERE),
    ("docs/models.md", "import talking_points.models.auto"): Run(HERE),
    ("docs/models.md", "talking_points ['PointDescriptor']"): Shown(HERE),
    ("docs/models.md", "$ talking-points describe build/llamapointinpart"): Run(HERE),
    ("docs/models.md", '{"id": "a", "image": "photos/dog.png", "text": "the left ear of the dog"}'): Run(HERE),
    ("docs/models.md", '"text": "the left ear of the dog", "point": [31.5, 20.25], "model"'): Shown(HERE),
    ("docs/models.md", "from PIL import Image\n\nfrom talking_points import PointDescriptor, describe_rows"): Run(HERE),
    ("docs/models.md", "first 2"): Shown(HERE),
    ("docs/models.md", "$ talking-points publish-model"): Run(HERE),
    ("docs/models.md", 'model = PointDescriptor.from_pretrained("org/point-descriptor")'): Run(HERE),
    ("docs/operating.md", "$ python3.11 -m venv .venv"): Parsed("installs from a package index"),
    ("docs/operating.md", "$ talking-points build --config configs/build/paper.yaml"): Parsed("models of 80 GB"),
    ("docs/operating.md", "$ talking-points server"): Parsed(
        "serves until Ctrl-C; tests/commands/test_closed_api.py and the tests of flows start and use it"
    ),
    ("docs/operating.md", "$ prefect deployment run build-llamapointinpart"): Parsed("asks that server"),
    ("docs/operating.md", "talking-points-server-4200.password)\n$ python -c"): Parsed("asks that server"),
    ("docs/operating.md", "$ export PREFECT_API_URL=http://prefect.example:4200/api"): Parsed("a server elsewhere"),
    ("docs/operating.md", "$ export POSTGRES_PASSWORD"): Parsed("needs Docker; tests/docker/ looks at its files"),
    ("docs/operating.md", "$ export PREFECT_RESULTS_LOCAL_STORAGE_PATH"): Parsed("the id is that of one's own run"),
    ("docs/operating.md", "prices:"): Run(SETTINGS),
    ("docs/operating.md", "<folder>/champion.json"): Shown(),
    ("docs/operating.md", "publish:"): Run(SETTINGS),
    ("docs/operating.md", "$ talking-points evaluate"): Parsed("wants descriptions that people wrote"),
    ("docs/operating.md", "$ talking-points train-localizer"): Parsed("wants four GPUs"),
    ("docs/operating.md", "$ accelerate launch"): Parsed("wants sixteen GPUs on two machines"),
    ("docs/operating.md", "$ python -c"): Parsed("wants an object store; tests/flows/test_object_store.py has one"),
    ("docs/own_data.md", "$ talking-points adapt-descriptor"): Parsed(
        "wants trained models; tests/flows/test_training.py adapts one"
    ),
    ("docs/own_data.md", "birds/"): Shown(),
    ("docs/own_data.md", "import json\nfrom pathlib import Path"): Run(OWN_DATA),
    ("docs/own_data.md", "train/robin bird"): Shown(OWN_DATA),
    ("docs/own_data.md", "street/"): Shown(),
    ("docs/own_data.md", "import json\n\ndetections"): Run(OWN_DATA),
    ("docs/own_data.md", "all/robin"): Shown(OWN_DATA),
    ("docs/own_data.md", "# my_package/birds.py"): Run(OWN_DATA),
    ("docs/own_data.md", "[project.entry-points"): Run(OWN_DATA),
    ("docs/clusters.md", "$ dask scheduler"): Parsed("wants machines; tests/flows/test_clusters.py has some"),
    ("docs/clusters.md", "resources: {object_caption"): Run(SETTINGS),
    ("docs/clusters.md", "dask_jobqueue.SLURMCluster"): Run(SETTINGS),
    ("docs/clusters.md", "dask_kubernetes.operator.KubeCluster"): Run(SETTINGS),
    ("docs/clusters.md", "runner: {kind: ray"): Run(SETTINGS),
    ("docs/clusters.md", "request_cache: postgresql"): Run(SETTINGS),
    ("docs/texts.md", "generate:"): Run(SETTINGS),
    ("docs/texts.md", "vllm run-batch"): Parsed("wants vLLM and a model"),
    ("docs/texts.md", "python benchmarks/peers.py"): Parsed("installs other tools and takes minutes"),
    ("docs/texts.md", "judge: {by: localizer"): Run(SETTINGS),
    ("docs/texts.md", "judge: {backend: openai"): Run(SETTINGS),
    ("docs/texts.md", "near_duplicates: true"): Run(SETTINGS),
    ("docs/platforms.md", "python3 -m venv .venv"): Parsed("installs from a package index"),
    ("docs/platforms.md", "py -3.11 -m venv .venv"): Parsed("wants Windows"),
}  # fmt: skip
"""By page and what the block has in it; of two that fit, the longer text says which."""

ENDS_WITH = {"talking-points localize rows.jsonl": 1}
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
        """What is typed: continuation lines joined, output left out."""
        if self.language == "sh":
            return self.text.splitlines()
        joined = self.text.replace("\\\n", " ")
        return [line[2:] for line in joined.splitlines() if line.startswith("$ ")]

    def printed_by(self, test: str) -> bool:
        return self.kind is not None and not isinstance(self.kind, Parsed) and self.kind.by == test


def read_blocks() -> Iterator[Block]:
    for page in PAGES:
        text = (ROOT / page).read_text()
        for found in re.finditer(r"^( *)(`{3,})(\w*)\n(.*?)^\1\2$", text, flags=re.DOTALL | re.MULTILINE):
            yield Block(page, text[: found.start()].count("\n") + 1, found[3], found[4])


BLOCKS = list(read_blocks())


def test_every_block_has_a_class() -> None:
    lost = [f"{block.page}:{block.line}: {block.text.splitlines()[0]}" for block in BLOCKS if block.kind is None]
    assert not lost, f"say in CLASSES how these are tested: {lost}"
    used = {max(block.kinds, key=lambda key: len(key[1])) for block in BLOCKS}
    assert set(CLASSES) == used, "classes of blocks that there are not"
    assert len(used) == len(BLOCKS), "one class for each"


def test_classes_keep_their_word() -> None:
    for block in BLOCKS:
        kind, place = block.kind, f"{block.page}:{block.line}"
        if isinstance(kind, Run | Shown) and kind.by:
            file, _, name = kind.by.partition("::")
            assert f"def {name}(" in (ROOT / file).read_text(), f"{place}: no test {kind.by}"
        if isinstance(kind, Run):
            assert all(written in block.text for written, _ in kind.replaced), place
        if isinstance(kind, Shown):
            assert block.language in ("", "mermaid", "json"), f"{place}: {block.language} is code"


def test_commands_are_what_a_shell_reads() -> None:
    lines = [command.replace("<this repository>", "here") for block in BLOCKS for command in block.commands]
    assert len(lines) > 30
    subprocess.run(["bash", "-n"], input="\n".join(lines), text=True, check=True, timeout=60)
    for words in (shlex.split(line, comments=True) for line in lines):
        if words[0] == "python" and "-c" in words:
            compile(words[words.index("-c") + 1], "a command", "exec")


def test_python_compiles_and_imports_what_there_is() -> None:
    for block in (block for block in BLOCKS if block.language == "python"):
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    importlib.import_module(alias.name)
            elif isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), f"{block.page}:{block.line}"


def test_settings_are_those_that_there_are() -> None:
    read = []
    for block in BLOCKS:
        if block.language == "yaml":
            values = yaml.safe_load(block.text)
            if "publish" in values:
                RetrainConfig.model_fields["publish"].annotation.model_validate(values["publish"])  # type: ignore[union-attr]
            else:
                BuildConfig.model_validate({"output": "x", **values})
            read.append(block)
        elif block.language == "toml":
            tomllib.loads(block.text)
        elif block.language == "json":
            assert all(isinstance(json.loads(line), dict) for line in block.text.splitlines())
    assert read == [block for block in BLOCKS if block.printed_by(SETTINGS)]


# ------------------------------------------------------------------ run as printed

SESSIONS = """
import contextlib, io, json, sys
printed, sessions = [], {}
for page, code in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(code, page, "exec"), sessions.setdefault(page, {}))
    printed.append(out.getvalue())
print(json.dumps(printed))
"""
"""Runs the Python of each page as one session, and says what every block has printed."""


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """What a clone holds and the first blocks need, and the environment that `make build` would make in it."""
    project = tmp_path / "project"
    project.mkdir()
    for name in (
        "Makefile",
        "pyproject.toml",
        "requirements.lock",
        "requirements-base.lock",
        "configs",
        "prefect.yaml",
    ):
        source = ROOT / name
        shutil.copytree(source, project / name) if source.is_dir() else shutil.copy(source, project / name)
    (project / ".venv").mkdir()
    for part in Path(sys.prefix).iterdir():
        if not part.name.startswith("."):
            (project / ".venv" / part.name).symlink_to(part)
    for made in (".base", ".dev"):
        (project / ".venv" / made).touch()
    (tmp_path / "home").mkdir()
    return project


def run_lines(lines: list[str], folder: Path, environment: dict[str, str]) -> str:
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


def prepare(project: Path) -> None:
    """What `make learn`, an evaluation and a reader with a photo would have left."""
    for name, model in (("descriptor", small(PointDescriptor, max_new_tokens=4)), ("localizer", small(PointLocalizer))):
        model.save_pretrained(project / "build" / "learn" / "train" / name)
    scores = report("descriptor", localizer="x", images=9, levels={}, words={}, categories={}, undescribed=0)
    (project / "build" / "evaluation").mkdir()
    (project / "build" / "evaluation" / "descriptor.json").write_text(json.dumps({**scores, "predictions": []}))
    (project / "photos").mkdir()
    Image.fromarray(np.zeros((60, 90, 3), np.uint8)).save(project / "photos" / "dog.png")


@pytest.mark.slow
def test_the_pages_work_when_they_are_copied(copied: Path, tmp_path: Path) -> None:
    own = [block for block in BLOCKS if block.printed_by(HERE)]
    environment = {"HOME": str(tmp_path / "home"), "PATH": os.defpath, "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1"}
    first = [line for block in own if block.page == "README.md" for line in _typed(block)]
    printed = run_lines(first, tmp_path, environment | {"IMAGES": "6", "HF_HUB_OFFLINE": "1"})
    assert re.search(r"dataset: .*build/llamapointinpart", printed)
    assert "index.html" in printed

    prepare(copied)
    asked, answered = [block for block in own if block.language == "json"]
    (copied / "rows.jsonl").write_text(asked.text)
    with LocalHub(tmp_path / "hub") as hub:
        environment |= hub.environment(tmp_path / "home" / "hub")
        later = [line for block in own if block.page != "README.md" for line in _typed(block)]
        printed = run_lines([". .venv/bin/activate", *later], copied, environment)
        assert "org/point-descriptor" in printed
        places = [json.loads(line) for line in (copied / "build" / "places.jsonl").read_text().splitlines()]
        assert [list(line) for line in places] == [list(json.loads(line)) for line in answered.text.splitlines()]
        assert places[2] == json.loads(answered.text.splitlines()[2]) | {"error": places[2]["error"]}
        code = [block for block in own if block.language == "python"]
        done = subprocess.run(
            [copied / ".venv" / "bin" / "python", "-c", SESSIONS], cwd=copied, env=environment, capture_output=True,
            input=json.dumps([(block.page, block.text) for block in code]), text=True, timeout=300, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for block, said in zip(code, json.loads(done.stdout), strict=True):
        following = own[own.index(block) + 1 :][:1]
        if following and isinstance(following[0].kind, Shown) and not following[0].language:
            assert said == following[0].text, f"{block.page}:{block.line}"
        elif block.page == "README.md" and "PointLocalizer" in block.text:
            assert "is found at" in said


def _typed(block: Block) -> list[str]:
    """A block's commands with what its class puts in place of some of their texts."""
    assert isinstance(block.kind, Run | Shown)
    lines = block.commands
    for written, other in block.kind.replaced if isinstance(block.kind, Run) else ():
        lines = [line.replace(written, other) for line in lines]
    return lines
