"""Everyday mistakes: each ends with exit code 2 within seconds, and says what was expected, found, and what to do."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from talking_points.models.capellm.release_files import PARTS
from tests.patience import patient

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

REPOSITORY = Path(__file__).resolve().parents[2]
CPU_SECONDS, SECONDS = 3.0, 25.0
"""What an answer may take: of a processor, and by the clock of a machine that does other things as well."""

BUILD = "build --config build/rules.yaml -s output={t}/out -s sources.pascal_part116.root={pascal}"
BUILD += " -s sources.ade20k_part234.root=null -s sources.partimagenet.root=null"

ASK = "build-instructions -s output={t}/out -s sources.pascal_part116.root={pascal}"

MISTAKES = {
    # What is typed.
    "biuld": "Did you mean 'build'",
    "build --limits 3": "--limit",
    "build --config build/ruls.yaml": "no configuration at build/ruls.yaml",
    "build --config {t}/none.yaml": "expected a YAML file",
    "build --config {t}": "found the folder {t}",
    "build --config {t}/broken.yaml": "not valid YAML",
    "build --config {t}/latin.yaml": "UTF-8",
    "build --config {t}/list.yaml": "expected a mapping",
    BUILD + " -s limit": "expected key=value",
    BUILD + " -s limit=many": "limit",
    BUILD + " -s limit=0": "greater than or equal to 1",
    BUILD + " -s verifcation.min_words=3": "did you mean 'verification'",
    BUILD + " -s refine.bakcend=rules": "did you mean 'backend'",
    BUILD + " -s refine.backend=gpt": "refine.backend",
    BUILD + " -s refine.backend=openai -s refine.model=x": "needs .endpoint",
    BUILD + " -s refine.prompt=nowhere.jinja": "nowhere.jinja",
    "build --output {t}/out": "--set output=VALUE",
    "build {t}/mine": "a configuration is named by --config FILE",
    BUILD + " -s sources.pascal_part116.rot=x": "did you mean 'root'",
    BUILD + " -s refine=rules": "such as refine.backend=VALUE",
    BUILD + " -s output=": "expected a folder whose name",
    "build --config {t}/tab.yaml": "line 3 is indented with a tab",
    "build --config train/tiny.yaml": "These are settings of train-localizer",
    "evaluate --config build/rules.yaml": "These are settings of build: was another --config meant?",
    "plan --config train/segment_tiny.yaml": "These are settings of train-segmenter",
    "describe {image} -5 2 --model {t}/descriptor": "coordinates count from 0",
    "localize {image} the nose --model {t}/localizer": "put what has spaces in it into quotes",
    "status {t}/full -w": "is --watch meant?",
    "describe {image} 5 2": "Name the folder of a trained model",
    "segment {image} --model {t}/descriptor --point 10px 20px": "with spaces between them: --point X Y",
    "segment {image} --model {t}/descriptor --box 1,2,3,4": "4 arguments; write numbers of pixels",
    "status {t}/full --watch --json": "expected one of --rejected, --json and --watch",
    # What is read.
    "build --config build/rules.yaml -s output={t}/out": "no source has a root",
    "build --config build/sample.yaml -s output={t}/out": "talking-points draw-sample build/sample",
    "build --config build/plain.yaml -s output={t}/out": "draw-sample build/sample-plain --variant plain",
    "build --config nope.yaml": "no configuration at nope.yaml",
    BUILD + " -s sources.pascal_part116.root=null": "no source has a root",
    BUILD + " -s sources.pascal_part116.root={t}/nowhere": "expected the dataset folder",
    BUILD + " -s sources.pascal_part116.root={t}/empty": "expected",
    BUILD + " -s sources.pascal_part116.root={partimagenet}": "expected",
    # Of questions about regions.
    "build-instructions -s output={t}/out": "no source has a root",
    "build-instructions --config build/instructions_sample.yaml -s output={t}/out": "draw-sample build/sample'",
    ASK + " -s sources.pascal.root=x": "no source of regions 'pascal'",
    ASK + " -s points={t}/nowhere": "no finished dataset",
    ASK + " -s instructions.phrasings={t}/list.yaml": "expected a mapping of kinds",
    ASK + " -s instructions.phrasings=mine": "expected 'instructions', or the path",
    ASK + " -s instructions.outlines.tolerance=0.5": "less than 0.5",
    ASK + " -s instructions.outlines.decimals=1": "greater than or equal to 2",
    ASK + " -s instructions.kinds.text_to_masc=1": "instructions.kinds",
    ASK + " -s instructions.kinds.text_to_mask=0": "expected weights",
    ASK + " -s sources.refcoco.root={pascal}": "refs(unc).p",
    ASK + " -s sources.images.root={pascal} -s sources.images.options.segmenter={t}/nowhere": "expected a Segmenter",
    "rehydrate {t}/full --output {t}/x --root nowhere": "expected --root NAME=DIR",
    "outline-points {t}/full --segmenter {t}/nowhere": "expected a Segmenter",
    # Of clusters, and of stopping.
    BUILD + " -s runner.kind=slurm": "'threads', 'processes', 'dask' or 'ray'",
    BUILD + " -s runner.kind=dask -s runner.address=nowhere": "expected the form tcp://HOST:8786",
    BUILD
    + " -s runner.kind=dask -s runner.address=tcp://127.0.0.1:9": "scheduler does not answer at tcp://127.0.0.1:9",
    BUILD + " -s runner.kind=dask -s runner.cluster_class=os.system": "found 'os.system'",
    BUILD + " -s runner.workers=0": "greater than or equal to 1",
    BUILD + " -s request_cache=mysql://x": "expected postgresql://",
    "stop {t}/nowhere": "no build is writing to",
    "stop {t}/full": "no build is writing to",
    # Of named keypoints and outlines.
    "answer {image} nose --model {t}/nowhere": "expected a Point Answerer",
    "answer {image} nose --model {t}/descriptor": "is a Point Descriptor",
    "answer {image} --model {t}/descriptor": "either the name of a keypoint or --all",
    "answer {image} nose --all bird_body --model {t}/descriptor": "found both",
    "answer {image} --all unicorn --model {t}/descriptor": "found 'unicorn'",
    "answer {image} nose --model {t}/descriptor --figure out.jgp": ".png",
    "describe-keypoints -s output={t}/k -s sets=[unicorn]": "found ['unicorn']",
    "describe-keypoints -s output={t}/k -s author=model": "expected a language model in text",
    "describe-keypoints -s output={t}/k -s author=descriptor -s descriptor={t}/descriptor": "poses.root",
    "doctor --source mp100 {t}/empty": "mp100_split",
    "doctor --source mp101 {t}/empty": "expected --source mp100 DIR",
    "segment {image} --model {t}/descriptor": "expected what to outline in words",
    "segment {image} dog --point 5 5 --model {t}/descriptor": "found words and --point",
    "segment {image} --point 900 5 --model {t}/descriptor": "90x60",
    "segment {image} --box 1 1 0 5 --model {t}/descriptor": "a box with a size",
    "segment {image} dog --model {t}/descriptor --mask out.jgp": "ends in .png",
    "segment {image} dog --model org/name": "HF_HUB_OFFLINE",
    # Where it goes.
    BUILD + " -s output={t}/file": "found the file",
    BUILD + " -s output={t}/file/out": "found the file",
    BUILD + " -s output={t}/full": "thesis.tex",
    BUILD + " -s output=nothing://bucket/x": "nothing://bucket/x",
    "draw-sample {t}/file --images 1": "cannot draw into",
    "init {t}/mine": "prefect.yaml",
    # What is not there to be looked at.
    "status {t}/empty": "no build found",
    "status {t}/nowhere": "no build found",
    "report {t}/empty": "manifest.json",
    "compare {t}/empty {t}/nowhere": "manifest.json",
    "audit {t}/empty --report": "{t}/empty",
    "audit {t}/empty --task look": "expected --task",
    "audit {t}/empty --port {port}": "is taken",
    "view {t}/empty": "no rows in",
    "view {t}/empty --port {port}": "is taken",
    "view org/name": "HF_HUB_OFFLINE",
    "view nowhere": "no name of a repository",
    "tables {t}/tables {t}/empty": "{t}/empty",
    "tables {t}/tables human={t}/none.json": "none.json",
    "publish {t}/empty org/name --dry-run": "manifest.json",
    "publish-model {t}/nowhere org/name": "found nothing there",
    "publish-model {t}/empty org/name": "has no config.json",
    "publish-model {t}/started org/name": "a training that is not finished",
    "publish-model {t}/llama org/name": "has no weights",
    "publish-model {t}/whole name": "of the form org/name",
    "publish-model {t}/whole org/name --report {t}/none.json": "none.json",
    "rehydrate org/name --output {t}/images": "HF_HUB_OFFLINE",
    "rehydrate nowhere --output {t}/images": "no name of a repository",
    # One folder too high or too low, and addresses.
    "status {t}/built/data": "did you mean '{t}/built'?",
    "report {t}/built/data": "did you mean '{t}/built'?",
    "report {t}/built/data/train-00000-of-00001.parquet": "did you mean '{t}/built'?",
    "view {t}/built/data/train-00000-of-00001.parquet": "it is a file here",
    "publish {t}/built https://huggingface.co/datasets/org/name --dry-run": "did you mean 'org/name'?",
    "describe {image} 1 1 --model https://huggingface.co/org/name": "did you mean 'org/name'?",
    "describe {image} 1 1 --model {t}/models": "did you mean '{t}/models/small'?",
    "describe {image} 1 1 --model {t}/descriptor/config.json": "did you mean '{t}/descriptor'?",
    "train-localizer -s dataset={t}/built -s output={t}/x": "lacks the columns",
    "train-localizer -s dataset={t}/built -s output={t}/built": "found the dataset {t}/built",
    "rehearse {t}/file": "found the file {t}/file",
    "server --home {t}/file": "found the file {t}/file",
    # What would be written over, and files of other kinds.
    "describe {image} 1 1 --model {t}/descriptor --figure {image}": "which it would replace",
    "localize {image} nose --model {t}/localizer --figure {image}": "which it would replace",
    "answer {image} nose --model {t}/descriptor --figure {image}": "which it would replace",
    "segment {image} dog --model {t}/descriptor --mask {image}": "which it would replace",
    "segment {image} dog --model {t}/descriptor --mask {t}/a.png --figure {t}/a.png": "which it would replace",
    "describe {t}/rows.csv --model {t}/descriptor": "rows in a file that ends in .jsonl",
    "localize {t}/rows.json nose --model {t}/localizer": "rows in a file that ends in .jsonl",
    "describe {t}/array.jsonl --model {t}/descriptor": "expected one JSON object in every line",
    "describe {t}/hollow.png 1 1 --model {t}/descriptor": "found an empty file",
    # Models.
    "describe {t}/none.png 1 1 --model {t}/descriptor": "none.png",
    "describe {t}/file 1 1 --model {t}/descriptor": "expected an image",
    "describe {image} 900 1 --model {t}/descriptor": "90x60",
    "describe {image} 1 1 --model {t}/nowhere": "expected a Point Descriptor",
    "describe {image} 1 1 --model {t}/empty": "has no config.json",
    "describe {image} 1 1 --model {t}/file": "is a file",
    "describe {image} 1 1 --model {t}/started": "training that is not finished",
    "describe {image} 1 1 --model {t}/vision": "holds a vision path that models start from",
    "describe {image} 1 1 --model {t}/descriptor": "has no weights",
    "describe {image} 1 1 --model {t}/torn": "cut off",
    "describe {image} 1 1 --model {t}/pointer": "git-lfs",
    "describe {image} 1 1 --model org/name": "HF_HUB_OFFLINE",
    "describe {image} 1 1 --model {t}/localizer": "is a Point Localizer",
    "describe {image} 1 1 --model {t}/descriptor --figure out.jgp": ".png",
    "describe {image} 1 1 --model {t}/descriptor --figure nowhere/out.png": "make it first",
    "localize {image} nose --model {t}/descriptor": "is a Point Descriptor",
    "localize nose {image} --model {t}/localizer": "expected the image first, found 'nose'",
    "answer nose {image} --model {t}/localizer": "expected the image first, found 'nose'",
    "segment nose {image} --model {t}/localizer": "expected the image first, found 'nose'",
    "describe {image} --model {t}/descriptor": "expected the point to describe",
    "describe {image} 1 --model {t}/descriptor": "found one number",
    "describe 1 2 {image} --model {t}/descriptor": "expected a number of pixels",
    "describe {image} 50% 50% --model {t}/descriptor": "found '50%'",
    "localize {image} --model {t}/localizer": "expected the text to find",
    "describe {image} 1 1 --model {t}/descriptor --output {t}/a.jsonl": "a single answer is printed",
    # Many rows.
    "describe {t}/empty --model {t}/descriptor": "expected images in {t}/empty",
    "localize {t}/images --model {t}/localizer": "expected the text to find in every image",
    "describe {t}/rows.jsonl 1 1 --model {t}/descriptor": "whose rows have their own",
    "describe {t}/none.jsonl --model {t}/descriptor": "found nothing at {t}/none.jsonl",
    "describe {t}/void.jsonl --model {t}/descriptor": "the file is empty",
    "localize {t}/rows.jsonl --model {t}/localizer": "a column for what is asked (text, texts, description), found 'i",
    "describe {t}/torn.parquet --model {t}/descriptor": "cannot be read as Parquet",
    "describe {t}/rows.jsonl --images {t}/nowhere --model {t}/descriptor": "expected the folder of the images",
    "describe org/name --model {t}/descriptor": "HF_HUB_OFFLINE",
    "describe {t}/torn-dataset --model {t}/descriptor": "cannot read split 'test'",
    "describe {t}/rows.jsonl --model {t}/nowhere": "expected a Point Descriptor",
    "describe {t}/rows.jsonl --model {t}/localizer": "is a Point Localizer",
    "describe {t}/rows.jsonl --model {t}/llama": "of the type 'llama'",
    "describe {t}/rows.jsonl --model org/name": "HF_HUB_OFFLINE",
    "describe {t}/rows.jsonl --model {t}/descriptor --output {t}/empty": "found the folder",
    "describe {t}/rows.jsonl --model {t}/descriptor --output {t}/a.csv": "that ends in .jsonl, found {t}/a.csv",
    "describe {t}/rows.jsonl --model {t}/descriptor --output {t}/nowhere/a.jsonl": "make it first",
    "describe {t}/rows.jsonl --model {t}/descriptor --figure {t}/a.png": "--figure draws one image",
    "describe {t}/rows.jsonl --model {t}/descriptor --batch-size 0": "--batch-size",
    "evaluate -s output={t}/e": "expected a Point Localizer",
    "convert-omg-llava {t}/empty --output {t}/converted --lora no": "--lora",
    "convert-capellm {t}/empty {t}/empty --output {t}/converted": "expected vision_model.safetensors",
    "convert-capellm {t}/capellm org/name --output {t}/converted": "HF_HUB_OFFLINE",
    "convert-capellm {t}/capellm {t}/nowhere --output {t}/converted": "nowhere",
    # The orchestrator.
    "server --port {port} --home {t}/empty": "cannot be listened on",
    "server --home {t}/nowhere": "found nothing at",
    "server --port 99999": "less than or equal to 65535",
    "deploy": "PREFECT_API_URL",
}
WITH_TORCH = {
    "train-localizer -s dataset={t}/nowhere": "expected the folder of a finished build",
    "train-descriptor -s dataset={t}/empty": "has no data/*.parquet",
    "train-descriptor -s dataset=org/name": "HF_HUB_OFFLINE",
    "train-descriptor -s dataset={t}/torn-dataset": "was cut off",
    "adapt-descriptor -s keypoints.root={t}/nowhere": "keypoints.root",
    "adapt-descriptor -s ap10k.root={t}/empty": "ap10k.root is keypoints.root",
    "adapt-descriptor -s keypoints.root={t}/empty -s output={t}/x": "descriptor_path",
    "train-localizer -s localizer.epochs=none": "localizer.epochs",
    "train-answerer -s poses.root={t}/nowhere": "found none at",
    "train-answerer -s poses.root={t}/empty": "mp100_split",
    "train-answerer -s poses.own={t}/empty": "expected COCO keypoint files",
    "evaluate-poses -s keypoints.root={t}/empty": "mp100_split",
    "evaluate-poses -s modes=[fast]": "'greedy', 'beam', 'mean' or 'free'",
    "train-segmenter -s instructions.root={t}/empty": "that 'talking-points build-instructions' has left",
    "train-segmenter -s segmenter.max_steps=0": "greater than or equal to 1",
    "refine-segmenter -s refine.groups=3": "did you mean 'group'",
    "evaluate-segmentation -s instructions={t}/nowhere": "that 'talking-points build-instructions' has left",
    "describe {t}/rows.jsonl --model {t}/whole --output {t}/other.jsonl": "holds answers of the model 'another'",
    "describe {t}/rows.jsonl --model {t}/whole --output {t}/list.yaml": "something else in line 1",
    "describe {t}/rows.jsonl --model {t}/whole --device gpu": "--device: expected",
    "restore-champion -s folder={t}/nowhere": "no earlier champion",
    "retrain-and-evaluate -s folder={t}/c -s train.dataset={t}/nowhere": "expected the folder of a finished build",
}
"""Mistakes in what trains and asks models: all but the name of a device are told without torch."""


@pytest.fixture(scope="module")
def words(drawn: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What the names in braces stand for."""
    t = tmp_path_factory.mktemp("mistakes")
    for name in (
        "empty",
        "full",
        "mine",
        "started",
        "vision",
        "descriptor",
        "localizer",
        "torn",
        "pointer",
        "torn-dataset/data",
        "images",
        "llama",
        "whole",
        "capellm",
        "built/data",
        "models/small",
    ):
        (t / name).mkdir(parents=True)
    (t / "file").write_text("")
    (t / "full" / "thesis.tex").write_text("mine")
    (t / "mine" / "prefect.yaml").write_text("")
    (t / "broken.yaml").write_text("output: [")
    (t / "latin.yaml").write_bytes("output: Grün".encode("latin-1"))
    (t / "tab.yaml").write_text("output: x\nsources:\n\timages: {}\n")
    for name in ("built/manifest.json", "built/.work/status.json", "models/small/config.json"):
        (t / name).parent.mkdir(exist_ok=True)
        (t / name).write_text("{}")
    pq.write_table(pa.table({"id": ["a"]}), t / "built" / "data" / "train-00000-of-00001.parquet")
    (t / "rows.csv").write_text("image,x,y\nimage.png,1,1\n")
    (t / "rows.json").write_text("[]")
    (t / "array.jsonl").write_text('[{"image": "image.png", "point": [1, 1]}]\n')
    (t / "hollow.png").write_bytes(b"")
    (t / "list.yaml").write_text("- output")
    (t / "started" / "started.json").write_text("{}")
    (t / "vision" / "started.json").write_text("{}")
    (t / "vision" / "vision.safetensors").write_bytes(b"")
    for name in ("descriptor", "torn", "pointer"):
        (t / name / "config.json").write_text('{"architectures": ["PointDescriptor"]}')
    for part in PARTS:
        (t / "capellm" / f"{part}.safetensors").write_bytes(b"")
    (t / "rows.jsonl").write_text('{"image": "picture.png", "point": [1, 1]}\n')
    (t / "void.jsonl").write_text("\n")
    (t / "other.jsonl").write_text('{"id": 1, "point": [1.0, 1.0], "description": "ear", "model": "another"}\n')
    (t / "torn.parquet").write_bytes(b"PAR1 and then nothing")
    (t / "llama" / "config.json").write_text('{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}')
    (t / "whole" / "config.json").write_text('{"architectures": ["PointDescriptor"]}')
    (t / "whole" / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    (t / "localizer" / "config.json").write_text('{"architectures": ["PointLocalizer"]}')
    (t / "torn" / "model.safetensors").write_bytes(b"\x40\0\0\0\0\0\0\0{")
    (t / "pointer" / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    (t / "torn-dataset" / "data" / "train-00000-of-00001.parquet").write_bytes(b"PAR1 and then nothing")
    Image.fromarray(np.zeros((60, 90, 3), np.uint8)).save(t / "image.png")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield {
            "t": str(t),
            "image": str(t / "image.png"),
            "pascal": str(drawn["pascal_part116"]),
            "partimagenet": str(drawn["partimagenet"]),
            "port": str(taken.getsockname()[1]),
        }


def outcomes(commands: list[str], words: dict[str, str], **variables: str) -> dict[str, Any]:
    """Run the commands in an empty folder, with a home of their own and no network."""
    folder = Path(words["t"], "here")
    folder.mkdir(exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "AWS"))}
    environment |= {"HOME": words["t"], "HF_HUB_OFFLINE": "1", "COLUMNS": "200", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.commands.everyday"],
        input=json.dumps([[word.format(**words) for word in command.split()] for command in commands]),
        cwd=folder,
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert isinstance(outcome, dict)
    return outcome


def check(mistakes: dict[str, str], words: dict[str, str], outcome: dict[str, Any]) -> None:
    wrong, seconds = [], patient(SECONDS)
    for (command, message), found in zip(mistakes.items(), outcome["found"], strict=True):
        said = " ".join(found["message"].replace("│", " ").split())
        if found["code"] != 2 or message.format(**words) not in said or found["traceback"]:
            wrong.append(f"{command}\n  exit code {found['code']}: {said}\n{found['traceback']}")
        # The first command imports what all have in common.
        elif found["cpu_seconds"] > CPU_SECONDS or found["seconds"] > seconds:
            wrong.append(f"{command}: {found['seconds']:.1f} s, of a processor {found['cpu_seconds']:.1f} s")
    assert not wrong, "\n\n".join(wrong)


def test_everyday_mistakes(words: dict[str, str]) -> None:
    assert len(MISTAKES) >= 50
    outcome = outcomes([BUILD + " -s refine.prompt=nowhere.jinja", "tables {t}/tables {t}/empty", *MISTAKES], words)
    del outcome["found"][:2]  # which imported what builds and tables need
    check(MISTAKES, words, outcome)
    assert not outcome["torch"], "none of them had to wait for torch"


def test_everyday_mistakes_of_trainings(words: dict[str, str]) -> None:
    outcome = outcomes(["describe {t}/rows.jsonl --model {t}/whole --device gpu", *WITH_TORCH], words)
    outcome["found"].pop(0)  # which imported torch
    check(WITH_TORCH, words, outcome)


def test_a_server_that_does_not_answer(words: dict[str, str]) -> None:
    dead = {BUILD: "PREFECT_API_URL", "deploy": "PREFECT_API_URL"}
    check(dead, words, outcomes(list(dead), words, PREFECT_API_URL="http://127.0.0.1:9/api"))


def test_a_store_without_credentials(words: dict[str, str]) -> None:
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    mistake = {BUILD + " -s output=s3://bucket/x --dry-run": "AWS_ACCESS_KEY_ID"}
    outcome = outcomes(["status s3://bucket/x", *mistake], words, AWS_EC2_METADATA_DISABLED="true")
    outcome["found"].pop(0)  # which imported the store's client
    check(mistake, words, outcome)
