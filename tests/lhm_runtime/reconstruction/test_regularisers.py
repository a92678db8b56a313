"""ASAP and ACAP: needles and floaters pay, round Gaussians near the body do not; reports by part add up."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhm_runtime.avatar import Avatar
from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.reconstruction.builtin_person import build_person
from lhm_runtime.reconstruction.regularisers import (
    CLOSE_M,
    PARTS,
    ROUND,
    offsets_from_body,
    penalise_distance,
    penalise_elongation,
    report_avatar,
    report_parts,
)
from lhm_runtime.types import Gaussians


@pytest.fixture(scope="module")
def person() -> Avatar:
    return build_person(10_000)


def test_needles_pay_for_their_length() -> None:
    scales = np.array([[1, 1, 1], [1, 1, 5], [1, 1, 9], [2, 20, 2], [3, 3, 0]], np.float32) * 1e-3
    np.testing.assert_allclose(penalise_elongation(scales), [0, 0, 4, 5, 3e-3 / 1e-6 - ROUND], rtol=1e-5, atol=1e-6)


def test_floaters_pay_for_their_distance() -> None:
    offsets = np.array([[0, 0, 0], [0, CLOSE_M, 0], [0.1, 0, 0], [0.03, 0, 0.04], [-0.3, 0.4, 0]], np.float64)
    np.testing.assert_allclose(penalise_distance(offsets), [0, 0, 0.1 - CLOSE_M, 0, 0.5 - CLOSE_M], atol=1e-12)


@given(st.lists(st.floats(1e-4, 0.05), min_size=3, max_size=3), st.permutations(range(3)), st.floats(0.5, 2))
def test_only_the_shape_counts(axes: list[float], order: list[int], factor: float) -> None:
    scales = np.array([axes])
    penalty = penalise_elongation(scales)
    np.testing.assert_allclose(penalise_elongation(scales[:, order]), penalty, rtol=1e-9)
    np.testing.assert_allclose(penalise_elongation(factor * scales), penalty, rtol=1e-6, atol=1e-9)
    assert (penalty[0] > 0) == (max(axes) > ROUND * min(axes))


def test_parts_add_up_to_the_whole() -> None:
    joints = np.array([JOINT_INDEX[name] for name in ("head", "spine2", "left_elbow", "left_index1", "right_knee")])
    scales = np.full((5, 3), 0.01, np.float32)
    scales[3, 2] = 0.1
    offsets = np.zeros((5, 3))
    offsets[4, 0] = 1.0
    *parts, whole = report_parts(scales, offsets, joints)
    assert [part.part for part in parts] == ["head", "trunk", "arms", "hands", "legs"]
    by_name = {part.part: part for part in parts}
    assert by_name["hands"].needles == 1
    assert by_name["hands"].asap == pytest.approx(5)
    assert by_name["legs"].floating == 1
    assert by_name["legs"].acap_m == pytest.approx(1 - CLOSE_M)
    assert all(by_name[name].asap == by_name[name].acap_m == 0 for name in ("head", "trunk", "arms"))
    assert whole.count == sum(part.count for part in parts) == 5
    for name in ("asap", "acap_m", "needles", "floating"):
        assert getattr(whole, name) == pytest.approx(sum(part.count * getattr(part, name) for part in parts) / 5)


def test_a_disc_is_no_needle() -> None:
    [_, whole] = report_parts(np.array([[0.01, 0.01, 0.0005]], np.float32), np.zeros((1, 3)), np.array([0]))
    assert whole.asap == pytest.approx(15)
    assert whole.needles == 0


def test_the_built_in_person_is_close_to_the_body(person: Avatar) -> None:
    reports = {report.part: report for report in report_avatar(person)}
    assert set(reports) == {*PARTS, "all"}
    assert reports["all"].count == len(person)
    assert reports["all"].floating < 0.01
    assert np.linalg.norm(offsets_from_body(person), axis=1).mean() < 0.02


def test_what_is_thrown_away_from_the_body_shows_in_its_part(person: Avatar) -> None:
    hand = np.isin(person.skin_joints[:, 0], [JOINT_INDEX["left_wrist"], JOINT_INDEX["left_index1"]])
    means, scales = person.gaussians.means.copy(), person.gaussians.scales.copy()
    means[hand] += np.array([0.3, 0.3, 0], np.float32)
    scales[hand, 0] = 30 * scales[hand].max(axis=1)
    rest = person.gaussians
    thrown = replace(person, gaussians=Gaussians(means, rest.quat_wxyz, scales, rest.opacity, rest.rgb))
    before, after = ({report.part: report for report in report_avatar(one)} for one in (person, thrown))
    assert after["hands"].floating > before["hands"].floating + 0.1
    assert after["hands"].needles > before["hands"].needles + 0.1
    assert after["legs"] == before["legs"]


def test_the_body_takes_the_avatar_s_proportions(person: Avatar) -> None:
    """A person of another size is as close to their own body; the average body would leave half of them floating."""
    rest = person.gaussians
    larger = replace(
        person,
        gaussians=Gaussians(1.12 * rest.means, rest.quat_wxyz, rest.scales, rest.opacity, rest.rgb),
        rest_joints=1.12 * person.rest_joints,
    )
    assert report_avatar(larger)[-1].floating < 0.02
    assert report_avatar(replace(larger, rest_joints=person.rest_joints))[-1].floating > 0.1


def test_nothing_to_report_on() -> None:
    with pytest.raises(InvalidInputError, match="no Gaussians"):
        report_parts(np.ones((0, 3)), np.zeros((0, 3)), np.zeros(0, int))
