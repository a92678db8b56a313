"""Where a person stands before the camera: the translation that puts a posed skeleton onto its image points."""

import numpy as np
from jaxtyping import Float, Float64

from lhm_runtime.body.joints import JOINT_INDEX, PARENTS
from lhm_runtime.body.rotations import rotvec_to_matrix
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.motion.landmark_points import EARS, EYES, NOSE, body_points_at_rest
from lhm_runtime.types import Camera, Landmarks

_FOCAL = 1.0
"""Focal length in lengths of the picture's longer side: phones have 0.7 to 0.8, filming crops to 0.9, webcams 0.8 to
1.1; too long errs on the side of less perspective."""
_EYE_TO_BALL = 0.92
"""From the balls of the feet to the eyes, in body heights (0.936 minus 0.02; Drillis and Contini 1966)."""
_OUTLIER_M = 0.08
"""Points further off than this have little say."""
_NEAREST_M = 0.1
_UPWARDS = np.array([1.0, -1.0])
_FEWEST = 3

_FACE_POINTS = [NOSE, *EYES, *EARS]
_JOINT_POINTS = {
    11: "left_shoulder",
    12: "right_shoulder",
    13: "left_elbow",
    14: "right_elbow",
    15: "left_wrist",
    16: "right_wrist",
    23: "left_hip",
    24: "right_hip",
    25: "left_knee",
    26: "right_knee",
    27: "left_ankle",
    28: "right_ankle",
}
_JOINTS = np.array([JOINT_INDEX[name] for name in _JOINT_POINTS.values()])
_POINTS = np.array([*_JOINT_POINTS, *_FACE_POINTS])
_HEAD = JOINT_INDEX["head"]
_BODY = JOINT_INDEX["right_wrist"] + 1
"""Joints before face and fingers: those that bear the points above."""


def _ancestors() -> list[np.ndarray]:
    """[23] ancestors of each body joint 1, 2 and 4 steps up; past the root is entry 22, its own parent."""
    up = np.append(PARENTS[:_BODY], _BODY)
    up[0] = _BODY
    return [up, up[up], up[up][up[up]]]


_ANCESTORS = _ancestors()


