"""``describe-keypoints``: descriptions of all keypoints by one author, checked, as a file that trainings take."""

from __future__ import annotations

from typing import Any

from prefect import flow

from talking_points.config import load_config
from talking_points.examples.keypoint_authors import DescribeKeypointsConfig, check_description_inputs
from tasks.keypoint_texts import write_keypoint_texts
from tasks.running.run_page import describe_output, end_run, name_run, tag_run


@flow(
    name="describe-keypoints",
    persist_result=False,
    flow_run_name=name_run(describe_output("keypoints", DescribeKeypointsConfig)),
    validate_parameters=False,
)
def describe_keypoints(
    config: str = "configs/describe/keypoints.yaml", overrides: list[str] | None = None
) -> dict[str, Any]:
    """Write a description of every keypoint into ``output/texts.jsonl``, and what was refused into ``report.json``.

    Args:
        config: path of a YAML file with a ``DescribeKeypointsConfig``.
        overrides: ``key=value`` settings applied on top, e.g. ``["author=model", "text.backend=openai"]``.
    """
    settings = load_config(DescribeKeypointsConfig, config, overrides or [])
    check_description_inputs(settings)
    tag_run("descriptions", settings.author)
    report = write_keypoint_texts(settings)
    return end_run(f"{report['texts']} texts by {settings.author}, {report['composed']} composed", report)
