"""The rules that keep the floors and the rooms apart. Imports inside functions count like all others."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ("talking_points", "tasks", "flows", "commands")
ROOMS = (
    "errors",
    "json_depth",
    "regular_files",
    "nearby",
    "parquet_pages",
    "parquet_sizes",
    "plotting",
    "whole_files",
    "tensor_files",
    "escaping",
    "redaction",
    "redacted_console",
    "terminal",
    "server_guard",
    "stand_in_server",
    "proxies",
    "units",
    "step_progress",
    "records",
    "shipped",
    "yaml_text",
    "overrides",
    "config",
    "owners",
    "source_names",
    "output_names",
    "hub_client",
    "hub_commits",
    "dataset_schema",
    "dataset_files",
    "dataset_manifest",
    "parents",
    "cluster_settings",
    "stage_names",
    "runner_config",
    "build_config",
    "image_headers",
    "image_files",
    "sqlite_files",
    "locks",
    "extras",
    "network",
    "hub_names",
    "hub_sizes",
    "allocator",
    "bfloat16",
    "processes",
    "stop_requests",
    "grounding",
    "models",
    "sources",
    "candidates",
    "descriptions",
    "instructions",
    "examples",
    "training",
    "evaluation",
    "publishing",
    "audit",
)
"""Of ``talking_points``, in the order in which data passes through them; first the files at the top."""

CHECKS = frozenset({"talking_points.grounding.golden"})
"""Files that hold several rooms against recorded results: they may look into all of them, and no file imports them."""

FILES = sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))
IDS = [str(path.relative_to(ROOT)) for path in FILES]


def module_of(path: Path) -> str:
    """The dotted name of a file."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path) for path in FILES}


def imported(path: Path) -> set[str]:
    """The project's modules, and names of packages outside it, that a file imports anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{path}: imports name their module in full"
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            # ``from folder import file`` is an import of the file.
            files = members & MODULES
            names |= files
            if len(files) < len(members):
                names.add(node.module)
    return names


@cache
def imports() -> dict[str, set[str]]:
    """What each file imports, by module: for the process that runs these tests, not for all that collect them."""
    return {module_of(path): imported(path) for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_imports_run_downward(path: Path) -> None:
    floor = FLOORS.index(path.relative_to(ROOT).parts[0])
    for name in imports()[module_of(path)]:
        head = name.split(".")[0]
        if head in FLOORS:
            assert FLOORS.index(head) <= floor, f"{path} imports upward: {name}"
        if floor == 0:
            assert head != "prefect", f"{path}: the library knows no Prefect"


@pytest.mark.parametrize("path", [path for path in FILES if path.is_relative_to(ROOT / "talking_points")], ids=str)
def test_rooms_import_earlier_rooms_only(path: Path) -> None:
    own = path.relative_to(ROOT / "talking_points").parts[0].removesuffix(".py")
    if own in ("__init__", "__main__") or module_of(path) in CHECKS:
        return
    for name in imports()[module_of(path)]:
        pieces = name.split(".")
        if pieces[0] == "talking_points" and len(pieces) > 1:
            assert ROOMS.index(pieces[1]) <= ROOMS.index(own), f"{path} imports from a later room: {name}"
        assert name not in CHECKS, f"{path} builds on a check: {name}"


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = {name: {target for target in targets & MODULES if target != name} for name, targets in imports().items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"files import each other in a circle: {' -> '.join(error.args[1])}")


def test_files_stay_small() -> None:
    folders = (*FLOORS, "tests", "benchmarks")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    sizes = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    assert not {name: size for name, size in sizes.items() if size > 500}
    assert not {path.stem for path in FILES} & {"utils", "helpers", "common", "misc"}


def test_no_model_is_asked_for_code() -> None:
    """transformers asks on the terminal whether to run a model's code, unless it is told what somebody has decided."""
    asking = []
    for path in [*FILES, *(ROOT / "benchmarks").rglob("*.py")]:
        tree = ast.parse(path.read_text())
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "_NO_CODE"}
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            called = ast.unparse(call.func)
            if not re.search(r"\bAuto\w+\.from_(pretrained|config)$|(^|\.)pipeline$", called):
                continue
            told = {ast.unparse(item) for item in call.keywords}
            if not told & {
                "trust_remote_code=False",
                "trust_remote_code=trust_remote_code",
                *(f"**{name}" for name in names),
            }:
                asking.append(f"{path.relative_to(ROOT)}:{call.lineno} {called}")
    assert not asking


SPEAKS_BY_ITSELF = {
    "talking_points/terminal.py": "the border",
    "talking_points/redacted_console.py": "the border, for tables",
    "talking_points/redaction.py": "tracebacks, and it is what cleans",
    "talking_points/step_progress.py": "a line that is drawn over, cleaned before it is written",
    "talking_points/stand_in_server.py": "a process of its own, whose lines are read by a build",
    "commands/processes.py": "one sentence of our own, in a signal's handler",
}


