import numpy as np
import pytest

from lhm_runtime.reconstruction.anatomy import Part
from lhm_runtime.reconstruction.colouring import Observation, match_exposure, read_colours, share_out


def observation(rgb, confidence):
    return Observation(rgb, confidence, np.ones(len(rgb)))


def test_colours_are_read_bilinearly_with_centres_at_half():
    image = np.float32([[0, 1], [2, 3]])
    xy = np.array([[0.5, 0.5], [1.5, 0.5], [0.5, 1.5], [1.0, 1.0], [-5, -5], [9, 9]])
    np.testing.assert_allclose(read_colours(image, xy), [0, 1, 2, 1.5, 0, 3], atol=5e-3)
    rgb = np.dstack([image, 10 * image])
    np.testing.assert_allclose(read_colours(rgb, xy[3:4]), [[1.5, 15]])


def test_exposure_is_matched_by_parts_that_both_photos_show():
    rng = np.random.default_rng(0)
    part = np.repeat([Part.TORSO, Part.HEAD, Part.LEFT_LEG, Part.RIGHT_ARM], 200)
    truth = np.array([[0.6, 0.2, 0.2], [0.7, 0.6, 0.5], [0.2, 0.2, 0.5], [0.5, 0.5, 0.5]]).repeat(200, axis=0)
    front = rng.random(800) < 0.5
    first = observation(truth + 0.02 * rng.standard_normal((800, 3)), front.astype(float))
    other = observation(0.75 * truth + 0.02 * rng.standard_normal((800, 3)), (~front).astype(float))
    matched = match_exposure(other, first, part)
    np.testing.assert_allclose(matched.gain, 1 / 0.75, rtol=0.06)
    np.testing.assert_allclose(matched.rgb, np.clip(other.rgb * matched.gain, 0, 1))


def test_exposure_stays_when_too_little_is_common():
    part = np.full(300, Part.TORSO)
    first, other = (observation(np.full((300, 3), v), np.ones(300)) for v in (0.8, 0.4))
    assert match_exposure(other, first, part) is other


def test_shares_follow_confidence_and_sum_to_one():
    first, other = (observation(np.zeros((3, 3)), np.array(c)) for c in ([1.0, 0.0, 0.0], [0.5, 0.8, 0.0]))
    shares = share_out([first, other])
    np.testing.assert_allclose(shares.sum(axis=0), 1)
    assert shares[0, 0] == pytest.approx(0.8, abs=1e-6)
    assert shares[1, 1] == pytest.approx(1.0, abs=1e-6)
    assert shares[0, 2] == pytest.approx(0.5)
