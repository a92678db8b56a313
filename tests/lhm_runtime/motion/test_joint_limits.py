import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.motion.joint_limits import LOWER_LIMITS, UPPER_LIMITS, soften_limits
from lhm_runtime.motion.procedural import breathing, wave

ROTVECS = arrays(np.float64, (55, 3), elements=st.floats(-3.1, 3.1))


@given(rotvec=ROTVECS)
def test_inside_nothing_changes_and_outside_not_much_is_left(rotvec: np.ndarray) -> None:
    softened = soften_limits(rotvec)
    inside = (rotvec >= LOWER_LIMITS) & (rotvec <= UPPER_LIMITS)
    np.testing.assert_array_equal(softened[inside], rotvec[inside])
    assert (softened <= UPPER_LIMITS + np.radians(12.01)).all()
    assert (softened >= LOWER_LIMITS - np.radians(12.01)).all()
    np.testing.assert_array_equal(softened[0], rotvec[0])  # a body may face anywhere


@given(rotvec=ROTVECS)
def test_the_stop_is_soft(rotvec: np.ndarray) -> None:
    nearby = rotvec + 1e-4
    moved = soften_limits(nearby) - soften_limits(rotvec)
    assert (moved >= 0).all()
    assert (moved <= 1e-4 + 1e-12).all()


def test_left_and_right_are_mirror_images() -> None:
    for name, left in JOINT_INDEX.items():
        if name.startswith("left_"):
            right = JOINT_INDEX[name.replace("left", "right")]
            np.testing.assert_allclose(LOWER_LIMITS[left, 0], LOWER_LIMITS[right, 0])
            np.testing.assert_allclose(LOWER_LIMITS[left, 1:], -UPPER_LIMITS[right, 1:])


def test_hinges_bend_one_way() -> None:
    knee, elbow, finger = (JOINT_INDEX[name] for name in ("left_knee", "left_elbow", "left_index2"))
    assert UPPER_LIMITS[knee, 0] > 2.4
    assert LOWER_LIMITS[knee, 0] > -0.2
    assert LOWER_LIMITS[elbow, 1] < -2.4
    assert UPPER_LIMITS[elbow, 1] < 0.3
    assert LOWER_LIMITS[finger, 2] < -1.8
    assert UPPER_LIMITS[finger, 2] < 0.3


def test_natural_motion_is_within_the_limits() -> None:
    for motion in (wave(4.0, 10.0), breathing(4.0, 10.0)):
        for rotvec in motion.rotvec.astype(np.float64):
            np.testing.assert_allclose(soften_limits(rotvec), rotvec, atol=1e-6)
