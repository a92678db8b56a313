"""Hands in pockets: what no photo shows of a hand lies behind the cloth, and not in front of it."""

from dataclasses import replace
from itertools import product

import numpy as np
from jaxtyping import Bool, Float, Float64
from scipy.spatial.transform import Rotation

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_INDEX, PARENTS
from lhm_runtime.body.kinematics import forward_kinematics
from lhm_runtime.body.rotations import matrix_to_rotvec
from lhm_runtime.reconstruction.anatomy import ARMS, HANDS, Anatomy, study
from lhm_runtime.reconstruction.fitting import BodyFit
from lhm_runtime.reconstruction.mesh_image import draw_mesh
from lhm_runtime.reconstruction.photo import Photo
from lhm_runtime.reconstruction.view import View, make_view

_BARE_SHARE = 0.25
"""Hands of which less looks like skin are taken to be out of sight."""
_SAME_TINT, _SHADE, _DARKEST = 0.08, 1.3, 0.05
"""Difference of tint, and of light in powers of two, up to which a colour may be the face's skin."""
_FOREARM_TURNS, _HAND_TURNS = np.arange(0.0, 0.95, 0.1), np.arange(0.0, 1.25, 0.2)
"""How far forearms and hands may turn, radians; forearms as little as can be."""
_COVER_M, _TUCKED, _HIDDEN = 0.015, 0.93, 0.6
"""A hand is put so far behind the skin of trunk and legs, with such a share of it, and taken for hidden from this."""
_PX_PER_M = 200.0


def tuck_hidden_hands(photo: Photo, fit: BodyFit, body: BodyModel) -> BodyFit:
    """Turn forearms and hands away from the camera until hands that cloth hides lie behind it; others stay.

    A hand is hidden where no tracker found it and the photo has no skin colours there.
    """
    marks = photo.landmarks
    if marks.face_image is None or not _not_found(photo):
        return fit
    anatomy = study(body)
    bare = body.rest_vertices(fit.betas).astype(np.float64)
    view = make_view(photo, fit, fit.betas, body).limited(_PX_PER_M, bare)
    tone = np.median(_colours(view, view.marks(marks.face_image)), axis=0)
    points = view.posed(bare)
    cloth: Float64[np.ndarray, "h w"] | None = None
    for side in _not_found(photo):
        hand = np.flatnonzero(anatomy.part == HANDS[side])
        there = _colours(view, view.project(points[hand])[:, :2])  # none where the picture ends before
        if len(there) and _skin_tinted(there, tone).mean() < _BARE_SHARE:
            cloth = _draw_cloth(view, points, anatomy) if cloth is None else cloth
            fit = _tuck(side, points[hand], view, cloth, fit, body)
    return fit


def hidden_hands(view: View, rest: Float[np.ndarray, "v 3"], anatomy: Anatomy) -> Bool[np.ndarray, " v"]:
    """Vertices of hands that no tracker found and that lie behind the cloth of trunk and legs."""
    hidden = np.zeros(len(rest), bool)
    points = view.posed(rest)
    marks = (view.landmarks.left_hand_image, view.landmarks.right_hand_image)
    if all(found is not None for found in marks):
        return hidden
    cloth = _draw_cloth(view, points, anatomy)
    for part, found in zip(HANDS, marks, strict=True):
        hand = anatomy.part == part
        if found is None and _share_behind(view, points[hand], cloth) > _HIDDEN:
            hidden |= hand
    return hidden


def _not_found(photo: Photo) -> list[int]:
    """Which hands the tracker did not find: 0 is the left one."""
    marks = (photo.landmarks.left_hand_image, photo.landmarks.right_hand_image)
    return [side for side, found in enumerate(marks) if found is None]


def _draw_cloth(view: View, points: Float[np.ndarray, "v 3"], anatomy: Anatomy) -> Float64[np.ndarray, "h w"]:
    """How far away trunk and legs are, without the arms that lie before them."""
    others = anatomy.faces[~np.isin(anatomy.part[anatomy.faces], HANDS + ARMS).any(axis=1)]
    depth: np.ndarray = draw_mesh(view.project(points), others, *view.size).depth.astype(np.float64)
    return depth


def _share_behind(view: View, points: Float[np.ndarray, "k 3"], cloth: Float[np.ndarray, "h w"]) -> float:
    width, height = view.size
    column, row = view.project(points)[:, :2].astype(int).T
    behind = points[:, 2] > cloth[row.clip(0, height - 1), column.clip(0, width - 1)] + _COVER_M
    return float(behind.mean())


def _tuck(
    side: int,
    hand: Float64[np.ndarray, "k 3"],
    view: View,
    cloth: Float64[np.ndarray, "h w"],
    fit: BodyFit,
    body: BodyModel,
) -> BodyFit:
    """The fit with one hand turned behind the cloth; the same fit where no turn does it."""
    camera, pose = fit.camera, fit.pose
    joints = [JOINT_INDEX[f"{('left', 'right')[side]}_{name}"] for name in ("elbow", "wrist")]
    T_camera_joint = camera.T_camera_world @ forward_kinematics(pose.rotvec, body.rest_joints(fit.betas), pose.transl)
    elbow, wrist = T_camera_joint[joints, :3, 3]
    for fore_angle, hand_angle in product(_FOREARM_TURNS, _HAND_TURNS):
        fore_turn = _away(fore_angle, wrist - elbow)
        hand_turn = _away(hand_angle, hand.mean(axis=0) - wrist) * fore_turn
        moved = elbow + fore_turn.apply(wrist - elbow) + hand_turn.apply(hand - wrist)
        if _share_behind(view, moved, cloth) < _TUCKED:
            continue
        R_above, R_fore, R_hand = T_camera_joint[[PARENTS[joints[0]], *joints], :3, :3]
        R_fore, R_hand = fore_turn.as_matrix() @ R_fore, hand_turn.as_matrix() @ R_hand
        rotvec = pose.rotvec.copy()
        rotvec[joints[0]] = matrix_to_rotvec(R_above.T @ R_fore)
        rotvec[joints[1]] = matrix_to_rotvec(R_fore.T @ R_hand)
        return replace(fit, pose=replace(pose, rotvec=rotvec))
    return fit


def _away(angle: float, bone: Float[np.ndarray, " 3"]) -> Rotation:
    """Turn the end of a bone away from the camera: what lies in the picture's plane hardly moves in it."""
    axis = np.cross(bone, [0.0, 0.0, 1.0])
    return Rotation.from_rotvec(angle * axis / np.maximum(np.linalg.norm(axis), 1e-9))


def _colours(view: View, at: Float[np.ndarray, "n 2"]) -> Float64[np.ndarray, "m 3"]:
    """The photo's colours at those places that are the person's."""
    width, height = view.size
    column, row = at.astype(int).T
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    column, row = column[inside], row[inside]
    own = view.alpha[row, column] > 0.5
    colours: np.ndarray = view.rgb[row[own], column[own]].astype(np.float64)
    return colours


def _skin_tinted(rgb: Float[np.ndarray, "n 3"], tone: Float[np.ndarray, " 3"]) -> Bool[np.ndarray, " n"]:
    """Colours of skin of this tone, in light or shade."""
    light, middle = (np.maximum(colour.sum(axis=-1), _DARKEST) for colour in (rgb, tone))
    tint = rgb / light[..., None] - tone / middle
    tinted: np.ndarray = (np.linalg.norm(tint, axis=1) < _SAME_TINT) & (np.abs(np.log2(light / middle)) < _SHADE)
    return tinted
