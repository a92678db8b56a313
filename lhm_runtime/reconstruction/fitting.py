"""A body in front of a camera, posed and shaped as the person in a picture.

Starts from the closed-form solver and refines pose, place, shape and the camera's pitch on everything that was seen:
image points of body, hands and face, and the world points' differences for depth. What one picture cannot tell is held
by priors: joints near a relaxed stance and within their limits, a body that stands upright. SMPLify (Bogo et al. 2016)
is the ancestor; deviations and weights were chosen on photos and clips. The shape of clothed trunk and limbs comes
from the matte.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from jaxtyping import Float, Float32, Float64

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.rotations import matrix_to_rotvec, rotvec_to_matrix
from lhm_runtime.errors import InvalidInputError, require_finite
from lhm_runtime.motion.expression import map_face
from lhm_runtime.motion.landmark_points import KNEES
from lhm_runtime.motion.solver import Solver
from lhm_runtime.reconstruction.fit_evidence import body_points, gather_evidence
from lhm_runtime.reconstruction.footing import stand_on_matte
from lhm_runtime.reconstruction.landmark_anchors import find_anchors, pose_anchors
from lhm_runtime.reconstruction.pose_refinement import BodyState, Evidence, misfit, refine
from lhm_runtime.reconstruction.silhouette import measure_outline
from lhm_runtime.types import Camera, Landmarks, SmplxPose

FOCAL: Final = 1.2
"""Focal length that photos are taken to have, in lengths of their longer side: 43 mm in 35 mm terms."""

STEADY: Final = 0.01
"""Deviation of the pitch from one frame of a camera to the next, radians."""
_PITCH = (0.05, 0.12)
"""Mean and deviation of how far cameras look down on people, radians."""
# weight of differences between world points, and iterations: while the pose is found, while it is made exact, and for
# the shape of the outline
_FIND, _EXACT, _RESHAPE = (2.0, 8), (0.7, 14), (0.7, 6)
_SILHOUETTES = 2
_USUAL_DISTANCE_M, _CLOSEST_M = 2.5, 0.3
_VAGUE = 0.1
_FACE_JOINTS = slice(22, 25)
_KNEE_SEEN = 0.5
_POOR_FIT = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class BodyFit:
    """A body as it stands in one picture."""

    pose: SmplxPose
    """In a world whose y is up, as far as one picture can tell, and whose origin is the camera."""
    betas: Float32[np.ndarray, " b"]
    """Shape."""
    camera: Camera
    """Looks along -z and down; sees the posed body where the picture shows the person. Its size is the picture's."""
    confidence: Float32[np.ndarray, " 55"]
    """Of each joint: 0 where it rests out of sight, 1 where the landmarks say how it turns."""
    reprojection: float
    """Mean distance of the body's points from where they were seen, as a share of the person's height."""
    warnings: tuple[str, ...]
    """What is unsure about the fit, one sentence each."""


