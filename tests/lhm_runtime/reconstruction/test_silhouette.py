"""Outlines tell the girth of a body: stout and slim people's are told apart, where nothing shows nothing is said."""

import cv2
import numpy as np
import pytest
from sightings import HEIGHT, WIDTH, camera_looking_down

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.motion.procedural import relaxed_pose
from lhm_runtime.reconstruction.silhouette import measure_outline
from lhm_runtime.types import Camera, SmplxPose

CLOTHING_M = 0.008


def standing() -> SmplxPose:
    relaxed = relaxed_pose()
    return SmplxPose(relaxed.rotvec, np.array([0, 0.45, -2.8], np.float32), np.zeros(0, np.float32), 0.0)


def draw_matte(body: BodyModel, betas: np.ndarray, camera: Camera) -> np.ndarray:
    """The posed body, in clothes of a uniform thickness."""
    vertices, _ = body.pose_vertices(standing(), betas)
    seen = vertices @ camera.T_camera_world[:3, :3].T
    pixels = np.round(16 * (camera.fx * seen[:, :2] / seen[:, 2:] + [camera.cx, camera.cy])).astype(np.int32)
    matte = np.zeros((HEIGHT, WIDTH), np.uint8)
    for triangle in pixels[body.faces]:
        cv2.fillConvexPoly(matte, triangle, 1, cv2.LINE_8, 4)
    radius = round(CLOTHING_M * camera.fx / 2.8)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return cv2.dilate(matte, disc).astype(np.float32)


@pytest.mark.parametrize("weight", [-1.5, 0.0, 1.5])
def test_finds_the_weight(weight: float) -> None:
    body, camera = BodyModel.default(), camera_looking_down(0.0)
    true = np.zeros(10, np.float32)
    true[body.beta_names.index("weight")] = weight
    outline = measure_outline(body, standing(), np.zeros(10, np.float32), camera, draw_matte(body, true, camera))
    assert outline is not None
    prior = 0.1 * np.eye(10)
    found = np.linalg.solve(outline.rows.T @ outline.rows + prior, outline.rows.T @ outline.targets)
    fat = body.rest_vertices(found.astype(np.float32))
    wanted, plain = body.rest_vertices(true), body.rest_vertices()
    waist = np.flatnonzero(np.abs(plain[:, 1] + 0.2) < 0.03)
    torso = waist[np.abs(plain[waist, 0]) < 0.25]
    width = np.ptp(fat[torso, 0]) - np.ptp(plain[torso, 0])
    assert width == pytest.approx(np.ptp(wanted[torso, 0]) - np.ptp(plain[torso, 0]), abs=0.012)


def test_no_outline_no_opinion() -> None:
    body, camera = BodyModel.default(), camera_looking_down(0.0)
    everywhere = np.ones((HEIGHT, WIDTH), np.float32)
    assert measure_outline(body, standing(), np.zeros(10, np.float32), camera, everywhere) is None
    assert measure_outline(body, standing(), np.zeros(10, np.float32), camera, 1 - everywhere) is None
