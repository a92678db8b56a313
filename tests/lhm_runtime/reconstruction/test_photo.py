"""The person in a photo is found, cut out and described; whoever is not there is not made up."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from people import DEMO_PERSON
from PIL import Image

from lhm_runtime.errors import InvalidInputError, PhotoError
from lhm_runtime.motion.landmark_points import MIRRORED_BODY, NOSE, SHOULDERS
from lhm_runtime.motion.person_choice import Body
from lhm_runtime.reconstruction.photo import LARGEST_SIDE, SMALLEST_SIDE, Photo, read_photo, see_person
from lhm_runtime.reconstruction.still_models import Person, StillModels

PORTRAIT = DEMO_PERSON.with_name("demo_portrait.png")
WIDTH, HEIGHT = 1152, 1536
"""Of the demo person's photo."""


@pytest.fixture(scope="module")
def models() -> Iterator[StillModels]:
    with StillModels() as opened:
        yield opened


@pytest.fixture(scope="module")
def person(models: StillModels) -> Photo:
    return read_photo(DEMO_PERSON, models=models)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.asarray(Image.open(DEMO_PERSON).convert("RGB"))


def test_a_whole_person(person: Photo) -> None:
    assert person.rgb.shape == (HEIGHT, WIDTH, 3)
    assert person.alpha.shape == (HEIGHT, WIDTH)
    assert person.landmarks.image_size == (WIDTH, HEIGHT)
    assert person.shot == "full"
    assert person.warnings == ()
    assert person.landmarks.face_image is not None
    assert person.landmarks.left_hand_image is not None
    assert person.focal_px == pytest.approx(1.2 * HEIGHT)


def test_the_matte_is_the_person(person: Photo, pixels: np.ndarray) -> None:
    green = (pixels[:, :, 1] > pixels[:, :, 0] + 12) & (pixels[:, :, 1] > pixels[:, :, 2] + 4)  # her sweater
    assert person.alpha[green].mean() > 0.97
    assert person.alpha[:, :60].max() == person.alpha[:, -60:].max() == 0
    assert 0.1 < person.alpha.mean() < 0.25


def test_points_are_where_they_belong(person: Photo) -> None:
    body, face = person.landmarks.body_image, person.landmarks.face_image
    assert body is not None
    assert face is not None
    assert body[SHOULDERS[0], 0] > body[SHOULDERS[1], 0]  # her left is on the right
    assert np.linalg.norm(face[4] - body[NOSE]) < 12  # tip of the nose
    left, right = person.landmarks.left_hand_image, person.landmarks.right_hand_image
    for hand, wrist in ((left, 15), (right, 16)):
        if hand is not None:
            assert np.linalg.norm(hand[0] - body[wrist]) < 40


def test_a_portrait(models: StillModels) -> None:
    photo = read_photo(PORTRAIT, models=models)
    assert photo.shot == "head"
    assert photo.landmarks.face_image is not None
    assert photo.landmarks.face_blendshapes is not None
    assert photo.landmarks.T_camera_face is not None
    assert any("legs are not in view" in warning for warning in photo.warnings)
    assert photo.alpha[100, 215] == 1  # her face
    assert photo.alpha[60, 400] == 0  # the shuttle


def test_equal_photos_give_equal_results(person: Photo, models: StillModels) -> None:
    again = read_photo(DEMO_PERSON, models=models)
    np.testing.assert_array_equal(again.alpha, person.alpha)
    np.testing.assert_array_equal(again.landmarks.face_image, person.landmarks.face_image)
    assert again.sha256 == person.sha256


def test_a_file_needs_no_models_of_the_caller(person: Photo) -> None:
    np.testing.assert_array_equal(read_photo(DEMO_PERSON).alpha, person.alpha)


