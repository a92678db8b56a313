from dataclasses import replace

import numpy as np
import pytest

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.motion.expression import Calibration, fit_face_map, map_face
from lhm_runtime.motion.landmark_points import BLENDSHAPE_NAMES
from lhm_runtime.types import Landmarks

FREE = BodyModel.default()
INDEX = {name: i for i, name in enumerate(BLENDSHAPE_NAMES)}


def scores(**values: float) -> np.ndarray:
    array = np.zeros(52, np.float32)
    for name, value in values.items():
        array[INDEX[name]] = value
    return array


def face(timestamp_s: float, array: np.ndarray | None) -> Landmarks:
    return Landmarks(timestamp_s=timestamp_s, image_size=(64, 64), face_blendshapes=array)


def landmarks_of(body: BodyModel, expression: np.ndarray) -> np.ndarray:
    assert body.lmk_faces_idx is not None
    assert body.lmk_bary_coords is not None
    corners = body.rest_vertices(expression=expression.astype(np.float32))[body.faces[body.lmk_faces_idx]]
    return np.einsum("lk,lkx->lx", body.lmk_bary_coords, corners)


class TestNamedExpressions:
    def test_scores_go_one_to_one(self) -> None:
        motion = map_face(FREE.expression_names).move(scores(mouthSmileLeft=0.7, browInnerUp=0.4, jawOpen=0.6))
        named = dict(zip(FREE.expression_names, motion.expression, strict=True))
        assert {name: round(float(value), 5) for name, value in named.items() if value} == {
            "mouthSmileLeft": 0.7,
            "browInnerUp": 0.4,
            "jawOpen": 0.6,
        }
        assert not motion.rotvec.any()  # jawOpen is a shape here: the jaw would open it twice

    def test_gaze_is_the_eyes_alone(self) -> None:
        to_their_left = scores(eyeLookOutLeft=0.8, eyeLookInRight=0.8, eyeLookDownLeft=0.5, eyeLookDownRight=0.5)
        motion = map_face(FREE.expression_names).move(to_their_left)
        assert not motion.expression.any()
        assert 0.3 < motion.rotvec[1, 1] < 0.6  # about y: from facing +z towards +x, their left
        assert 0.1 < motion.rotvec[1, 0] < 0.4  # about x: downwards
        np.testing.assert_array_equal(motion.rotvec[1], motion.rotvec[2])

    def test_a_blink_does_not_roll_the_eyes(self) -> None:
        down = {"eyeLookDownLeft": 0.6, "eyeLookDownRight": 0.6}
        motion = map_face(FREE.expression_names).move(scores(eyeBlinkLeft=0.8, eyeBlinkRight=0.8, **down))
        assert abs(motion.rotvec[1, 0]) < 0.01

    @pytest.mark.parametrize(("score", "closed"), [(0.1, 0.0), (0.41, 0.5), (0.75, 1.0)])
    def test_squints_leave_eyes_open_and_blinks_close_them(self, score: float, closed: float) -> None:
        motion = map_face(("eyeBlinkLeft",)).move(scores(eyeBlinkLeft=score))
        assert motion.expression[0] == pytest.approx(closed, abs=0.02)

    def test_a_face_without_names_opens_its_jaw(self) -> None:
        motion = map_face(("expression0", "expression1")).move(scores(jawOpen=1.0, mouthSmileLeft=1.0))
        assert not motion.expression.any()
        assert 0.3 < motion.rotvec[0, 0] < 0.6  # about +x the chin goes down

    def test_gains(self) -> None:
        gained = map_face(("jawOpen", "eyeWideLeft")).with_gains({"jawOpen": 0.5})
        np.testing.assert_allclose(gained.move(scores(jawOpen=0.8, eyeWideLeft=0.2)).expression, [0.4, 0.2], atol=1e-6)
        with pytest.raises(InvalidInputError, match="jawOpened"):
            map_face(()).with_gains({"jawOpened": 1.0})
        with pytest.raises(InvalidInputError, match=r"is -1\.0"):
            map_face(()).with_gains({"jawOpen": -1.0})

    def test_scores_must_be_finite(self) -> None:
        with pytest.raises(InvalidInputError, match="blendshapes"):
            map_face(()).move(np.full(52, np.nan, np.float32))


