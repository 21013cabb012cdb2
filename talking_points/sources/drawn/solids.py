"""Things made of boxes, seen from any side: visible faces only, painted from the farthest box to the nearest."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from talking_points.sources.drawn.canvas import Material, Pen
from talking_points.sources.drawn.curves import Points, rounded_box, smooth_closed

_FACES: dict[str, tuple[int, int]] = {
    "left": (0, 0), "right": (0, 1), "bottom": (1, 0), "top": (1, 1), "back": (2, 0), "front": (2, 1),
}  # fmt: skip

_INSET = 0.88
"""The upper face of a soft box is drawn a little smaller, so that it stays inside the rounded outline."""


@dataclass(frozen=True)
class _Mark:
    """A flat drawing on one face of a box, its outline in shares (u to the right, v down) of the face."""

    face: str
    outline: Points
    part: str | None
    material: Material
    copy: int
    keeps_part: bool


@dataclass
class Box:
    """An axis-aligned box from ``low`` to ``high`` (x right, y up, z towards the viewer before turning)."""

    part: str | None
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    material: Material
    copy: int = 0
    soft: bool = False
    marks: list[_Mark] = field(default_factory=list)

    def mark(self, face: str, outline: ArrayLike, material: Material, *, part: str | None = None, copy: int = 0) -> Box:
        """Put a drawing on a face; without a part it belongs to the box's part."""
        self.marks.append(_Mark(face, np.asarray(outline, float), part, material, copy, part is None))
        return self

    def panel(
        self, face: str, u0: float, v0: float, u1: float, v1: float, material: Material, *,
        part: str | None = None, copy: int = 0, corner: float = 0.0,
    ) -> Box:  # fmt: skip
        """A rectangle on a face, with round corners when ``corner`` is given."""
        if corner:
            return self.mark(face, rounded_box(u0, v0, u1, v1, corner), material, part=part, copy=copy)
        return self.mark(face, [(u0, v0), (u1, v0), (u1, v1), (u0, v1)], material, part=part, copy=copy)


