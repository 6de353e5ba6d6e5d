"""Painting: polygons, lines and painter's-algorithm meshes on an RGB canvas, through OpenCV."""

import cv2
import numpy as np
from numpy.typing import ArrayLike

from training.toon.camera import Camera

FRACTION_BITS = 4  # OpenCV takes sub-pixel vertices as fixed-point numbers


def smoothstep(low: ArrayLike, high: ArrayLike, x: ArrayLike) -> np.ndarray:
    """0 at `low`, 1 at `high`, with a smooth cubic in between."""
    t = np.minimum(np.maximum((x - low) / (high - low), 0), 1)  # np.clip is twice as slow
    return t * t * (3 - 2 * t)


def bump(x: ArrayLike, centre: ArrayLike, width: ArrayLike) -> np.ndarray:
    """A Gaussian of height 1."""
    return np.exp(-(((x - centre) / width) ** 2))


def fixed(points: ArrayLike) -> np.ndarray:
    """Points in px as OpenCV's fixed-point numbers."""
    return np.round(np.asarray(points) * (1 << FRACTION_BITS)).astype(np.int32)


def rgb(colour: ArrayLike) -> tuple[float, ...]:
    """A colour as OpenCV takes it."""
    return tuple(float(c) for c in np.clip(colour, 0, 255))


def cells(grid: np.ndarray) -> np.ndarray:
    """(n, m, ...) values at vertices -> (n-1, m-1, ...) means over each quad."""
    return (grid[:-1, :-1] + grid[1:, :-1] + grid[:-1, 1:] + grid[1:, 1:]) / 4


def normals(grid: np.ndarray) -> np.ndarray:
    """(n, m, 3) vertices -> (n-1, m-1, 3) unit normals, for rows that rise and columns that go right."""
    across = grid[1:, 1:] + grid[:-1, 1:] - grid[1:, :-1] - grid[:-1, :-1]
    upward = grid[1:, 1:] + grid[1:, :-1] - grid[:-1, 1:] - grid[:-1, :-1]
    n = np.cross(across, upward)
    return n / np.maximum(np.linalg.norm(n, axis=-1, keepdims=True), 1e-6)


def lit(
    colour: ArrayLike,
    normal: np.ndarray,
    light: np.ndarray,
    ambient: float = 0.64,
    diffuse: float = 0.46,
    gloss: float = 14.0,
) -> np.ndarray:
    """(..., 3) colours under one soft lamp: shadows turn warm, rims darken a little, a broad highlight."""
    level = (ambient + diffuse * np.clip((normal @ light) * 0.75 + 0.25, 0, 1))[..., None]
    level = np.concatenate([level**0.85, level, level**1.08], -1)
    rim = 0.84 + 0.16 * smoothstep(0, 0.55, normal[..., 2:3])
    half = light + np.array([0, 0, 1.0])
    shine = np.clip(normal @ (half / np.linalg.norm(half)), 0, 1)[..., None] ** 18
    return np.clip(colour * level * rim + gloss * shine, 1, 255)


class Canvas:
    """An RGB picture seen through a camera. Sizes of lines are in head units; points are pixels unless
    3-D."""

    def __init__(self, image: np.ndarray, camera: Camera) -> None:
        self.image, self.camera, self.unit = image, camera, camera.unit

    def pixels(self, points: ArrayLike) -> np.ndarray:
        points = np.asarray(points, float)
        return self.camera(points) if points.shape[-1] == 3 else points

    def polygon(self, points: ArrayLike, colour: ArrayLike, opacity: float = 1.0) -> None:
        before = self.image.copy() if opacity < 1 else None
        cv2.fillPoly(self.image, [fixed(self.pixels(points))], rgb(colour), cv2.LINE_AA, FRACTION_BITS)
        if opacity < 1:
            cv2.addWeighted(self.image, opacity, before, 1 - opacity, 0, self.image)

    def line(self, points: ArrayLike, colour: ArrayLike, width: float, closed: bool = False) -> None:
        thickness = max(1, int(round(width * self.unit)))
        cv2.polylines(
            self.image,
            [fixed(self.pixels(points))],
            closed,
            rgb(colour),
            thickness,
            cv2.LINE_AA,
            FRACTION_BITS,
        )

    def disc(self, point: ArrayLike, colour: ArrayLike, radius: float) -> None:
        x, y = fixed(self.pixels(point))
        cv2.circle(
            self.image,
            (int(x), int(y)),
            int(radius * self.unit * (1 << FRACTION_BITS)),
            rgb(colour),
            -1,
            cv2.LINE_AA,
            FRACTION_BITS,
        )

    def stroke(self, points: ArrayLike, half_width: ArrayLike, colour: ArrayLike) -> None:
        """A ribbon along a polyline whose half width varies."""
        p = self.pixels(points)
        along = np.gradient(p, axis=0)
        side = np.stack([-along[:, 1], along[:, 0]], 1)
        side *= (
            np.asarray(half_width)[:, None]
            * self.unit
            / np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-6)
        )
        self.polygon(np.concatenate([p + side, (p - side)[::-1]]), colour)

    def mesh(
        self,
        turned: np.ndarray,
        colours: np.ndarray,
        mask: np.ndarray,
        softness: float = 0.02,
        opacity: float = 1.0,
    ) -> None:
        """Paint the quads of a (n, m, 3) turned grid, far ones first, then smooth the shading inside the
        silhouette, so that neither facets nor seams show. `colours` (n-1, m-1, 3), `mask` (n-1, m-1)."""
        xy = self.camera.project(turned)
        quads = np.stack([xy[:-1, :-1], xy[:-1, 1:], xy[1:, 1:], xy[1:, :-1]], 2)[mask]
        if not len(quads):
            return
        order = np.argsort(cells(turned[..., 2])[mask])
        height, width = self.image.shape[:2]
        x0, y0 = np.clip(np.floor(quads.min((0, 1))).astype(int) - 2, 0, (width, height))
        x1, y1 = np.clip(np.ceil(quads.max((0, 1))).astype(int) + 3, 0, (width, height))
        if x1 <= x0 or y1 <= y0:
            return
        layer = np.zeros((y1 - y0, x1 - x0, 3), np.uint8)
        shades = np.clip(colours[mask][order], 1, 255).tolist()  # 0 marks the unpainted
        for quad, shade in zip(fixed(quads[order] - (x0, y0)), shades, strict=True):
            cv2.fillConvexPoly(layer, quad, shade, 8, FRACTION_BITS)
        painted = (layer[..., 0] > 0).astype(np.float32)
        sigma = max(0.6, softness * self.unit)
        weight = cv2.GaussianBlur(painted, (0, 0), sigma)
        smooth = (
            cv2.GaussianBlur(layer, (0, 0), sigma).astype(np.float32) / np.maximum(weight, 0.02)[..., None]
        )
        # a blurred edge rises by 1 / (2.5 sigma) a pixel; steepened, it is a rounded, anti-aliased silhouette
        alpha = (np.clip((weight - 0.5) * 2.5 * sigma + 0.5, 0, 1) * opacity)[..., None]
        window = self.image[y0:y1, x0:x1]
        window[:] = np.clip(window * (1 - alpha) + smooth * alpha, 0, 255).astype(np.uint8)
