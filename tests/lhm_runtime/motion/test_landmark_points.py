import numpy as np

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.motion.ideal_landmarks import IdealTracker
from lhm_runtime.motion.landmark_points import (
    ANKLES,
    BLENDSHAPE_NAMES,
    EARS,
    HEELS,
    NOSE,
    TOES,
    WRISTS,
    body_points_at_rest,
    finger_bones_at_rest,
    mirror,
)
from lhm_runtime.motion.procedural import relaxed_pose
from lhm_runtime.rasterizer.cameras import look_at
from lhm_runtime.types import Landmarks

REST = BodyModel.default().rest_joints()
CAMERA = look_at(np.array([0.0, -0.4, 4.0]), np.array([0.0, -0.4, 0.0]), 300, 200)


def test_blendshapes_are_the_free_bodys_after_neutral() -> None:
    assert len(BLENDSHAPE_NAMES) == 52
    assert BLENDSHAPE_NAMES[0] == "_neutral"
    assert BLENDSHAPE_NAMES[1:] == BodyModel.default().expression_names[:51]


def test_points_of_a_face_and_of_feet_are_where_they_belong() -> None:
    points = body_points_at_rest(REST)
    vertices = BodyModel.default().v_template
    distance = np.linalg.norm(points[[NOSE, *EARS, 9, 10], None] - vertices[None], axis=-1).min(1)
    assert distance.max() < 0.03  # on the surface of the head
    assert points[NOSE, 2] > points[EARS[0], 2] + 0.1
    assert points[EARS[0], 0] > 0.05
    for left_or_right in range(2):
        heel, toe, ankle = points[HEELS[left_or_right]], points[TOES[left_or_right]], points[ANKLES[left_or_right]]
        assert heel[2] < ankle[2] < toe[2]
        assert heel[1] == toe[1] < ankle[1]


def test_fingers_have_three_bones_in_their_direction() -> None:
    bones = finger_bones_at_rest(REST)
    assert bones.shape == (2, 5, 3, 3)
    assert (bones[0, :4, :, 0] > 0.01).all()
    assert (bones[1, :4, :, 0] < -0.01).all()


def test_mirroring_twice_is_nothing_and_once_swaps_sides() -> None:
    seen = IdealTracker(REST, CAMERA).see(relaxed_pose())
    scores = np.linspace(0, 1, 52).astype(np.float32)
    T = np.eye(4, dtype=np.float32)
    T[:3, :3] = [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]
    face = np.random.default_rng(0).uniform(0, 200, (478, 2)).astype(np.float32)
    landmarks = Landmarks(
        **{name: getattr(seen, name) for name in Landmarks.__slots__}
        | {"face_blendshapes": scores, "T_camera_face": T, "face_image": face}
    )
    once, twice = mirror(landmarks), mirror(mirror(landmarks))
    for name in Landmarks.__slots__:
        np.testing.assert_allclose(getattr(twice, name), getattr(landmarks, name), atol=1e-4)
    assert once.body_world is not None
    assert landmarks.body_world is not None
    np.testing.assert_array_equal(once.body_world[WRISTS[0]], landmarks.body_world[WRISTS[1]] * [-1, 1, 1])
    assert once.left_hand_world is not None
    assert landmarks.right_hand_world is not None
    np.testing.assert_array_equal(once.left_hand_world, landmarks.right_hand_world * [-1, 1, 1])
    left, right = BLENDSHAPE_NAMES.index("mouthSmileLeft"), BLENDSHAPE_NAMES.index("mouthSmileRight")
    assert once.face_blendshapes is not None
    assert once.face_blendshapes[left] == scores[right]
    assert once.face_blendshapes[BLENDSHAPE_NAMES.index("jawLeft")] == scores[BLENDSHAPE_NAMES.index("jawRight")]
    assert once.T_camera_face is not None
    np.testing.assert_array_equal(once.T_camera_face[:3, :3], [[0, 0, -1], [0, 1, 0], [1, 0, 0]])
    assert mirror(Landmarks(0.0, (4, 4))).body_world is None