def fit_body(
    landmarks: Landmarks,
    image_size: tuple[int, int],
    body: BodyModel,
    *,
    alpha: Float32[np.ndarray, "h w"] | None = None,
    betas: Float[np.ndarray, " b"] | None = None,
    start: BodyFit | None = None,
    focal_px: float | None = None,
) -> BodyFit:
    """Pose, place and shape of the person whose landmarks these are.

    Args:
        landmarks: of one picture.
        image_size: its width and height, pixels.
        body: the body to fit.
        alpha: matte of the person, 0 to 1: it tells the shape where both knees are in sight.
        betas: the person's shape where it is known, as in later frames of a video; alpha then says nothing more.
        start: the fit of a picture taken shortly before by the same camera; makes this one faster and steadier.
        focal_px: the camera's focal length in pixels; without it, that of ``start``, else FOCAL.

    Raises:
        InvalidInputError: landmarks without a body, or of another picture; alpha of another size; betas the body does
            not have; a focal length that is none.
    """
    _check_picture(landmarks, image_size, alpha, start)
    if focal_px is None:
        focal_px = FOCAL * max(image_size) if start is None else start.camera.fx
    if not 0 < focal_px < np.inf:
        raise InvalidInputError(f"focal_px is {focal_px}, expected a positive number of pixels")
    anchors = find_anchors(body)
    shape = np.zeros(anchors.joint_shapes.shape[2])
    known = betas if betas is not None else None if start is None else start.betas
    if known is not None:
        if len(known) > len(shape):
            raise InvalidInputError(f"betas has {len(known)} values; {len(shape)} of {body.name} can be fitted")
        require_finite("betas", known)
        shape[: len(known)] = known

    fov_y_deg = float(np.degrees(2 * np.arctan(0.5 * image_size[1] / focal_px)))
    solver = Solver(body.rest_joints(shape), fov_y_deg=fov_y_deg, face=map_face(body.expression_names))
    solved = solver.solve(landmarks)
    pitch = _PITCH if start is None else (pitch_of(start.camera), STEADY)
    evidence = gather_evidence(landmarks, anchors, solved.pose.expression, focal_px, pitch)
    state = BodyState(solved.pose.rotvec.astype(np.float64), np.zeros(3), shape, pitch[0])
    state = _refine_from(evidence, place_body(evidence, state), start, free_betas=betas is None)
    if alpha is not None and betas is None and body_points(landmarks)[2][KNEES].min() > _KNEE_SEEN:
        found = pose_anchors(evidence.anchors, state.rotvec, state.transl, state.betas).points
        evidence = stand_on_matte(evidence, found, alpha)
        for _ in range(_SILHOUETTES):
            pose, camera = level(state, body.rest_joints(state.betas), image_size, focal_px)
            outline = measure_outline(body, pose, state.betas.astype(np.float32), camera, alpha)
            state = refine(replace(evidence, outline=outline), state, _RESHAPE, free_betas=True)

    pose, camera = level(state, body.rest_joints(state.betas), image_size, focal_px)
    pose = replace(pose, expression=solved.pose.expression, timestamp_s=landmarks.timestamp_s)
    reprojection = reprojection_of(evidence, state, float(np.ptp(body.rest_vertices(state.betas)[:, 1])))
    warnings = []
    if not reprojection < _POOR_FIT:
        warnings.append(f"the body's points are {reprojection:.1%} of its height off: the pose may be wrong")
    return BodyFit(pose, state.betas.astype(np.float32), camera, solved.confidence, reprojection, tuple(warnings))


def _refine_from(evidence: Evidence, solved: BodyState, start: BodyFit | None, *, free_betas: bool) -> BodyState:
    """Refine the solver's state, or that of the picture before where it explains this one better."""
    if start is not None:
        rotvec = camera_rotvec(start)
        rotvec[_FACE_JOINTS] = solved.rotvec[_FACE_JOINTS]
        before = place_body(evidence, replace(solved, rotvec=rotvec))
        if misfit(evidence, before, _EXACT[0]) < misfit(evidence, solved, _EXACT[0]):
            return refine(evidence, before, _EXACT, free_betas=free_betas)
    found = refine(evidence, solved, _FIND, free_betas=free_betas)
    return refine(evidence, found, _EXACT, free_betas=free_betas)


def place_body(evidence: Evidence, state: BodyState) -> BodyState:
    """The same pose where its points project nearest to those seen: at depth d, u d = f x is linear in where it is."""
    points = pose_anchors(evidence.anchors, state.rotvec, np.zeros(3), state.betas).points[evidence.points]
    rays = evidence.pixels / evidence.focal_px
    weight = 1 / evidence.point_m
    rows = np.zeros((2, len(rays), 3))
    rows[0, :, 0] = rows[1, :, 1] = weight
    rows[:, :, 2] = weight * rays.T
    A, b = rows.reshape(-1, 3), (-weight * (points[:, :2] + rays * points[:, 2:]).T).ravel()
    vague = np.diag(np.full(3, _VAGUE))  # for points that fix no place
    transl = np.linalg.solve(A.T @ A + vague, A.T @ b + vague @ [0, 0, -_USUAL_DISTANCE_M])
    transl[2] = min(transl[2], -_CLOSEST_M - points[:, 2].max())
    return replace(state, transl=transl)