def test_what_is_printed_goes_through_one_border() -> None:
    """Names and texts of others hold secrets, and what a terminal obeys."""
    printing = set()
    for path in FILES:
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            if re.search(r"^print$|^Console$|\.Console$|(^|\.)echo$|std(out|err)\.write$", ast.unparse(call.func)):
                printing.add(str(path.relative_to(ROOT)))
    assert printing <= set(SPEAKS_BY_ITSELF), "say it with talking_points.terminal, draw it on a RedactedConsole"


OWN_FILES = {
    "talking_points/regular_files.py": "opens what it has looked at",
    "talking_points/sqlite_files.py": "looks first, and opens a descriptor",
    "talking_points/server_guard.py": "/proc",
    "tasks/running/worker_checks.py": "the program's code, and marks in its own folders",
    "tasks/running/lease.py": "/proc and /etc",
    "tasks/running/storage.py": "object stores; local paths are looked at first",
    "commands/processes.py": "/proc",
    "commands/notifications.py": "shipped",
    "commands/paper_commands.py": "written a moment before",
}
"""Files that open others without ``regular_files``, and why."""


def test_files_of_others_are_opened_by_one_door() -> None:
    """What waits for a pipe in the place of a file, or reads a device without end, is not called."""
    found = []
    for path in (path for path in FILES if str(path.relative_to(ROOT)) not in OWN_FILES):
        text = path.read_text()
        ours = r"storage$" + (r"|resources\.files|^(file|source|shipped)$" if "resources.files" in text else "")
        for call in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)):
            named = call.func.attr if isinstance(call.func, ast.Attribute) else ""
            modes = {ast.unparse(argument) for argument in call.args}
            reads = named in ("read_text", "read_bytes") or (named == "open" and modes in ({"'rb'"}, {"'r'"}))
            if reads and not re.search(ours, ast.unparse(call.func).rpartition(".")[0]):
                found.append(f"{path.relative_to(ROOT)}:{call.lineno} {ast.unparse(call)}")
    assert not found, "open them with talking_points.regular_files"


LIBRARIES = {
    r"\b(load_file|safe_open|torch\.load)$": {"talking_points/tensor_files.py"},
    r"\bsave_file$": {"talking_points/tensor_files.py"},
    r"\bImage\.open$": {"talking_points/image_files.py"},
    r"\bloadmat$": {"talking_points/sources/pascal_instances.py"},
    r"\bpq\.(ParquetFile|read_table|read_schema|read_metadata)$": {
        "talking_points/parquet_sizes.py",
        "talking_points/dataset_files.py",
        "talking_points/sources/refs.py",
        "talking_points/examples/asked_rows.py",
        "talking_points/evaluation/description_sets.py",
        "talking_points/publishing/read_back.py",
        "tasks/running/storage.py",
    },
    r"\byaml\.(load|safe_load)$": {"talking_points/yaml_text.py", "commands/notifications.py"},
}
"""What opens files of others by their names, and the files that call it: each looks at the file first, or wrote it."""


def test_libraries_open_files_of_others_in_few_places() -> None:
    found: dict[str, set[str]] = {pattern: set() for pattern in LIBRARIES}
    for path in FILES:
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            for pattern in LIBRARIES:
                if re.search(pattern, ast.unparse(call.func)):
                    found[pattern].add(str(path.relative_to(ROOT)))
    assert found == LIBRARIES


OWN_MODELS = r"(PointDescriptor|PointLocalizer|PointAnswerer|ImageTextSegmenter|Segmenter|OmgLlavaModel)"
"""Whose ``from_pretrained`` goes through the door itself; a class that is chosen among them is named like this too."""

DOOR = ("loading(", "check_files(", "check_regular(", "bounded_hub()", "_reaching(", "explaining(")
"""What a function calls around the libraries' own ways to read a model or a repository: its files are looked at first,
the Hub's answers have limits, and what goes wrong is told."""

BEHIND = {
    "talking_points/models/omg_llava/modeling.py:read_config": "called by what went through the door",
    "talking_points/models/patch_processor.py:open_processor": "called by what went through the door",
    "talking_points/models/hub_weights.py:check_hub_weights": "called by what went through the door",
}


