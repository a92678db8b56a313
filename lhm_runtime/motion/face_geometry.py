"""Where a head is: the canonical face of MediaPipe's face model, fitted to the points seen in a picture.

The method is that of MediaPipe's face geometry module (Apache-2.0): the points come with a depth in the scale of
their x, as under weak perspective; a first fit of the canonical face tells how far away it is, a second one fits it
after that perspective is undone. Done here rather than there because Holistic does not offer it.
"""

import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float, Float32, Float64

from lhm_runtime.errors import BackendError
from lhm_runtime.models import find_model

FOV_Y_DEG = 63.0
"""Vertical field of view that MediaPipe assumes of every camera."""

_CANONICAL_POINTS = 468  # the ten iris points beyond them are not part of the canonical face
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
    numbers: list[float] = []
    basis: list[tuple[int, float]] = []
    for field, content in _protobuf_fields(metadata):
        if field == 1:
            numbers = [float(value) for inner, value in _protobuf_fields(bytes(content)) if inner == 3]
        elif field == 2:
            ref = dict(_protobuf_fields(bytes(content)))
            basis.append((int(ref[1]), float(ref[2])))
    vertices = np.array(numbers).reshape(-1, _FLOATS_A_VERTEX)[:, :3]
    indices = np.array([index for index, _ in basis])
    return CanonicalFace(indices, vertices[indices], np.array([weight for _, weight in basis]))


def fit_face(points: Float[np.ndarray, "478 3"], width: float, height: float) -> Float32[np.ndarray, "4 4"] | None:
    """T_camera_face of the face whose image points these are; None where they are too flat or too scattered to tell.

    Args:
        points: x and y in pixels, and z in the scale of x, smaller nearer to the camera, as MediaPipe gives them.
        width: of the picture, pixels.
        height: of the picture, pixels.

    Returns:
        rigid transform from the canonical face to a camera with FOV_Y_DEG, in centimetres and MediaPipe's camera
        axes: x right, y up, z towards the camera (a face in front of it has z < 0).
    """
    face = canonical_face()
    pixel = 2 * np.tan(np.radians(FOV_Y_DEG) / 2) / height  # in the plane at distance 1
    seen = points[:_CANONICAL_POINTS].astype(np.float64) * pixel
    seen[:, 0] -= 0.5 * width * pixel
    seen[:, 1] = 0.5 * height * pixel - seen[:, 1]
    seen[:, 2] -= seen[:, 2].mean()
    scale = _fit_similarity(face, seen[face.indices] * [1, 1, -1])[0]
    scale *= _fit_similarity(face, _unproject(seen, scale)[face.indices])[0]
    fitted, R, t = _fit_similarity(face, _unproject(seen, scale)[face.indices])
    if not (np.isfinite(t).all() and fitted > 0):
        return None
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


def _protobuf_fields(message: bytes) -> Iterator[tuple[int, float | int | bytes]]:
    """Number and content of each field of a protocol buffer message; the four wire types this file needs."""
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
        key = varint()
        kind = key & 7
        if kind == 0:
            yield key >> 3, varint()
        elif kind == 5:
            yield key >> 3, struct.unpack_from("<f", message, at)[0]
            at += 4
        elif kind == 2:
            size = varint()
            yield key >> 3, message[at : at + size]
            at += size
        else:
            raise BackendError(f"the canonical face in face_landmarker.task has an unknown wire type {kind}")
