"""An instruction dataset goes to the Hub and comes back as it was built."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from talking_points.sources.drawn import draw_sample
from tests.instructions.building import build
from tests.publishing.conftest import Run
from tests.publishing.local_hub import LocalHub

REHYDRATE = """
import json, sys
from pathlib import Path
from talking_points.publishing.rehydrate import rehydrate
roots = {source: Path(root) for source, root in json.loads(sys.argv[1]).items()}
print(rehydrate("org/name", roots, Path(sys.argv[2])).images)
"""


@pytest.mark.slow
def test_it_is_published_read_back_and_rehydrated(hub: LocalHub, publish: Run, run: Run, tmp_path: Path) -> None:
    drawn = draw_sample(tmp_path / "drawn", 8, 2, variant="plain", sources=["refcoco", "partimagenet"])
    build(tmp_path / "built", drawn)
    done = publish(tmp_path / "built", images="reference")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verified"] is True
    restored = run(REHYDRATE, json.dumps({name: str(root) for name, root in drawn.items()}), tmp_path / "restored")
    assert restored.returncode == 0, restored.stderr
    for path in (tmp_path / "built" / "data").iterdir():
        assert (tmp_path / "restored" / "data" / path.name).read_bytes() == path.read_bytes()