def level(
    state: BodyState, rest_joints: Float[np.ndarray, "55 3"], image_size: tuple[int, int], focal_px: float
) -> tuple[SmplxPose, Camera]:
    """Pose and camera in a world with a vertical, from a state in the camera's axes; no expression, no time.

    Args:
        state: where the body is, x right, y up, the camera at the origin looking along -z.
        rest_joints: its joints at zero pose.
        image_size: width and height of the picture, pixels.
        focal_px: the camera's focal length.
    """
    T_camera_world = np.eye(4)
    T_camera_world[:3, :3] = np.diag([1.0, -1.0, -1.0]) @ _turn(state.pitch)
    width, height = image_size
    camera = Camera(T_camera_world, focal_px, focal_px, width / 2, height / 2, width, height)
    levelled = _turn(-state.pitch)
    rotations = rotvec_to_matrix(state.rotvec)
    rotations[0] = levelled @ rotations[0]
    pelvis = rest_joints[0].astype(np.float64)
    transl = levelled @ (pelvis + state.transl) - pelvis
    rotvec = matrix_to_rotvec(rotations).astype(np.float32)
    return SmplxPose(rotvec, transl.astype(np.float32), np.zeros(0, np.float32), 0.0), camera


def state_of(fit: BodyFit, rest_joints: Float[np.ndarray, "55 3"]) -> BodyState:
    """What ``level`` made the fit's pose and camera of; ``rest_joints`` are those of what is posed."""
    pitch = pitch_of(fit.camera)
    pelvis = rest_joints[0].astype(np.float64)
    transl = _turn(pitch) @ (pelvis + fit.pose.transl) - pelvis
    return BodyState(camera_rotvec(fit), transl, fit.betas.astype(np.float64), pitch)


def camera_rotvec(fit: BodyFit) -> Float64[np.ndarray, "55 3"]:
    """The pose's rotvecs with the root's in the camera's axes: x right, y up, z backwards."""
    rotvec = fit.pose.rotvec.astype(np.float64)
    rotvec[0] = matrix_to_rotvec(_turn(pitch_of(fit.camera)) @ rotvec_to_matrix(rotvec[0]))
    return rotvec


def pitch_of(camera: Camera) -> float:
    """How far a camera looks down, radians."""
    return float(np.arctan2(-camera.T_camera_world[2, 1], -camera.T_camera_world[2, 2]))


def reprojection_of(evidence: Evidence, state: BodyState, height_m: float) -> float:
    """Mean distance of the body's points from where they were seen, as a share of a person of this height."""
    posed = pose_anchors(evidence.anchors, state.rotvec, state.transl, state.betas).points
    depth_m = -posed[evidence.points, 2].mean()
    height_px = evidence.focal_px * height_m / depth_m
    count = evidence.body_count or None  # without body points in the picture, all the others
    return float(np.linalg.norm(evidence.offsets(posed)[:count], axis=1).mean() / height_px)


def _turn(pitch: float) -> np.ndarray:
    return rotvec_to_matrix(np.array([pitch, 0.0, 0.0]))


def _check_picture(
    landmarks: Landmarks, image_size: tuple[int, int], alpha: np.ndarray | None, start: BodyFit | None
) -> None:
    if landmarks.image_size != image_size:
        raise InvalidInputError(f"the landmarks are of a picture of {landmarks.image_size}, image_size is {image_size}")
    if alpha is not None and alpha.shape != image_size[::-1]:
        raise InvalidInputError(
            f"alpha is {alpha.shape[1]}x{alpha.shape[0]}, the picture {image_size[0]}x{image_size[1]}"
        )
    if start is not None and (start.camera.width, start.camera.height) != image_size:
        raise InvalidInputError(
            f"start is the fit of a picture of {start.camera.width}x{start.camera.height}, "
            f"this one has {image_size[0]}x{image_size[1]}"
        )