class Model:
    """A collection of boxes turned by ``yaw`` about the vertical and seen from ``pitch`` above (radians).

    ``distance`` to the camera in the model's units sets the perspective.
    """

    def __init__(self, pen: Pen, yaw: float, pitch: float, distance: float = 6.0) -> None:
        self.pen = pen
        self.distance = distance
        cos, sin = np.cos(yaw), np.sin(yaw)
        turn = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
        cos, sin = np.cos(pitch), np.sin(pitch)
        self.rotation = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]) @ turn
        self.boxes: list[Box] = []

    def box(
        self,
        part: str | None,
        low: ArrayLike,
        high: ArrayLike,
        material: Material,
        *,
        copy: int = 0,
        soft: bool = False,
    ) -> Box:
        """Add a box; ``soft`` gives it the round edges of a cushion."""
        box = Box(part, np.asarray(low, float), np.asarray(high, float), material, copy, soft)
        self.boxes.append(box)
        return box

    def flat(self, points: ArrayLike) -> Points:
        """Model points (n, 3) to the pen's plane (n, 2), y down."""
        turned = np.asarray(points, float) @ self.rotation.T
        nearer = self.distance / (self.distance - turned[:, 2])
        return np.column_stack([turned[:, 0] * nearer, -turned[:, 1] * nearer])

    def faces_viewer(self, normal: ArrayLike, at: ArrayLike) -> bool:
        """Whether a surface with this normal at this model point shows its front."""
        turned = self.rotation @ np.asarray(at, float)
        sight = np.array([0.0, 0.0, self.distance]) - turned
        return float(self.rotation @ np.asarray(normal, float) @ sight) > 1e-6

    def lit(self, material: Material, normal: ArrayLike) -> Material:
        """The material as a face with this normal shows it under the scene's light."""
        light_x, light_y = self.pen.canvas.light.towards
        towards = np.array([-light_x if self.pen.mirrored else light_x, -light_y, 0.75])
        amount = float(self.rotation @ np.asarray(normal, float) @ (towards / np.linalg.norm(towards)))
        return material.shaded(0.66 + 0.44 * max(amount, -0.2))

    def corners(self, box: Box, face: str) -> NDArray[np.float64]:
        """The corners of a face, (4, 3): upper left, upper right, lower right, lower left as seen from outside."""
        axis, side = _FACES[face]
        (x0, y0, z0), (x1, y1, z1) = box.low, box.high
        if axis == 0:
            x = x1 if side else x0
            first, second = (z1, z0) if side else (z0, z1)
            return np.array([(x, y1, first), (x, y1, second), (x, y0, second), (x, y0, first)])
        if axis == 1:
            y = y1 if side else y0
            return np.array([(x0, y, z0), (x1, y, z0), (x1, y, z1), (x0, y, z1)])
        z = z1 if side else z0
        left, right = (x0, x1) if side else (x1, x0)
        return np.array([(left, y1, z), (right, y1, z), (right, y0, z), (left, y0, z)])

    def landmark(self, name: str, point: ArrayLike, part: str | None = None, copy: int = 0) -> None:
        """Remember a named point of the model, float (3,)."""
        x, y = self.flat(np.asarray(point, float)[None])[0]
        self.pen.landmark(name, (float(x), float(y)), part, copy)

    def draw(self) -> None:
        """Paint all boxes, far ones first, and forget them."""
        for box in self._ordered():
            if box.soft:
                self._draw_soft(box)
            else:
                self._draw_hard(box)
        self.boxes.clear()

    def _visible(self, box: Box) -> list[tuple[str, NDArray[np.float64], NDArray[np.float64]]]:
        seen = []
        for face, (axis, side) in _FACES.items():
            normal = np.zeros(3)
            normal[axis] = 1.0 if side else -1.0
            corners = self.corners(box, face)
            if self.faces_viewer(normal, corners.mean(axis=0)):
                seen.append((face, normal, corners))
        return seen

    def _draw_hard(self, box: Box) -> None:
        for face, normal, corners in self._visible(box):
            surface = self.lit(box.material, normal)
            self.pen.shape(box.part, self.flat(corners), surface, smooth=False, copy=box.copy)
            self._draw_marks(box, face, normal, corners)

    def _draw_soft(self, box: Box) -> None:
        seen = self._visible(box)
        outline = self.flat(np.concatenate([corners for _, _, corners in seen])).astype(np.float32)
        hull = cv2.convexHull(outline)[:, 0].astype(float)
        surface = replace(box.material, roundness=0.35)
        self.pen.shape(box.part, _softened(hull), self.lit(surface, (0, 0, 1)), smooth=False, copy=box.copy)
        for face, normal, corners in seen:
            if face == "top":
                top = self.lit(replace(surface, roundness=0.3), normal)
                inner = corners.mean(axis=0) + (corners - corners.mean(axis=0)) * _INSET
                self.pen.shape(box.part, _softened(self.flat(inner)), top, smooth=False, copy=box.copy)
            self._draw_marks(box, face, normal, corners)

    def _draw_marks(self, box: Box, face: str, normal: ArrayLike, corners: NDArray[np.float64]) -> None:
        origin, across, down = corners[0], corners[1] - corners[0], corners[3] - corners[0]
        for mark in box.marks:
            if mark.face != face:
                continue
            points = self.flat(origin + mark.outline[:, :1] * across + mark.outline[:, 1:] * down)
            if mark.keeps_part:
                self.pen.detail(points, self.lit(mark.material, normal), smooth=False)
            else:
                self.pen.shape(mark.part, points, self.lit(mark.material, normal), smooth=False, copy=mark.copy)

    def _ordered(self) -> list[Box]:
        """Boxes from back to front: two boxes that some axis plane separates are ordered by the side of the viewer."""
        viewer = self.rotation.T @ np.array([0.0, 0.0, self.distance])
        depths = [float(self.rotation[2] @ (box.low + box.high)) for box in self.boxes]

        def behind(first: int, second: int) -> bool:
            a, b = self.boxes[first], self.boxes[second]
            for axis in range(3):
                if a.high[axis] <= b.low[axis] + 1e-6 and viewer[axis] > a.high[axis]:
                    return True
                if b.high[axis] <= a.low[axis] + 1e-6 and viewer[axis] < a.low[axis]:
                    return True
            return False

        left, ordered = sorted(range(len(self.boxes)), key=lambda index: depths[index]), []
        while left:
            free = (i for i in left if not any(behind(j, i) and not behind(i, j) for j in left if j != i))
            chosen = next(free, left[0])
            left.remove(chosen)
            ordered.append(self.boxes[chosen])
        return ordered


def _softened(corners: Points) -> Points:
    """A polygon with generously rounded corners: every corner is cut twice (Chaikin 1974), then smoothed."""
    points = corners
    for share in (0.16, 0.25):
        following = np.roll(points, -1, axis=0)
        cut = np.stack([points + (following - points) * share, following + (points - following) * share], axis=1)
        points = cut.reshape(-1, 2)
    return smooth_closed(points, 3)
