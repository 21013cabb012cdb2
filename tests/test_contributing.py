"""What CONTRIBUTING.md names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.test_architecture import ROOMS

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
NAMES = {name for name in re.findall(r"`([^`\n]+)`", TEXT) if not re.search(r"[<{\s]", name)}
MODULES = {path: path.with_suffix("").relative_to(ROOT).parts for path in ROOT.glob("*/**/*.py")}


def defined(path: Path) -> set[str]:
    """What a module, and every class in it, defines: ``name`` and ``Class.name``."""
    names: set[str] = set()

    def add(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(prefix + node.name)
            if isinstance(node, ast.ClassDef) and not prefix:
                add(node.body, f"{node.name}.")
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            names.update(prefix + target.id for target in targets if isinstance(target, ast.Name))

    add(ast.parse(path.read_text()).body, "")
    return names


def test_files_and_folders_that_are_named_exist() -> None:
    rooms = [ROOT, ROOT / "talking_points", *(ROOT / "talking_points").glob("*/")]
    files = {name for name in NAMES if re.search(r"/|\.(py|yaml|md)$", name)}
    assert {name for name in files if not any((room / name).exists() for room in rooms)} == set()
    assert len(files) > 15


def test_each_promise_about_security_names_tests_that_exist() -> None:
    for line in (ROOT / "docs/security.md").read_text().splitlines():
        row, shown = line, line.rpartition(" | ")[2].removesuffix(" |")
        if not row.startswith("| ") or row.startswith(("| it may try", "| **It ")):
            continue
        files = re.findall(r"`(tests/[\w/]+\.py)`", shown)
        assert files, row
        texts = "".join((ROOT / name).read_text() for name in files)
        missing = [name for name in re.findall(r"`(test_\w+)`", shown) if f"def {name}(" not in texts]
        assert not missing, row


def test_functions_and_classes_that_are_named_exist() -> None:
    dotted = {name for name in NAMES if re.fullmatch(r"[A-Za-z_]+\.[A-Za-z_]+(\(.*\))?", name)} - {
        name for name in NAMES if name.endswith((".py", ".yaml", ".md"))
    }
    missing = set()
    for name in dotted:
        module, _, member = name.partition("(")[0].rpartition(".")
        own = [path for path, parts in MODULES.items() if parts[-1] == module] if module.islower() else list(MODULES)
        wanted = member if module.islower() else f"{module}.{member}"
        if not any(wanted in defined(path) for path in own):
            missing.add(name)
    assert missing == set()
    assert len(dotted) > 8


def test_the_glossary_has_ten_words_and_the_rooms_stand_in_their_order() -> None:
    glossary = TEXT.split("## Ten words")[1].split("\n## ")[0]
    assert len(re.findall(r"^\| (?!word|---)", glossary, re.MULTILINE)) == 10
    picture = [
        name for line in re.findall(r"^ +(\w+(?: --> \w+)+)$", TEXT, re.MULTILINE) for name in line.split(" --> ")
    ]
    assert list(dict.fromkeys(picture)) == list(ROOMS[ROOMS.index("grounding") :])
