"""Cameras see what they say they see."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.rasterizer import Framing, frame_person, look_at, orbit
from lhm_runtime.types import Camera

coordinate = st.floats(-5, 5)
point = st.tuples(coordinate, coordinate, coordinate).map(np.array)


def project(camera: Camera, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [n, 2] and depths [n]."""
    in_camera = points @ camera.T_camera_world[:3, :3].T + camera.T_camera_world[:3, 3]
    z = in_camera[:, 2]
    return in_camera[:, :2] / z[:, None] * [camera.fx, camera.fy] + [camera.cx, camera.cy], z


@given(point, point, st.floats(5, 120))
def test_look_at_centres_its_target_with_up_upwards(eye, target, fov) -> None:
    aside = np.linalg.norm((target - eye)[[0, 2]])
    if aside < 1e-3:
        return
    camera = look_at(eye, target, 200, 100, fov)
    R = camera.T_camera_world[:3, :3]
    np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(R) == pytest.approx(1)
    pixels, depth = project(camera, np.array([target, [target[0], target[1] + 1e-3, target[2]]]))
    np.testing.assert_allclose(pixels[0], [100, 50], atol=1e-6)
    assert depth[0] == pytest.approx(np.linalg.norm(target - eye))
    assert pixels[1, 1] < pixels[0, 1]  # y points down in pictures


def test_orbit_at_yaw_0_faces_the_person_and_at_a_quarter_sees_their_left() -> None:
    left, front = np.array([[1.0, 0, 0]]), np.array([[0, 0, 1.0]])
    face = orbit(np.zeros(3), 3.0, 100, 100)
    assert project(face, left)[0][0, 0] > 50  # their left is on the viewer's right
    assert project(face, front)[1][0] == pytest.approx(2)
    side = orbit(np.zeros(3), 3.0, 100, 100, yaw=np.pi / 2)
    assert project(side, left)[1][0] == pytest.approx(2)
    above = orbit(np.zeros(3), 3.0, 100, 100, pitch=0.5)
    assert project(above, np.array([[0, 1.0, 0]]))[1][0] < 3


@pytest.mark.parametrize("framing", get_args(Framing))
@pytest.mark.parametrize(("width", "height"), [(512, 512), (720, 1280), (1280, 720)])
@pytest.mark.parametrize("yaw", [0.0, 0.8, np.pi / 2, np.pi])
def test_framings_hold_what_they_name(framing, width, height, yaw) -> None:
    body = BodyModel.default()
    joints, vertices = body.rest_joints(), body.rest_vertices()
    camera = frame_person(joints, framing, width, height, yaw=yaw)
    pixels, _ = project(camera, vertices)
    lowest = {"full": -np.inf, "half": joints[JOINT_INDEX["pelvis"], 1], "head": joints[JOINT_INDEX["neck"], 1]}
    wanted = vertices[:, 1] > lowest[framing] + 0.05  # near the lower edge the picture may cut
    if framing != "full":  # arms stretched out are not part of a portrait
        wanted &= np.abs(vertices[:, 0]) < 0.12
    assert (pixels[wanted] >= 0).all()
    assert (pixels[wanted] <= [width, height]).all()
    span = np.ptp(pixels[wanted], axis=0) / [width, height]
    assert span.max() > 0.4


def test_impossible_cameras_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="no direction to look in"):
        look_at(np.zeros(3), np.array([0, 2.0, 0]), 10, 10)
    with pytest.raises(InvalidInputError, match="fov_y_deg is 0"):
        look_at(np.zeros(3), np.ones(3), 10, 10, 0.0)
    with pytest.raises(InvalidInputError, match="distance_m is -1"):
        orbit(np.zeros(3), -1.0, 10, 10)
    with pytest.raises(InvalidInputError, match=r"Camera.width is 9000, expected 1 to 8192"):
        orbit(np.zeros(3), 1.0, 9000, 10)
    joints = np.zeros((55, 3), np.float32)
    joints[3, 1] = np.nan
    with pytest.raises(InvalidInputError, match=r"joints\[3, 1\] is nan"):
        frame_person(joints, "full", 10, 10)