def test_each_of_several_people_can_be_chosen(pixels: np.ndarray, models: StillModels) -> None:
    """Three of them side by side, the middle one the largest, the right one the smallest."""
    crowd = np.full((HEIGHT, 3 * WIDTH, 3), 170, np.uint8)
    for k, share in enumerate((0.8, 1.0, 0.6)):
        small = cv2.resize(pixels, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
        crowd[HEIGHT - small.shape[0] :, k * WIDTH : k * WIDTH + small.shape[1]] = small
    heights = []
    for k in range(3):
        photo = see_person(crowd, person=k, models=models)
        assert any("3 people" in warning for warning in photo.warnings)
        # pixels of the photo: each was cut out and enlarged by another factor
        rows = np.flatnonzero((photo.alpha > 0.5).any(axis=1))
        heights.append(np.ptp(rows) * 1.2 * crowd.shape[1] / photo.focal_px)
    np.testing.assert_allclose(np.array(heights) / heights[0], [1, 0.8, 0.6], rtol=0.02)
    with pytest.raises(PhotoError, match=r"shows 3 people; there is no number 4"):
        see_person(crowd, person=3, models=models)


def test_one_person_is_one(pixels: np.ndarray, models: StillModels) -> None:
    with pytest.raises(PhotoError, match=r"shows one person; there is no number 2"):
        see_person(pixels, person=1, models=models)
    with pytest.raises(InvalidInputError, match="person is -1"):
        see_person(pixels, person=-1, models=models)


def test_large_photos_are_cut_to_the_person(pixels: np.ndarray, models: StillModels) -> None:
    """Someone far away in a large photo keeps the pixels that the photo has of them."""
    photo = np.full((3000, 4000, 3), 172, np.uint8)
    photo[1900:2924, 1500:2268] = cv2.resize(pixels, (768, 1024), interpolation=cv2.INTER_AREA)
    seen = see_person(photo, models=models)
    rows = np.flatnonzero((seen.alpha > 0.5).any(axis=1))
    assert np.ptp(rows) > 900
    assert seen.focal_px == pytest.approx(1.2 * 4000, rel=0.01)


def test_people_who_are_small_in_a_large_photo_are_found(pixels: np.ndarray, models: StillModels) -> None:
    photo = np.full((3000, 4000, 3), 172, np.uint8)
    photo[2200:2541, 1800:2056] = cv2.resize(pixels, (256, 341), interpolation=cv2.INTER_AREA)
    assert see_person(photo, models=models).shot == "full"


def test_frames_of_a_video_are_never_cut(pixels: np.ndarray, models: StillModels) -> None:
    frame = np.full((3000, 1800, 3), 172, np.uint8)
    frame[1300 : 1300 + HEIGHT, 200 : 200 + WIDTH] = pixels
    seen = see_person(frame, models=models, crop=False)
    assert seen.rgb.shape[:2] == (LARGEST_SIDE, round(1800 * LARGEST_SIDE / 3000))


def test_small_photos_are_enlarged_and_doubted(pixels: np.ndarray, models: StillModels) -> None:
    seen = see_person(cv2.resize(pixels, (96, 128), interpolation=cv2.INTER_AREA), models=models)
    assert max(seen.rgb.shape) == SMALLEST_SIDE
    assert any("pixels high" in warning for warning in seen.warnings)


def test_the_photos_own_transparency_is_kept(person: Photo, pixels: np.ndarray, models: StillModels) -> None:
    alpha = np.where(np.arange(HEIGHT)[:, None] < 900, person.alpha, 0).astype(np.float32)
    hidden = np.where(alpha[:, :, None] > 0, pixels, [255, 0, 255]).astype(np.uint8)
    seen = see_person(hidden, alpha=alpha, models=models)
    np.testing.assert_array_equal(seen.alpha, alpha)


def test_a_mask_file_is_followed(person: Photo, models: StillModels, tmp_path: Path) -> None:
    mask = (person.alpha > 0.5).astype(np.uint8) * 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    seen = read_photo(DEMO_PERSON, mask_path=tmp_path / "mask.png", models=models)
    np.testing.assert_array_equal(seen.alpha, mask / 255)
    assert seen.matte_given
    assert not person.matte_given
    Image.fromarray(255 - mask).save(tmp_path / "mask.png")
    with pytest.raises(PhotoError, match=r"holds only .* of the points"):
        read_photo(DEMO_PERSON, mask_path=tmp_path / "mask.png", models=models)


def test_another_matting_model_may_be_given(person: Photo, models: StillModels) -> None:
    asked = []

    def matte(rgb: np.ndarray) -> np.ndarray:
        asked.append(rgb.shape)
        return (person.alpha > 0.5).astype(np.float32)

    seen = read_photo(DEMO_PERSON, matte=matte, models=models)
    assert asked == [(HEIGHT, WIDTH, 3)]
    np.testing.assert_array_equal(seen.alpha, (person.alpha > 0.5).astype(np.float32))
    with pytest.raises(InvalidInputError, match=r"matte gave float64"):
        read_photo(DEMO_PERSON, matte=lambda rgb: np.ones(rgb.shape[:2]), models=models)


@pytest.mark.parametrize("kind", ["blank", "noise"])
def test_nobody_is_nobody(kind: str, models: StillModels) -> None:
    picture = np.full((500, 400, 3), 180, np.uint8)
    if kind == "noise":
        picture = np.random.default_rng(0).integers(0, 255, (500, 400, 3), np.uint8)
    with pytest.raises(PhotoError, match="nobody was found in the picture"):
        see_person(picture, models=models)


def test_the_cameras_focal_length_is_read(models: StillModels, tmp_path: Path, pixels: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x8769] = {0xA405: 26}  # a phone's main camera
    Image.fromarray(pixels).save(tmp_path / "photo.png", exif=exif)
    photo = read_photo(tmp_path / "photo.png", models=models)
    assert photo.focal_px == pytest.approx(26 / 43.27 * np.hypot(WIDTH, HEIGHT), rel=1e-3)


def test_a_settled_body_does_not_depend_on_the_side(pixels: np.ndarray, models: StillModels) -> None:
    def settle(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = models.find_people(picture)[0]
        return found.body.image[11:], models.settle(picture, found).body.image[11:]

    across = MIRRORED_BODY[11:] - 11
    mirrored = np.ascontiguousarray(pixels[:, ::-1])
    (once, settled), (other, other_settled) = settle(pixels), settle(mirrored)
    back = [np.array([pixels.shape[1], 0]) + points[across] * [-1, 1] for points in (other, other_settled)]
    before, after = np.linalg.norm(once - back[0], axis=1), np.linalg.norm(settled - back[1], axis=1)
    assert after.max() < 0.6
    assert after.mean() < 0.2 * before.mean()


def test_who_is_somewhere_else_in_the_mirror_is_left_alone(pixels: np.ndarray, models: StillModels) -> None:
    found = models.find_people(pixels)[0]
    body = found.body
    swapped = Person(Body(body.world[MIRRORED_BODY], body.image[MIRRORED_BODY], body.visibility), found.silhouette)
    assert models.settle(pixels, swapped) is swapped
    nobody = np.full_like(pixels, 127)
    assert models.settle(nobody, found) is found
