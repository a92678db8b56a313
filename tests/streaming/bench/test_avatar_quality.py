"""The measures find a perfect avatar perfect and a wrong one wrong, from every side."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lhm_runtime.body.kinematics import forward_kinematics
from lhm_runtime.rasterizer import frame_person
from streaming.bench import avatar_quality
from streaming.bench.avatar_quality import HEIGHT, YAWS_DEG, StageClock
from streaming.bench.synthetic_people import SyntheticPerson, go_round, make_person


@pytest.fixture(scope="module")
def person() -> SyntheticPerson:
    return make_person(4, 10_000)


def drawn(person: SyntheticPerson) -> avatar_quality._Drawn:
    return avatar_quality._Drawn(person.avatar)


@pytest.mark.parametrize("yaw_deg", YAWS_DEG)
def test_turning_the_camera_is_walking_round_the_person(person: SyntheticPerson, yaw_deg: int) -> None:
    joints = forward_kinematics(person.pose.rotvec, person.avatar.rest_joints, person.pose.transl)[:, :3, 3]
    front = frame_person(joints, "full", 300, 400)
    pivot = joints[0]
    turned = go_round(front, pivot, front.T_camera_world[:3, 1], float(np.radians(yaw_deg)))
    walked = frame_person(joints, "full", 300, 400, yaw=float(np.radians(yaw_deg)))
    np.testing.assert_allclose(turned.T_camera_world, walked.T_camera_world, atol=1e-6)


def test_cutting_a_camera_is_cutting_its_picture(person: SyntheticPerson) -> None:
    whole = person.draw(person.camera)
    box = (200, 100, 600, 900)
    part = drawn(person).draw(person.pose, avatar_quality._cut(person.camera, box, 400, 800))
    np.testing.assert_allclose(part, whole[100:900, 200:600], atol=2e-3)


def test_the_truth_has_no_error(person: SyntheticPerson) -> None:
    seen = person.draw(person.camera)
    alpha = seen[:, :, 3]
    rgb = seen[:, :, :3] / np.maximum(alpha[:, :, None], 1e-6)
    box = avatar_quality._box_of(alpha)
    height = box[3] - box[1]
    score, pair = avatar_quality._compare(rgb, alpha, drawn(person), person.pose, person.camera, box, height)
    assert score.psnr > 50
    assert score.ssim > 0.999
    assert score.iou > 0.999
    assert pair.shape == (2 * height, box[2] - box[0], 3)
    # drawn at another size than compared: the rasterizer's blur is all that is left
    score, pair = avatar_quality._compare(rgb, alpha, drawn(person), person.pose, person.camera, box)
    assert score.psnr > 30
    assert pair.shape[0] == 2 * HEIGHT


def test_a_shift_is_an_error(person: SyntheticPerson) -> None:
    seen = person.draw(person.camera)
    alpha = seen[:, :, 3]
    rgb = seen[:, :, :3] / np.maximum(alpha[:, :, None], 1e-6)
    box = avatar_quality._box_of(alpha)
    moved = replace(person.pose, transl=person.pose.transl + np.array([0.05, 0, 0], np.float32))
    score, _ = avatar_quality._compare(rgb, alpha, drawn(person), moved, person.camera, box)
    assert score.psnr < 20
    assert score.iou < 0.9


def test_a_smaller_avatar_stands_where_the_person_does(person: SyntheticPerson) -> None:
    small = person.avatar.gaussians
    half = replace(
        person.avatar,
        gaussians=replace(small, means=small.means / 2, scales=small.scales / 2),
        expression_directions=person.avatar.expression_directions / 2,
        rest_joints=person.avatar.rest_joints / 2,
    )
    scores, pairs = avatar_quality._compare_sides(person, half, *avatar_quality._stand_alike(person, half))
    assert set(scores) == set(YAWS_DEG)
    assert len(pairs) == len(YAWS_DEG)
    for score in scores.values():
        assert score.person.psnr > 28
        assert score.person.iou > 0.98


def test_boxes_stay_in_the_picture() -> None:
    alpha = np.zeros((100, 80))
    alpha[0:50, 30:80] = 1
    left, top, right, bottom = avatar_quality._box_of(alpha)
    assert (left, top, right, bottom) == (29, 0, 80, 51)


def test_stages_are_timed_by_name() -> None:
    clock = StageClock()
    for stage, done in (("a", 0.0), ("a", 0.5), ("b", 0.0), ("a", 0.0), ("", 0.0)):
        clock.tell(stage, done)
    assert list(clock.cpu_s) == list(clock.wall_s) == ["a", "b"]
    assert all(seconds >= 0 for seconds in clock.wall_s.values())


@pytest.mark.shared
def test_a_video_can_be_measured() -> None:
    video = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "video" / "fullbody_30fps.mp4"
    if not video.is_file():
        pytest.skip("../shared/data/video is not here")
    from lhm_runtime.reconstruction.still_models import StillModels  # noqa: PLC0415

    with StillModels() as models:
        results = avatar_quality.measure_video(video, [5, 10], models, "projection", 10_000)
    assert [result.frame for result in results] == [5, 10]
    for result in results:
        assert result.whole.psnr > 20
        assert result.whole.psnr > result.by_landmarks.psnr
        assert result.whole.iou > max(0.9, result.by_landmarks.iou)
