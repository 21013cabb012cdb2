"""Why an image, object, part or keypoint of a source was left out: the words counted in ``Source.skipped``."""

from __future__ import annotations

SKIP_REASONS = {
    # images that are not listed or give no record
    "missing_image": "an annotation or label map names an image that is not on disk",
    "missing_label": "an image has no label map, or no entry in the annotation file",
    "image_without_annotation": "the annotation file lists the image but annotates nothing in it",
    "no_usable_annotation": "every annotation of the image was left out for one of the reasons below",
    "nothing_found": "the image has no annotation, and the segmenter outlines nothing in it",
    "duplicate_image": "the same image is listed twice; the first listing is kept, with the annotations of both",
    "malformed_image": "an image entry of the annotation file lacks its id or file name, or its size is no number",
    "path_outside_root": "a path is absolute, climbs with '..' or is a link to a place outside the dataset",
    "undecodable_name": "the name of a file is not UTF-8: rename the image and its labels",
    "unreadable_image": "the image cannot be decoded",
    "truncated_image": "the image file ends too early",
    "image_too_large": "the image has more pixels than are decoded",
    "size_mismatch": "the annotation file gives another image size than the decoded image has",
    "size_transposed": "as size_mismatch, with width and height exchanged: a tool applied the EXIF rotation",
    "missing_label_map": "a label map was there when the dataset was listed and is gone",
    "unreadable_label_map": "the label map cannot be decoded or is not a single-channel index image",
    "label_size_mismatch": "the label map and the image differ in size",
    "label_size_transposed": "as label_size_mismatch, with width and height exchanged",
    "label_out_of_range": "the label map holds a value that is no category and not the ignore value",
    "evaluation_image": "a training image that an evaluation split of refCOCO, refCOCO+ or refCOCOg tests on",
    "several_whole_classes": "a PartImageNet_Seg object map holds two classes",
    # annotations
    "malformed_annotation": "an annotation lacks a required key or holds a value of the wrong type",
    "annotation_without_image": "an annotation names an image id that the file does not list",
    "duplicate_annotation": "the same annotation is listed twice, or its id in two files of a union; one is kept",
    "unknown_category": "an annotation has a category id that the dataset does not define",
    "crowd": "the annotation is marked iscrowd",
    "zero_area": "the annotation has area 0",
    "low_score": "a detection below the source's min_score",
    "degenerate_box": "the annotated box, clipped to the image, is smaller than 1 x 1",
    "degenerate_outline": "no polygon has three points and the box cannot stand in for it",
    "outline_size_mismatch": "a run-length mask has another size than the image",
    "malformed_outline": "a segmentation is neither polygons nor a run-length mask that fills the image",
    "empty_object": "an object has no pixel",
    "empty_part": "a part has no pixel after rasterising",
    # expressions
    "malformed_ref": "an entry of a refs file lacks a key or holds a value of the wrong type",
    "unknown_split": "an entry of a refs file belongs to a split that the dataset does not define",
    "ref_without_sentence": "an entry of a refs file has no sentence with a letter in it",
    "ref_without_annotation": "an entry of a refs file names an annotation that instances.json does not list",
    "ref_without_image": "an entry of a refs file belongs to an annotation whose image instances.json does not list",
    # parts
    "part_outside_object": "no pixel of the part lies on an object of its class",
    "part_without_pixels": "an object lists a part id that has no pixel inside it",
    # instances of Pascal-Part-116
    "unreadable_instances": "an optional instance file cannot be read; connected components are used",
    "instance_size_mismatch": "an optional instance file has another size; connected components are used",
    # keypoints
    "no_keypoints": "an animal without a labelled keypoint",
    "keypoint_count": "an annotation has more or fewer keypoints than its category has names",
    "box_like_corners": "a box that leaves the image and reads like two corners, [x, y, x, y]; it is cut to the image",
    "keypoint_at_origin": "a labelled keypoint at (0, 0) of an object that is not there; it counts as unlabelled",
    "keypoint_outside_image": "a labelled keypoint lies outside the image; it counts as unlabelled",
}
"""Every reason a source may count, with its meaning. Reasons are stable: reports and tests name them."""
