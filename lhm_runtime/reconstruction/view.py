"""A photo and the body fitted to it, in the camera's frame: what the stages of the projection look at."""

from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Float64

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.kinematics import joint_matrices
from lhm_runtime.reconstruction.fitting import BodyFit
from lhm_runtime.reconstruction.matting import distance_to_border
from lhm_runtime.reconstruction.photo import Photo
from lhm_runtime.types import Landmarks, SmplxPose


@dataclass(frozen=True, eq=False)
class View:
    """One photo at some resolution. Points are in the camera's frame: x right, y down, z forward, metres."""

    rgb: Float32[np.ndarray, "h w 3"]
    """Straight colours in [0, 1]."""
    alpha: Float32[np.ndarray, "h w"]
    """The person's matte."""
    focal: Float64[np.ndarray, " 2"]
    """Focal lengths, pixels."""
    centre: Float64[np.ndarray, " 2"]
    """Principal point, pixels."""
    scale: float
    """Pixels of this view along a pixel of the photo."""
    landmarks: Landmarks
    """In pixels of the photo, not of this view."""
    pose: SmplxPose
    linear: Float64[np.ndarray, "v 3 3"]
    """What turns each vertex from zero pose to the camera."""
    offset: Float64[np.ndarray, "v 3"]
    """What is added then."""
    smile: Float64[np.ndarray, "v 3"]
    """Displacement of each vertex, at zero pose, by the expression in the photo."""
    zero_to_camera: Float64[np.ndarray, "55 3 4"]
    """What each joint does to the points it carries."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, pixels."""
        return self.rgb.shape[1], self.rgb.shape[0]

    @cached_property
    def extended(self) -> Float32[np.ndarray, "h w 3"]:
        """The person's colours continued over the background (pull-push, Gortler et al. 1996)."""
        weight = np.clip((self.alpha - 0.75) / 0.25, 0, 1)
        return _pull_push(self.rgb * weight[:, :, None], weight)

    def posed(self, rest: Float[np.ndarray, "v 3"]) -> Float64[np.ndarray, "v 3"]:
        """Vertices of the neutral zero pose, as this photo shows them."""
        moved: np.ndarray = np.einsum("vij,vj->vi", self.linear, rest + self.smile) + self.offset
        return moved

    def unposed(self, points: Float[np.ndarray, "v 3"]) -> Float64[np.ndarray, "v 3"]:
        """Undo ``posed``."""
        rest: np.ndarray = np.linalg.solve(self.linear, (points - self.offset)[:, :, None])[:, :, 0] - self.smile
        return rest

    def carried_by(self, weights: Float[np.ndarray, "v 55"]) -> "View":
        """The same view of a body with other skin weights."""
        blended = (weights.astype(np.float64) @ self.zero_to_camera.reshape(55, 12)).reshape(-1, 3, 4)
        return replace(self, linear=blended[:, :, :3], offset=blended[:, :, 3])

    def project(self, points: Float[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 3"]:
        """Pixels (x, y) and depth."""
        depth = np.maximum(points[:, 2:], 1e-3)
        return np.concatenate([self.focal * points[:, :2] / depth + self.centre, depth], axis=1)

    def marks(self, points: Float[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 2"]:
        """Image landmarks of the photo in pixels of this view."""
        return points.astype(np.float64) * self.scale

    def pixels_per_metre(self, points: Float[np.ndarray, "v 3"]) -> float:
        """At the depth of most of ``points``."""
        return float(self.focal[0] / np.median(points[:, 2]))

    def limited(self, pixels_per_metre: float, rest: Float[np.ndarray, "v 3"]) -> "View":
        """The same view at no more than this resolution."""
        return self.resized(pixels_per_metre / self.pixels_per_metre(self.posed(rest)))

    def resized(self, factor: float) -> "View":
        """The same view with ``factor`` (at most 1) times as many pixels a side."""
        if factor >= 1:
            return self
        width, height = (max(1, round(side * factor)) for side in self.size)
        fx, fy = width / self.size[0], height / self.size[1]
        return replace(
            self,
            rgb=cv2.resize(self.rgb, (width, height), interpolation=cv2.INTER_AREA),
            alpha=cv2.resize(self.alpha, (width, height), interpolation=cv2.INTER_AREA),
            focal=self.focal * [fx, fy],
            centre=self.centre * [fx, fy],
            scale=self.scale * fx,
        )


def _pull_push(
    weighted: Float32[np.ndarray, "h w 3"], weight: Float32[np.ndarray, "h w"]
) -> Float32[np.ndarray, "h w 3"]:
    """Colours averaged where there are any, carried from coarser levels where there are none."""
    height, width = weight.shape
    if min(height, width) <= 2:
        flat: np.ndarray = weighted / np.maximum(weight, 1e-6)[:, :, None]
        return flat
    half = ((width + 1) // 2, (height + 1) // 2)
    coarse = _pull_push(
        cv2.resize(weighted, half, interpolation=cv2.INTER_AREA), cv2.resize(weight, half, interpolation=cv2.INTER_AREA)
    )
    behind = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    filled: np.ndarray = weighted + behind * (1 - weight)[:, :, None]
    return filled


def signed_distance(matte: Bool[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Pixels to the matte's border, positive inside."""
    distance: np.ndarray = distance_to_border(matte) - distance_to_border(~matte)
    return distance


def make_view(photo: Photo, fit: BodyFit, betas: Float[np.ndarray, " b"], body: BodyModel) -> View:
    """Put a body of shape ``betas`` before a photo, in the pose of its fit."""
    camera = fit.camera
    zero_to_world = joint_matrices(fit.pose, body.rest_joints(betas)).astype(np.float64)
    zero_to_camera = camera.T_camera_world[:3, :3] @ zero_to_world
    zero_to_camera[:, :, 3] += camera.T_camera_world[:3, 3]
    blended = (body.skin_weights.astype(np.float64) @ zero_to_camera.reshape(55, 12)).reshape(-1, 3, 4)
    return View(
        rgb=photo.rgb.astype(np.float32) / 255,
        alpha=photo.alpha,
        focal=np.array([camera.fx, camera.fy]),
        centre=np.array([camera.cx, camera.cy]),
        scale=1.0,
        landmarks=photo.landmarks,
        pose=fit.pose,
        linear=blended[:, :, :3],
        offset=blended[:, :, 3],
        zero_to_camera=zero_to_camera,
        smile=body.expression_directions[:, :, : len(fit.pose.expression)].astype(np.float64)
        @ fit.pose.expression.astype(np.float64),
    )
