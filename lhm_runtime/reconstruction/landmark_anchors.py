"""Where MediaPipe's points sit on a body, and how they move with its pose, place and shape."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import numpy as np
from jaxtyping import Float, Float64, Int64
from scipy.sparse.csgraph import connected_components

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_INDEX, NUM_JOINTS, PARENTS
from lhm_runtime.body.kinematics import forward_kinematics
from lhm_runtime.motion.landmark_points import FINGER_STARTS, body_points_at_rest, finger_bones_at_rest
from lhm_runtime.reconstruction.builtin_person.figure import ring_average

MOST_BETAS: Final = 16
"""Shape coefficients that are fitted at most: what landmarks and outlines can tell is in the first ones."""

HAND_ANCHORS: Final = (slice(33, 54), slice(54, 75))
"""Anchors of the points of the left and the right hand; the 33 before them are the body's."""
FACE_ANCHORS: Final = slice(75, None)
"""Of the face points; ``Anchors.face_points`` says which of the 478 they are."""

_EVERY_FACE_POINT = 9
# corners of eyes and mouth, nose, brow, and the outline
_FACE_CONTOURS = [33, 133, 362, 263, 1, 4, 61, 291, 0, 17, 152, 10, 234, 454, 127, 356, 93, 323, 58, 288]
_FACE_OUTLINE = [172, 397, 136, 365, 150, 379]
_FACE_OVAL_POINTS = 468
_LOWER_LIP = {95: 96, 88: 89, 178: 179, 87: 86, 14: 15, 317: 316, 402: 403, 318: 319, 324: 325}
"""Points of the lower lip's edge, and those just below, which are nowhere near the upper lip."""
_JAW_COUNTS, _AHEAD_M = 0.3, 0.0007
"""What the way that a jaw carries points counts for in how far apart they are; the foremost of what is this near."""

# bone each left body point is rigid to; a joint is where the bone above it ends
_BONES = {
    **dict.fromkeys(range(11), "head"),
    11: "left_collar",
    13: "left_shoulder",
    15: "left_elbow",
    17: "left_wrist",
    19: "left_wrist",
    21: "left_thumb1",
    23: "pelvis",
    25: "left_hip",
    27: "left_knee",
    29: "left_ankle",
    31: "left_foot",
}
_OFFSETS_MM = {
    7: (-10, -12),
    11: (-3, 16),
    13: (-8, 4),
    15: (6, -1),
    17: (-13, 10),
    19: (-10, -8),
    23: (-11, -18),
    25: (-11, -6),
    27: (4, 5),
    29: (-8, -10),
    31: (12, 15),
}
"""From where ``body_points_at_rest`` has a left body point to where MediaPipe sees it, outwards and up at zero pose:
the mean of what was left over on 6 photos and 8 frames of 2 clips. Depth is too uncertain there to tell."""


@dataclass(frozen=True, slots=True, eq=False)
class Anchors:
    """Points that follow the skeleton of one body: p points, b betas."""

    joints: Float64[np.ndarray, "55 3"]
    """Joints at zero pose and mean shape, metres."""
    joint_shapes: Float64[np.ndarray, "55 3 b"]
    """Their displacement per unit of each beta."""
    points: Float64[np.ndarray, "p 3"]
    """Points at zero pose and mean shape."""
    point_shapes: Float64[np.ndarray, "p 3 b"]
    """Their displacement per unit of each beta."""
    weights: Float64[np.ndarray, "p 55"]
    """Share of each bone in each point, rows sum to 1."""
    point_expressions: Float64[np.ndarray, "p 3 e"]
    """Displacement of the points per unit of each expression coefficient."""
    face_points: Int64[np.ndarray, " m"]
    """Which face points the last m of the anchors are."""

    def select(self, indices: Int64[np.ndarray, " q"], expression: Float64[np.ndarray, " e"]) -> "Anchors":
        """Only these points, with this expression in place for good."""
        return replace(
            self,
            points=self.points[indices] + self.point_expressions[indices] @ expression,
            point_shapes=self.point_shapes[indices],
            weights=self.weights[indices],
            point_expressions=np.zeros((len(indices), 3, 0)),
        )


