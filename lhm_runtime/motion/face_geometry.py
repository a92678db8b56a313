"""Where a head is: the canonical face of MediaPipe's face model, fitted to the points seen in a picture.

The method is that of MediaPipe's face geometry module (Apache-2.0): the points come with a depth in the scale of
their x, as under weak perspective; a first fit of the canonical face tells how far away it is, a second one fits it
after that perspective is undone. Done here rather than there because Holistic does not offer it.
"""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float, Float32, Float64

from lhm_runtime.models import find_model

FOV_Y_DEG = 63.0
"""Vertical field of view that MediaPipe assumes of every camera."""

_CANONICAL_POINTS = 468  # the ten iris points beyond them are not part of the canonical face
_SMALLEST_PX = 2.0
_FLOATS_A_VERTEX = 5  # x y z u v


@dataclass(frozen=True, slots=True, eq=False)
class CanonicalFace:
    """The points a pose of the face is fitted to."""

    indices: np.ndarray
    """[m], which of the 478 face points."""
    points: Float64[np.ndarray, "m 3"]
    """Centimetres: x right of the picture, y up, z towards the camera."""
    weights: Float64[np.ndarray, " m"]
    """How much each counts: points that no expression moves, mostly."""


@cache
def canonical_face() -> CanonicalFace:
    """Read it from the face model's bundle; raises BackendError as ``find_model``."""
    with zipfile.ZipFile(find_model("face_landmarker.task")) as bundle:
        metadata = bundle.read("geometry_pipeline_metadata_landmarks.binarypb")
    # GeometryPipelineMetadata { Mesh3d canonical_mesh = 1 { repeated float vertex_buffer = 3 };
    #                            repeated WeightedLandmarkRef procrustes_basis = 2 { uint32 id = 1; float weight = 2 } }
    mesh = next(content for field, content in _protobuf_fields(metadata) if field == 1)
    numbers = [content for field, content in _protobuf_fields(mesh) if field == 3]
    vertices = np.frombuffer(b"".join(numbers), "<f4").reshape(-1, _FLOATS_A_VERTEX)[:, :3].astype(np.float64)
    refs = [dict(_protobuf_fields(content)) for field, content in _protobuf_fields(metadata) if field == 2]
    indices = np.array([int.from_bytes(ref[1], "little") for ref in refs])
    weights = np.frombuffer(b"".join(ref[2] for ref in refs), "<f4").astype(np.float64)
    return CanonicalFace(indices, vertices[indices], weights)


def fit_face(points: Float[np.ndarray, "478 3"], width: int, height: int) -> Float32[np.ndarray, "4 4"] | None:
    """T_camera_face of the face whose image points these are; None where they are not finite or in one spot.

    Args:
        points: x and y in pixels, and z in the scale of x, smaller nearer to the camera, as MediaPipe gives them.
        width: of the picture, pixels.
        height: of the picture, pixels.

    Returns:
        rigid transform from the canonical face to a camera with FOV_Y_DEG, in centimetres and MediaPipe's camera
        axes: x right, y up, z towards the camera (a face in front of it has z < 0).
    """
    if not np.isfinite(points).all() or np.ptp(points[:, :2], axis=0).max() < _SMALLEST_PX:
        return None
    face = canonical_face()
    pixel = 2 * np.tan(np.radians(FOV_Y_DEG) / 2) / height  # in the plane at distance 1
    seen = points[:_CANONICAL_POINTS].astype(np.float64) * pixel
    seen[:, 0] -= 0.5 * width * pixel
    seen[:, 1] = 0.5 * height * pixel - seen[:, 1]
    seen[:, 2] -= seen[:, 2].mean()
    scale = _fit_similarity(face, seen[face.indices] * [1, 1, -1])[0]
    scale *= _fit_similarity(face, _unproject(seen, scale)[face.indices])[0]
    _, R, t = _fit_similarity(face, _unproject(seen, scale)[face.indices])
    T_camera_face = np.eye(4, dtype=np.float32)
    T_camera_face[:3, :3], T_camera_face[:3, 3] = R, t
    return T_camera_face


def _unproject(seen: Float64[np.ndarray, "n 3"], scale: float) -> Float64[np.ndarray, "n 3"]:
    """Points in centimetres of a face that measures ``scale`` per centimetre in the plane at distance 1."""
    distance = (1 + seen[:, 2:]) / scale
    return np.hstack([seen[:, :2] * distance, -distance])


def _fit_similarity(
    face: CanonicalFace, target: Float64[np.ndarray, "m 3"]
) -> tuple[float, Float64[np.ndarray, "3 3"], Float64[np.ndarray, " 3"]]:
    """Scale, rotation and translation that bring the canonical points nearest to ``target`` (Umeyama 1991)."""
    w = face.weights[:, None] / face.weights.sum()
    source_mean, target_mean = (w * face.points).sum(0), (w * target).sum(0)
    source = face.points - source_mean
    U, D, Vt = np.linalg.svd((w * (target - target_mean)).T @ source)
    sign = np.array([1, 1, np.linalg.det(U) * np.linalg.det(Vt)])
    R = (U * sign) @ Vt
    scale = float((D * sign).sum() / (w * source**2).sum())
    return scale, R, target_mean - scale * R @ source_mean


def _protobuf_fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of each field of a protocol buffer message; integers as little-endian bytes."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        field, kind = divmod(varint(), 8)
        if kind == 0:
            yield field, varint().to_bytes(8, "little")
            continue
        size = varint() if kind == 2 else 4  # bytes or a message; a float: no other kind is in that file
        yield field, message[at : at + size]
        at += size
