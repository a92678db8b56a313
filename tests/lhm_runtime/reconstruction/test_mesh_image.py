import numpy as np
import pytest

from lhm_runtime.reconstruction.mesh_image import draw_mesh

# to the eye counter-clockwise, which in a picture with y down is up, then left
FACING = np.array([[0, 2, 1]])


def test_a_triangle_covers_the_pixels_whose_centres_it_holds():
    points = np.array([[1.0, 1.0, 2.0], [5.0, 1.0, 2.0], [1.0, 5.0, 2.0]])
    image = draw_mesh(points, FACING, 8, 7)
    rows, columns = np.indices((7, 8))
    x, y = columns + 0.5, rows + 0.5
    np.testing.assert_array_equal(image.covered, (x >= 1) & (y >= 1) & (x + y <= 6))
    assert np.isinf(image.depth[~image.covered]).all()


def test_depth_is_perspective_correct():
    # the plane z = 1 + 0.1 X seen with focal length 10: 1 / z is linear in the picture, z is not
    world = np.array([[-1.0, -1.0, 0.9], [2.0, -1.0, 1.2], [-1.0, 2.0, 0.9]])
    points = np.concatenate([10 * world[:, :2] / world[:, 2:] + 12, world[:, 2:]], axis=1)
    image = draw_mesh(points, FACING, 40, 40)
    _, columns = np.nonzero(image.covered)
    slope = (columns + 0.5 - 12) / 10
    np.testing.assert_allclose(image.depth[image.covered], 1 / (1 - 0.1 * slope), rtol=1e-5)


def test_the_nearer_triangle_wins_whatever_the_order():
    near = np.array([[0.0, 0.0, 1.0], [8.0, 0.0, 1.0], [0.0, 8.0, 1.0]])
    far = near * [1, 1, 3]
    points = np.concatenate([far, near])
    for faces in (np.array([[0, 2, 1], [3, 5, 4]]), np.array([[3, 5, 4], [0, 2, 1]])):
        image = draw_mesh(points, faces, 8, 8)
        front = np.flatnonzero((faces == 3).any(axis=1))[0]
        assert (image.face[image.covered] == front).all()


@pytest.mark.parametrize("two_sided", [False, True])
def test_back_faces_are_drawn_only_when_asked_for(two_sided):
    points = np.array([[1.0, 1.0, 2.0], [5.0, 1.0, 2.0], [1.0, 5.0, 2.0]])
    image = draw_mesh(points, FACING[:, ::-1].copy(), 8, 8, two_sided=two_sided)
    assert image.covered.any() == two_sided


def test_what_is_outside_the_picture_or_behind_the_camera_is_left_out():
    points = np.array([[-20.0, 1.0, 2.0], [-15.0, 1.0, 2.0], [-20.0, 5.0, 2.0], [1, 1, -1], [5, 1, -1], [1, 5, -1]])
    assert not draw_mesh(points, np.array([[0, 2, 1], [3, 5, 4]]), 8, 8).covered.any()
