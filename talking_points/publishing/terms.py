"""What each source dataset allows, and how it wants to be cited: stated in the card, obeyed when publishing."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib import resources

from talking_points.publishing.image_cells import ImageMode


@dataclass(frozen=True)
class SourceTerms:
    """Terms of one source. ``images`` is the mode in which its rows are published unless told otherwise."""

    title: str
    homepage: str
    terms: str
    images: ImageMode
    citations: tuple[str, ...]


TERMS: dict[str, SourceTerms] = {
    "pascal_part116": SourceTerms(
        title="Pascal-Part-116",
        homepage="https://github.com/OpenRobotLab/OV_PARTS",
        terms="Released with OV-PARTS, which states no licence for the data. The photographs are those of PASCAL"
        " VOC 2010 (from Flickr, for research under the VOC terms); the annotations derive from PASCAL-Part,"
        " which states no open licence. Research use; neither images nor masks nor crops may be passed on.",
        images="reference",
        citations=("ov_parts", "pascal_part", "pascal_voc"),
    ),
    "ade20k_part234": SourceTerms(
        title="ADE20K-Part-234",
        homepage="https://github.com/OpenRobotLab/OV_PARTS",
        terms="Released with OV-PARTS, which adds no licence of its own. The photographs are those of ADE20K (MIT"
        " CSAIL), for non-commercial research and education only, and may not be passed on; its annotations"
        " are published under the permissive licence of the ADE20K terms page.",
        images="reference",
        citations=("ov_parts", "ade20k"),
    ),
    "partimagenet": SourceTerms(
        title="PartImageNet",
        homepage="https://github.com/TACJu/PartImageNet",
        terms="The repository states no licence. The photographs are those of ImageNet (ILSVRC-12), for"
        " non-commercial research and education under the ImageNet terms, and may not be passed on.",
        images="reference",
        citations=("partimagenet", "imagenet"),
    ),
    "coco_parts": SourceTerms(
        title="Own annotations",
        homepage="",
        terms="Images and annotations of those who built the dataset, who state the terms.",
        images="reference",
        citations=(),
    ),
    **{
        name: SourceTerms(
            title=title,
            homepage="https://github.com/lichengunc/refer",
            terms="No licence is stated for the expressions, which were collected for research. Objects and masks are"
            " those of COCO 2014 (annotations CC BY 4.0); its photographs are from Flickr, under the terms of their"
            " owners, and may not be passed on.",
            images="reference",
            citations=(citation, "coco"),
        )
        for name, title, citation in (
            ("refcoco", "refCOCO", "refcoco"),
            ("refcoco_plus", "refCOCO+", "refcoco"),
            ("refcocog", "refCOCOg", "refcocog"),
        )
    },
    "images": SourceTerms(
        title="Own images",
        homepage="",
        terms="Images of those who built the dataset, with objects found by a model; they state the terms.",
        images="reference",
        citations=(),
    ),
    "added": SourceTerms(
        title="Own images, or a source of another package",
        homepage="",
        terms="Images of those who built the dataset, or of a source that another package adds; the terms are those of"
        " these images and annotations.",
        images="reference",
        citations=(),
    ),
}


def source_terms(name: str, *, drawn: bool = False) -> SourceTerms:
    """The terms of source ``name``, or of its ``drawn`` stand-in, which has its layout and none of its data."""
    if not drawn:
        return TERMS[name]
    return replace(
        TERMS[name],
        terms="Stand-in drawn by `talking-points draw-sample` in the layout of this source: it holds none of its data.",
        images="embed",
        citations=(),
    )


def citations(sources: Iterable[str], *further: str) -> str:
    """BibTeX of the paper, of the given sources and of ``further`` keys, in the order of the shipped bibliography."""
    wanted = {"talking_points", *further, *(key for source in sources for key in TERMS[source].citations)}
    bibliography = resources.files("data_cards").joinpath("citations.bib").read_text(encoding="utf-8")
    entries = re.split(r"\n\n(?=@)", bibliography.strip())
    return "\n\n".join(entry for entry in entries if entry[entry.index("{") + 1 : entry.index(",")] in wanted)