class Placement:
    """Finds the translation of one avatar; its camera stands at the origin, looks along -z and has y up."""

    def __init__(
        self, rest_joints: Float[np.ndarray, "55 3"], *, fov_y_deg: float | None, person_height_m: float | None
    ) -> None:
        """Arguments and errors as for ``Solver``."""
        if fov_y_deg is not None and not 0 < fov_y_deg < 170:
            raise InvalidInputError(f"fov_y_deg is {fov_y_deg}, expected an angle between 0 and 170 degrees")
        if person_height_m is not None and not 0.3 < person_height_m < 3:
            raise InvalidInputError(f"person_height_m is {person_height_m}, expected 0.3 to 3 metres")
        self._fov_y_deg = fov_y_deg
        eye, ball = (rest_joints[JOINT_INDEX[name], 1] for name in ("left_eye_smplhf", "left_foot"))
        height_m = float(eye - ball) / _EYE_TO_BALL
        self._size = 1.0 if person_height_m is None else person_height_m / height_m
        self._pelvis = rest_joints[0].astype(np.float64)
        # matrices of the bones, after them what lies above the root
        self._bones = np.tile(np.eye(4), (_BODY + 1, 1, 1))
        self._bones[:_BODY, :3, 3] = rest_joints[:_BODY]
        self._bones[1:_BODY, :3, 3] -= rest_joints[PARENTS[1:_BODY]]
        self._face = body_points_at_rest(rest_joints)[_FACE_POINTS] - rest_joints[_HEAD]

    def camera(self, image_size: tuple[int, int]) -> Camera:
        """The camera that took pictures of ``image_size``, width and height."""
        width, height = image_size
        focal_px = self._focal_px(image_size)
        return Camera(np.diag([1.0, -1.0, -1.0, 1.0]), focal_px, focal_px, width / 2, height / 2, width, height)

    def lift(
        self,
        points: Float64[np.ndarray, "n 3"],
        image: np.ndarray,
        seen: Float64[np.ndarray, " n"],
        size: tuple[int, int],
    ) -> Float64[np.ndarray, "n 3"]:
        """World points moved to where their image points are seen, each at its own depth.

        A tracker is much surer of where a point is in the picture than of where it is in space. Points out of sight
        move along with the others, and nothing does where fewer than three are in sight or one is behind the camera.
        """
        rays = self._rays(image, seen, size)
        transl = _fit_transl(points, rays, seen, rounds=1)
        if transl is None:
            return points
        lifted: np.ndarray = points + transl
        lifted[:, :2] += seen[:, None] * (-rays * lifted[:, 2:] - lifted[:, :2])
        return lifted

    def place(
        self, rotvec: Float64[np.ndarray, "55 3"], landmarks: Landmarks, seen: Float64[np.ndarray, " 33"]
    ) -> Float64[np.ndarray, " 3"] | None:
        """``transl`` of a pose; None where fewer than three points in sight fix none."""
        if landmarks.body_image is None:
            return None
        seen = seen[_POINTS]
        rays = self._rays(landmarks.body_image[_POINTS], seen, landmarks.image_size)
        transl = _fit_transl(self._skeleton(rotvec), rays, seen, rounds=3)
        if transl is None:
            return None
        placed: np.ndarray = self._size * (self._pelvis + transl) - self._pelvis
        return placed

    def _skeleton(self, rotvec: np.ndarray) -> np.ndarray:
        """Where a pose without translation has the points; forward kinematics of the joints that matter here."""
        transforms = self._bones.copy()
        transforms[:_BODY, :3, :3] = rotvec_to_matrix(rotvec[:_BODY])
        for ancestors in _ANCESTORS:
            transforms = transforms[ancestors] @ transforms
        head = transforms[_HEAD]
        return np.concatenate([transforms[_JOINTS, :3, 3], self._face @ head[:3, :3].T + head[:3, 3]])

    def _rays(self, image: np.ndarray, seen: np.ndarray, size: tuple[int, int]) -> Float64[np.ndarray, "n 2"]:
        """x and y, at depth 1, of the directions in which image points are seen."""
        centre = np.array([0.5 * size[0], 0.5 * size[1]])
        rays: np.ndarray = (image - centre) * (_UPWARDS / self._focal_px(size))
        rays[seen <= 0] = 0  # may be no numbers
        return rays

    def _focal_px(self, image_size: tuple[int, int]) -> float:
        if self._fov_y_deg is None:
            return _FOCAL * max(image_size)
        return 0.5 * image_size[1] / float(np.tan(0.5 * np.radians(self._fov_y_deg)))


def _fit_transl(points: np.ndarray, rays: np.ndarray, seen: np.ndarray, rounds: int) -> np.ndarray | None:
    """Translation that puts points onto their rays; None where it is not determined or puts them behind the camera.

    A point p + t on the ray r at depth -(p_z + t_z) has t_xy + r t_z = -(p_xy + r p_z): linear in t, solved by least
    squares, in each further round with the points that disagree weighed down.
    """
    clear = seen > 0.5
    if clear.sum() < _FEWEST:
        return None
    wanted = -(points[:, :2] + rays * points[:, 2:])
    products = np.empty((len(points), 7))
    products[:, 0] = 1
    products[:, 1:3], products[:, 3:5] = rays, wanted
    products[:, 5], products[:, 6] = np.vecdot(rays, rays), np.vecdot(rays, wanted)
    weight = seen
    for left in reversed(range(rounds)):
        # weighted means, the last two about those of their factors
        total, *sums = (weight @ products).tolist()
        ray_x, ray_y, want_x, want_y, spread, agreement = (each / total for each in sums)
        spread -= ray_x * ray_x + ray_y * ray_y
        if spread < 1e-9:
            return None
        z = (agreement - ray_x * want_x - ray_y * want_y) / spread
        transl = np.array([want_x - ray_x * z, want_y - ray_y * z, z])
        if left:
            off = wanted - transl[:2] - rays * z
            weight = seen / (1 + np.vecdot(off, off) * _OUTLIER_M**-2)
    if not points[clear, 2].max() + z < -_NEAREST_M:
        return None
    return transl
