"""Someone seen from several sides: what one picture leaves open, another one tells."""

from dataclasses import replace

import numpy as np
import pytest

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.body.rotations import matrix_to_rotvec, rotvec_to_matrix
from lhm_runtime.reconstruction.fitting import BodyFit, fit_body
from lhm_runtime.reconstruction.landmark_anchors import find_anchors, pose_anchors
from lhm_runtime.reconstruction.stance import covered_share, share_stance
from lhm_runtime.types import Camera, Landmarks

SIZE = (600, 800)
FOCAL = 960.0


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel.default()


def stance(lean: float = 0.0) -> np.ndarray:
    """Arms down; knees bent towards the camera and the trunk bent forward by ``lean``."""
    rotvec = np.zeros((55, 3))
    for side, sign in (("left", 1), ("right", -1)):
        rotvec[JOINT_INDEX[f"{side}_shoulder"], 2] = -0.9 * sign
        rotvec[JOINT_INDEX[f"{side}_hip"], 0] = -lean
        rotvec[JOINT_INDEX[f"{side}_knee"], 0] = 2 * lean
    rotvec[JOINT_INDEX["spine1"], 0] = lean
    return rotvec


def landmarks(body: BodyModel, rotvec: np.ndarray, yaw: float, flat: bool = True) -> Landmarks:
    """What a tracker sees of a body turned by ``yaw``; as trackers do, it takes who leans for upright (``flat``)."""
    anchors = find_anchors(body)
    turn = rotvec_to_matrix(np.array([0.0, yaw, 0.0]))

    def pose(rotvec: np.ndarray) -> np.ndarray:
        turned = rotvec.copy()
        turned[0] = matrix_to_rotvec((turn @ rotvec_to_matrix(rotvec[:1])[0])[None])[0]
        betas = np.zeros(anchors.joint_shapes.shape[2])
        points: np.ndarray = pose_anchors(anchors, turned, np.array([0.0, 0.0, -3.2]), betas).points[:33]
        return points

    seen = pose(rotvec)
    image = FOCAL * seen[:, :2] * [1, -1] / -seen[:, 2:] + np.array(SIZE) / 2
    told = pose(stance() if flat else rotvec)
    return Landmarks(
        0.0,
        SIZE,
        body_world=(told - told[[23, 24]].mean(0)).astype(np.float32),
        body_image=image.astype(np.float32),
        body_visibility=np.ones(33, np.float32),
    )


def fits_of(body: BodyModel, marks: list[Landmarks]) -> list[BodyFit]:
    betas = np.zeros(find_anchors(body).joint_shapes.shape[2], np.float32)
    return [fit_body(one, SIZE, body, betas=betas, focal_px=FOCAL) for one in marks]


def knees(fit: BodyFit) -> float:
    return float(fit.pose.rotvec[[JOINT_INDEX["left_knee"], JOINT_INDEX["right_knee"]], 0].mean())


def test_the_side_tells_what_the_front_does_not(body: BodyModel) -> None:
    lean = 0.35
    marks = [landmarks(body, stance(lean), yaw) for yaw in (0.0, np.pi / 2)]
    alone = fits_of(body, marks)
    together = share_stance(marks, alone, body)
    assert abs(knees(together[0]) - 2 * lean) < 0.6 * abs(knees(alone[0]) - 2 * lean)
    for fit in together:
        assert fit.reprojection < 0.02
        np.testing.assert_array_equal(fit.betas, alone[0].betas)
    tied = np.abs(together[0].pose.rotvec - together[1].pose.rotvec)[1:22]
    assert tied.max() < 0.3


def test_who_moved_an_arm_may(body: BodyModel) -> None:
    other = stance()
    other[JOINT_INDEX["left_shoulder"], 2] = 0.3
    marks = [landmarks(body, stance(), 0.0, flat=False), landmarks(body, other, np.pi, flat=False)]
    first, second = share_stance(marks, fits_of(body, marks), body)
    assert max(first.reprojection, second.reprojection) < 0.02


def test_one_picture_stays_as_it_was(body: BodyModel) -> None:
    marks = [landmarks(body, stance(), 0.0, flat=False)]
    alone = fits_of(body, marks)
    (shared,) = share_stance(marks, alone, body)
    assert np.abs(shared.pose.rotvec[:22] - alone[0].pose.rotvec[:22]).max() < 0.15


def test_a_body_covers_itself_and_not_another(body: BodyModel) -> None:
    (fit,) = fits_of(body, [landmarks(body, stance(), 0.0, flat=False)])
    nobody = np.zeros(SIZE[::-1], np.float32)
    assert covered_share(fit, nobody, body) == 0
    everything = np.ones(SIZE[::-1], np.float32)
    share = covered_share(fit, everything, body)
    assert 0.03 < share < 0.5
    nearer = replace(fit, camera=Camera(fit.camera.T_camera_world, 2 * FOCAL, 2 * FOCAL, 300.0, 400.0, *SIZE))
    assert covered_share(nearer, everything, body) > 1.5 * share
