import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lhm_runtime.motion.cutouts import HAND_PX, Cutout, cutouts_of, join_cutouts
from lhm_runtime.motion.person_choice import Body


def standing(scale: float = 300.0) -> Body:
    """Someone upright, arms hanging, whose points are ``scale`` pixels a metre, nose at (320, 100)."""
    world = np.zeros((33, 3), np.float32)
    world[:11, 1] = 0.65
    world[1:11, 0] = np.tile([0.03, -0.03], 5)
    for i, x in ((11, 0.2), (12, -0.2)):
        world[i, :2] = x, 0.45
    for i, x in ((15, 0.25), (16, -0.25)):
        world[[i, i + 2, i + 4, i + 6], :2] = x, -0.1
    image = (world[:, :2] - world[0, :2]) * [scale, -scale] + [320, 100]
    return Body(world, image.astype(np.float32), np.ones(33, np.float32))


@given(
    st.floats(-500, 500),
    st.floats(-500, 500),
    st.floats(8, 900),
    st.lists(st.floats(-1000, 1000), min_size=3, max_size=3),
)
def test_finding_undoes_placing(left: float, top: float, side: float, point: list[float]) -> None:
    cutout = Cutout(left, top, side)
    points = np.array([point], np.float32)
    np.testing.assert_allclose(cutout.place(cutout.find(points)), points, atol=1e-2)


def test_what_is_cut_is_where_it_is_placed() -> None:
    picture = np.zeros((120, 160, 3), np.uint8)
    picture[60:64, 100:104] = 255
    cutout = Cutout(80.0, 40.0, 64.0)
    cut = cutout.cut(picture, 128)
    rows, columns = np.nonzero(cut[..., 0] > 127)
    centre = np.array([[columns.mean() + 0.5, rows.mean() + 0.5]])
    np.testing.assert_allclose(cutout.place(centre, 128), [[102, 62]], atol=0.3)


def test_beyond_the_picture_it_is_black() -> None:
    cut = Cutout(-32.0, -32.0, 64.0).cut(np.full((64, 64, 3), 200, np.uint8), 64)
    assert cut[:30].max() == cut[:, :30].max() == 0
    assert cut[34:, 34:].min() == 200


def test_head_and_hands_lie_within_their_cutouts() -> None:
    for scale in (100.0, 300.0):
        body = standing(scale)
        head, left, right = cutouts_of(body)
        for cutout, points in ((head, body.image[:11]), (left, body.image[15:22:2]), (right, body.image[16:23:2])):
            inside = cutout.find(points)
            assert inside.min() > 0.2
            assert inside.max() < 0.8
        assert 0.3 * scale < head.side < 0.7 * scale


def test_two_hands_share_a_picture() -> None:
    picture = np.zeros((480, 640, 3), np.uint8)
    picture[:, 320:] = (0, 250, 0)  # the person's left is on the picture's right
    _, left, right = cutouts_of(standing())
    both = join_cutouts(picture, left, right)
    assert both.shape == (HAND_PX, 2 * HAND_PX, 3)
    assert both[:, :HAND_PX].mean() > 5 * both[:, HAND_PX:].mean()
    assert (join_cutouts(picture, None, right)[:, :HAND_PX] == 127).all()