@dataclass(frozen=True, slots=True, eq=False)
class PosedAnchors:
    """Anchors in the world, and what their derivatives are made of."""

    points: Float64[np.ndarray, "p 3"]
    """World, metres."""
    T_world_joint: Float64[np.ndarray, "55 4 4"]


@lru_cache(maxsize=4)
def embed_face(body: BodyModel) -> tuple[Int64[np.ndarray, "m 3"], Float64[np.ndarray, "m 3"]] | None:
    """Vertices around each face point and their shares; None where the body has no embedding.

    The lower lip's edge is moved there: found in a picture of the face from the front, it came to lie on tongue and
    upper lip in the body's file. It goes where it is seen, on skin that the jaw carries as far as what is below it,
    which tells lips that touch apart.
    """
    if body.mediapipe_faces_idx is None or body.mediapipe_bary_coords is None:
        return None
    corners = body.faces[body.mediapipe_faces_idx].astype(np.int64)
    bary = body.mediapipe_bary_coords.astype(np.float64)
    vertices = body.v_template.astype(np.float64)
    _, piece = connected_components(ring_average(body.faces.astype(np.int64), len(vertices)), directed=False)
    skin = int(np.bincount(piece).argmax())
    jaw = np.zeros(len(vertices))
    if "jawOpen" in body.expression_names:
        jaw = body.expression_directions[:, 1, body.expression_names.index("jawOpen")].astype(np.float64)
    place = np.concatenate([vertices[:, :2], _JAW_COUNTS * jaw[:, None]], axis=1)
    own = np.flatnonzero(piece == skin)
    for point, like in _LOWER_LIP.items() if len(corners) >= _FACE_OVAL_POINTS else ():
        seen = np.append((bary[point] @ place[corners[point]])[:2], bary[like] @ place[corners[like], 2])
        apart = np.linalg.norm(place[own] - seen, axis=1)
        near = own[apart < apart.min() + _AHEAD_M]
        corners[point], bary[point] = near[vertices[near, 2].argmax()], (1, 0, 0)
    return corners, bary


def limb_anchors(rest_joints: Float[np.ndarray, "55 3"]) -> Anchors:
    """Anchors of the 33 body points and 2 x 21 hand points of a skeleton that keeps its shape, as an avatar's does."""
    points = _limb_points(rest_joints.astype(np.float64))
    return Anchors(
        joints=rest_joints.astype(np.float64),
        joint_shapes=np.zeros((NUM_JOINTS, 3, 0)),
        points=points,
        point_shapes=np.zeros((len(points), 3, 0)),
        weights=_limb_weights(),
        point_expressions=np.zeros((len(points), 3, 0)),
        face_points=np.zeros(0, np.int64),
    )


@lru_cache(maxsize=4)
def find_anchors(body: BodyModel) -> Anchors:
    """Anchors of the 33 body points, 2 x 21 hand points and some face points (none where the body has no embedding)."""
    b = min(MOST_BETAS, body.shape_directions.shape[2])
    shapes = np.vstack([np.zeros((1, b)), np.eye(b)]).astype(np.float32)
    joints = np.stack([body.rest_joints(betas) for betas in shapes]).astype(np.float64)
    points = np.stack([_limb_points(rest_joints) for rest_joints in joints])
    face_points, face, face_shapes, face_expressions, face_weights = _face_anchors(body, b)
    limb_expressions = np.zeros((points.shape[1], 3, body.expression_directions.shape[2]))
    return Anchors(
        joints=joints[0],
        joint_shapes=np.moveaxis(joints[1:] - joints[0], 0, -1),
        points=np.concatenate([points[0], face]),
        point_shapes=np.concatenate([np.moveaxis(points[1:] - points[0], 0, -1), face_shapes]),
        weights=np.concatenate([_limb_weights(), face_weights]),
        point_expressions=np.concatenate([limb_expressions, face_expressions]),
        face_points=face_points,
    )