class TestCalibration:
    def test_a_still_second_becomes_neutral(self) -> None:
        rng, calibration, neutral = np.random.default_rng(0), Calibration(), None
        resting = scores(browDownLeft=0.3, mouthFrownLeft=0.2, eyeBlinkLeft=0.1)
        for i in range(31):
            assert neutral is None
            blink = scores(eyeBlinkLeft=0.6) if i in {10, 11} else 0
            noise = rng.normal(0, 0.01, 52).astype(np.float32)
            neutral = calibration.add(face(i / 30, np.clip(resting + blink + noise, 0, 1).astype(np.float32)))
        assert neutral is not None
        np.testing.assert_allclose(neutral[[1, 30, 9]], [0.3, 0.2, 0.1], atol=0.02)
        calibrated = map_face(("browDownLeft",)).with_neutral(neutral)
        assert calibrated.move(resting).expression[0] < 0.03
        assert calibrated.move(scores(browDownLeft=1.0)).expression[0] == pytest.approx(1.0)

    def test_a_moving_or_missing_face_starts_anew(self) -> None:
        calibration = Calibration()
        for i in range(60):
            assert calibration.add(face(i / 30, scores(jawOpen=0.5 * (i % 20) / 20))) is None
        for i in range(60, 85):
            assert calibration.add(face(i / 30, scores())) is None
        assert calibration.add(face(85 / 30, None)) is None
        results = [calibration.add(face(i / 30, scores())) for i in range(86, 118)]
        assert [result is None for result in results] == [True] * 30 + [False] * 2

    def test_time_that_repeats_or_runs_backwards_is_no_stillness(self) -> None:
        calibration = Calibration()
        for timestamp_s in [0.0, 0.9, 0.9, 0.2, 1.1]:
            assert calibration.add(face(timestamp_s, scores())) is None
        assert calibration.add(face(1.25, scores())) is not None


class TestFittedMap:
    @pytest.fixture
    def mixed(self) -> BodyModel:
        """A body like a user's: the same face, 60 % the size, whose expressions are nameless mixtures."""
        mixture = np.linalg.qr(np.random.default_rng(1).normal(size=(52, 52)))[0].astype(np.float32)
        return replace(
            FREE,
            v_template=0.6 * FREE.v_template,
            expression_directions=0.6 * FREE.expression_directions @ mixture,
            expression_names=tuple(f"expression{i}" for i in range(52)),
        )

    def test_landmarks_move_as_on_the_free_body(self, mixed: BodyModel) -> None:
        fitted = fit_face_map(mixed)
        for name in ("mouthSmileLeft", "mouthPucker", "browInnerUp", "noseSneerRight", "mouthFunnel", "mouthLeft"):
            motion = fitted.move(scores(**{name: 1.0}))
            column = np.eye(52)[FREE.expression_names.index(name)]
            wanted = 0.6 * (landmarks_of(FREE, column) - landmarks_of(FREE, np.zeros(52)))
            got = landmarks_of(mixed, motion.expression) - landmarks_of(mixed, np.zeros(52))
            assert np.linalg.norm(got - wanted) < 0.15 * np.linalg.norm(wanted), name
            assert not motion.rotvec[0].any()

    def test_jaw_and_gaze_are_kept(self, mixed: BodyModel) -> None:
        few = replace(
            mixed, expression_directions=mixed.expression_directions[:, :, :3], expression_names=("a", "b", "c")
        )
        opened = fit_face_map(few).move(scores(jawOpen=1.0, eyeLookUpLeft=1.0, eyeLookUpRight=1.0))
        assert opened.rotvec[0, 0] > 0.1  # three mixtures cannot open a mouth, the joint can
        assert opened.rotvec[1, 0] < -0.2

    def test_bodies_without_the_landmarks_are_refused(self) -> None:
        with pytest.raises(InvalidInputError, match="no face landmarks"):
            fit_face_map(replace(FREE, lmk_faces_idx=None))
        assert FREE.lmk_faces_idx is not None
        assert FREE.lmk_bary_coords is not None
        fewer = replace(FREE, lmk_faces_idx=FREE.lmk_faces_idx[:9], lmk_bary_coords=FREE.lmk_bary_coords[:9])
        with pytest.raises(InvalidInputError, match="has 9 face landmarks"):
            fit_face_map(fewer)