def test_models_are_loaded_through_one_door() -> None:
    """A pipe in the place of a file, a tokenizer that grows or a server that never answers waits behind each call."""
    reads = re.compile(r"\.(from_pretrained|get_config_dict)$|^(cached_file|snapshot_download|hf_hub_download)$")
    own = re.compile(OWN_MODELS + r"\.from_pretrained$|^(kind|choose_class\(.*\)|nn\.Embedding)\.from_pretrained$")
    outside, behind = [], set()
    for path in FILES:
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef):
                continue
            calls = [ast.unparse(node.func) for node in ast.walk(function) if isinstance(node, ast.Call)]
            found = [call for call in calls if reads.search(call) and not own.search(call)]
            place = f"{path.relative_to(ROOT)}:{function.name}"
            if found and place in BEHIND:
                behind.add(place)
            elif found and not any(mark in ast.unparse(function) for mark in DOOR):
                outside.append(f"{place} calls {', '.join(found)}")
    assert not outside, "wrap it in model_folders.loading"
    assert behind == set(BEHIND)


SAME_KIND = {
    "config": "the settings of a room",
    "inputs": "what a room needs to be there, looked at first",
    "answerer": "a model, and its training",
    "descriptor": "a model, and its training",
    "localizer": "a model, and its training",
    "processes": "of a command its children, of the library its own place among several",
    "evaluate": "one job on three floors",
    "learn": "one job on three floors",
    "poses": "one job on two floors",
    "outlines": "one job on two floors",
    "regions": "as they are measured, and as they are asked about",
    "segmenter": "a model, and its training",
    "plan": "what a run would do",
    **dict.fromkeys(("configuration", "conversion", "golden", "lora", "modeling", "vision"), "two families of models"),
}
"""Names that files of sibling folders may share, and what they have in common."""


def test_one_name_stands_for_one_thing_in_sibling_folders() -> None:
    found: dict[tuple[Path, str], list[str]] = {}
    for path in FILES:
        if not path.stem.startswith("_"):
            found.setdefault((path.parent.parent, path.stem), []).append(str(path.relative_to(ROOT)))
    shared = {place: names for place, names in found.items() if len(names) > 1}
    assert not {tuple(names) for (_, stem), names in shared.items() if stem not in SAME_KIND}
    assert {stem for _, stem in shared} == set(SAME_KIND), "a name that is not shared any more"


def test_the_flow_of_the_build_has_one_call_per_box() -> None:
    (flow,), (quick,) = (
        [node for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)]
        for file in ("flows/build_llamapointinpart.py", "tasks/dataset.py")
    )
    first, last = flow.body[1], flow.body[-1]
    assert last.end_lineno is not None
    assert last.end_lineno - first.lineno < 45
    calls = [node for node in ast.walk(flow) if isinstance(node, ast.Call)]
    calls = [call for call in calls if ast.unparse(call.func) in ("stages.run", "stages.complete")]
    calls.sort(key=lambda call: call.lineno)
    boxes = [ast.unparse(call.args[0]) for call in calls]
    assert boxes == [
        "index", "candidates", "sample", "object_caption", "local_caption", "generate", "refine", "verify",
        "judge", "assemble",
    ]  # fmt: skip
    for call, box in zip(calls, boxes, strict=True):
        assert ast.unparse(call.args[1]).startswith(f"orders.{box}("), "a box gets the order of its own stage"
    again = [ast.unparse(node) for node in ast.walk(quick) if isinstance(node, ast.Call)]
    assert sorted(map(ast.unparse, calls)) == sorted(call for call in again if call.startswith("stages.")), "two ways"


def test_orders_and_stages_share_typed_fields() -> None:
    """Nothing passes from ``orders`` to a stage under a name that only the two of them know."""
    for path in (ROOT / "tasks").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and {"Section", "Inputs"} & {ast.unparse(base) for base in node.bases}:
                fields = [ast.unparse(item.annotation) for item in node.body if isinstance(item, ast.AnnAssign)]
                assert not [field for field in fields if "Any" in field], f"{path}: {node.name}"
    assert "dict[str, Any]" not in (ROOT / "tasks/orders.py").read_text()


def test_the_library_works_without_prefect_and_torch() -> None:
    code = (
        "import sys; sys.modules['prefect'] = None; sys.modules['torch'] = None\n"
        "import talking_points.sources, talking_points.candidates.build, talking_points.descriptions.steps\n"
        "import talking_points.publishing.card, talking_points.dataset_schema\n"
        "import talking_points.grounding.golden, talking_points.evaluation.masks\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_flows_are_imported_without_torch() -> None:
    """Deploying imports all of them, and a run imports its own before it can say what is wrong with its settings."""
    heavy = ("torch", "transformers", "datasets", "matplotlib.pyplot")
    names = sorted(f"flows.{path.stem}" for path in (ROOT / "flows").glob("[!_]*.py"))
    code = f"import sys; sys.modules.update(dict.fromkeys({heavy})); import {', '.join(names)}"
    assert len(names) > 10
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
