"""A triangle mesh drawn into a picture: which triangle each pixel sees, and how far away."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32


@dataclass(frozen=True, eq=False)
class MeshImage:
    """What one camera sees of a mesh."""

    face: Int32[np.ndarray, "h w"]
    """Triangle in each pixel, -1 where there is none."""
    depth: Float32[np.ndarray, "h w"]
    """Its depth at the pixel's centre, metres; inf where there is none."""

    @property
    def covered(self) -> Bool[np.ndarray, "h w"]:
        """Pixels that see the mesh."""
        return self.face >= 0


def draw_mesh(
    points: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"], width: int, height: int, *, two_sided: bool = False
) -> MeshImage:
    """Draw the triangles that lie in front of the camera and, unless ``two_sided``, face it.

    Args:
        points: image x and y in pixels (the first centre at 0.5) and depth in metres of each vertex.
        faces: counter-clockwise from outside.
    """
    depth = np.full(height * width, np.inf, np.float32)
    face = np.full(height * width, -1, np.int32)
    corners = points.astype(np.float32)[faces]
    x, y, z = corners[:, :, 0], corners[:, :, 1], corners[:, :, 2]
    # y points down: triangles that are counter-clockwise to the eye have a negative area here
    area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0])
    left = np.maximum(np.ceil(x.min(axis=1) - 0.5), 0).astype(np.int64)
    right = np.minimum(np.floor(x.max(axis=1) - 0.5), width - 1).astype(np.int64)
    top = np.maximum(np.ceil(y.min(axis=1) - 0.5), 0).astype(np.int64)
    bottom = np.minimum(np.floor(y.max(axis=1) - 0.5), height - 1).astype(np.int64)
    drawn = np.flatnonzero(
        ((area < -1e-9) | (two_sided & (area > 1e-9))) & (z.min(axis=1) > 0.01) & (right >= left) & (bottom >= top)
    )
    if len(drawn) == 0:
        return MeshImage(face.reshape(height, width), depth.reshape(height, width))

    # every pixel of every triangle's box, flat
    columns = (right - left + 1)[drawn]
    pixels = columns * (bottom - top + 1)[drawn]
    start = np.cumsum(pixels) - pixels
    owner = np.repeat(np.arange(len(drawn)), pixels)
    local = np.arange(pixels.sum()) - np.repeat(start, pixels)
    row = local // columns[owner]
    column = local - row * columns[owner] + left[drawn][owner]
    row += top[drawn][owner]

    # barycentric coordinates and 1 / depth are linear in the picture
    x, y, inverse_area = x[drawn], y[drawn], 1 / area[drawn]
    x0, y0 = left[drawn] + np.float32(0.5), top[drawn] + np.float32(0.5)
    planes = []
    for i, j in ((1, 2), (2, 0), (0, 1)):
        dx, dy = (y[:, i] - y[:, j]) * inverse_area, (x[:, j] - x[:, i]) * inverse_area
        at_corner = ((x[:, i] - x0) * (y[:, j] - y0) - (x[:, j] - x0) * (y[:, i] - y0)) * inverse_area
        planes.append((dx, dy, at_corner))
    dx_px = (column - left[drawn][owner]).astype(np.float32)
    dy_px = (row - top[drawn][owner]).astype(np.float32)
    inverse_z = np.zeros(len(owner), np.float32)
    inside = np.ones(len(owner), bool)
    for k, (dx, dy, at_corner) in enumerate(planes):
        weight = dx[owner] * dx_px + dy[owner] * dy_px + at_corner[owner]
        inside &= weight >= -1e-6
        inverse_z += weight * (1 / z[drawn, k])[owner]
    hit = np.flatnonzero(inside)
    pixel = row[hit] * width + column[hit]
    hit_depth = 1 / inverse_z[hit]
    np.minimum.at(depth, pixel, hit_depth)
    nearest = hit_depth == depth[pixel]
    face[pixel[nearest]] = drawn[owner[hit[nearest]]]
    return MeshImage(face.reshape(height, width), depth.reshape(height, width))