def pose_anchors(
    anchors: Anchors,
    rotvec: Float64[np.ndarray, "55 3"],
    transl: Float64[np.ndarray, " 3"],
    betas: Float64[np.ndarray, " b"],
) -> PosedAnchors:
    """The points in the world, by linear blend skinning."""
    J = anchors.joints + anchors.joint_shapes @ betas
    T_world_joint = forward_kinematics(rotvec, J, transl)
    R, T = T_world_joint[:, :3, :3], T_world_joint[:, :3, 3]
    v = anchors.points + anchors.point_shapes @ betas
    turned = ((anchors.weights @ R.reshape(NUM_JOINTS, 9)).reshape(-1, 3, 3) @ v[:, :, None])[:, :, 0]
    return PosedAnchors(turned + anchors.weights @ (T - (R @ J[:, :, None])[:, :, 0]), T_world_joint)


def differentiate_anchors(
    anchors: Anchors,
    posed: PosedAnchors,
    rotvec: Float64[np.ndarray, "55 3"],
    betas: Float64[np.ndarray, " b"],
    moving: Int64[np.ndarray, " j"],
) -> tuple[Float64[np.ndarray, "p 3 j 3"], Float64[np.ndarray, "p 3 b"]]:
    """Derivatives of the points by the rotvecs of the ``moving`` joints and by betas.

    A turn of joint j by a small world rotation d moves what hangs on it by d x (p - p_j); a change of its rotvec turns
    it by R_world_j J_r(rotvec), with the right Jacobian J_r of the exponential map (Chirikjian 2012).
    """
    J = anchors.joints + anchors.joint_shapes @ betas
    v = anchors.points + anchors.point_shapes @ betas
    R, T = posed.T_world_joint[:, :3, :3], posed.T_world_joint[:, :3, 3]
    p, below = len(v), _IS_BELOW[:, moving]

    # where each point would be if it were rigid to each bone, summed over the bones that hang on each moving joint
    rigid = v @ R.reshape(-1, 3).T + (T - (R @ J[:, :, None])[:, :, 0]).ravel()
    carried = (anchors.weights[:, :, None] * rigid.reshape(p, NUM_JOINTS, 3)).swapaxes(1, 2) @ below
    levers = carried - (anchors.weights @ below)[:, None] * T[moving].T
    axes = R[moving] @ right_jacobian(rotvec[moving])
    turned = levers.transpose(2, 0, 1).reshape(len(moving), p, 3) @ _MINUS_CROSS  # minus [lever]x, row by row
    by_rotvec = (turned.reshape(len(moving), 3 * p, 3) @ axes).reshape(len(moving), p, 3, 3).transpose(1, 2, 0, 3)

    bones = anchors.joint_shapes.copy()
    bones[1:] = R[PARENTS[1:]] @ (anchors.joint_shapes[1:] - anchors.joint_shapes[PARENTS[1:]])
    b = len(betas)
    shift = (_IS_BELOW @ bones.reshape(NUM_JOINTS, 3 * b)) - (R @ anchors.joint_shapes).reshape(NUM_JOINTS, 3 * b)
    blended = (anchors.weights @ R.reshape(NUM_JOINTS, 9)).reshape(p, 3, 3)
    by_betas = blended @ anchors.point_shapes + (anchors.weights @ shift).reshape(p, 3, b)
    return by_rotvec, by_betas


def right_jacobian(rotvec: Float64[np.ndarray, "j 3"]) -> Float64[np.ndarray, "j 3 3"]:
    """J_r with exp(r + d) = exp(r) exp(J_r d) for small d."""
    angle = np.maximum(np.linalg.norm(rotvec, axis=1), 1e-5)[
        :, None, None
    ]  # below it both quotients are at their limit
    cross = -(rotvec @ _MINUS_CROSS).reshape(-1, 3, 3)
    # 1 - cos loses all digits near 0: by half angles
    first = 0.5 * (np.sin(0.5 * angle) / (0.5 * angle)) ** 2
    second = np.where(angle > 1e-2, (angle - np.sin(angle)) / angle**3, 1 / 6)
    jacobian: np.ndarray = np.eye(3) - first * cross + second * (cross @ cross)
    return jacobian


def _ancestry() -> np.ndarray:
    below = np.eye(NUM_JOINTS)
    for joint in range(1, NUM_JOINTS):
        below[joint] += below[PARENTS[joint]]
    return below


_IS_BELOW = _ancestry()
"""[55, 55]: 1 where the first joint is, or hangs on, the second."""
_MINUS_CROSS = np.cross(np.eye(3)[:, None], np.eye(3)[None, :]).reshape(3, 9)
"""v @ _MINUS_CROSS is -[v]x, row by row."""


def _limb_points(rest_joints: np.ndarray) -> np.ndarray:
    """[75, 3] body and hand points at zero pose."""
    body = body_points_at_rest(rest_joints)
    for point, (outwards, up) in _OFFSETS_MM.items():
        body[point, :2] += 1e-3 * outwards, 1e-3 * up
        body[point + 1, :2] += -1e-3 * outwards, 1e-3 * up
    tips = finger_bones_at_rest(rest_joints)[:, :, 2]
    hands = np.empty((2, 21, 3))
    for side in range(2):
        hands[side, 0] = rest_joints[JOINT_INDEX["left_wrist"] + side]
        for finger, start in enumerate(FINGER_STARTS):
            joints = 25 + 15 * side + 3 * finger + np.arange(3)
            hands[side, start : start + 3] = rest_joints[joints]
            hands[side, start + 3] = rest_joints[joints[2]] + tips[side, finger]
    return np.concatenate([body, *hands])


def _limb_weights() -> np.ndarray:
    """[75, 55] the bone each of them is rigid to."""
    bones = np.empty(75, np.int64)
    for point, name in _BONES.items():
        bones[point] = JOINT_INDEX[name]
        if point > 10:
            bones[point + 1] = JOINT_INDEX[name.replace("left", "right")]
    for side, hand in enumerate(HAND_ANCHORS):
        at = np.empty(21, np.int64)
        at[0] = JOINT_INDEX["left_elbow"] + side
        for finger, start in enumerate(FINGER_STARTS):
            first = 25 + 15 * side + 3 * finger
            at[start : start + 4] = JOINT_INDEX["left_wrist"] + side, first, first + 1, first + 2
        bones[hand] = at
    return np.eye(NUM_JOINTS)[bones]


def _face_anchors(body: BodyModel, b: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Which face points, where, their shapes [m,3,b] and expressions [m,3,e], and weights [m,55]."""
    count = 0 if body.mediapipe_faces_idx is None else len(body.mediapipe_faces_idx)
    chosen = np.unique([*range(0, _FACE_OVAL_POINTS, _EVERY_FACE_POINT), *_FACE_CONTOURS, *_FACE_OUTLINE])
    chosen = chosen[chosen < count]
    embedding = embed_face(body)
    if embedding is None:
        corners, bary = np.zeros((0, 3), np.int64), np.zeros((0, 3))
    else:
        corners, bary = (part[chosen] for part in embedding)

    def on_surface(values: np.ndarray) -> np.ndarray:
        blended: np.ndarray = np.einsum("mk,mk...->m...", bary, values[corners])
        return blended

    return (
        chosen,
        on_surface(body.v_template),
        on_surface(body.shape_directions[:, :, :b]),
        on_surface(body.expression_directions),
        on_surface(body.skin_weights),
    )
