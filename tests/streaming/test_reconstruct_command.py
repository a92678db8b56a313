"""``lhm-live reconstruct``: photos and turning videos in, an avatar file and a preview sheet out."""

import itertools
from pathlib import Path

import av
import numpy as np
import pytest
import typer
from click.testing import Result
from people import DEMO_PERSON
from PIL import Image
from typer.testing import CliRunner

from lhm_runtime.avatar import load_avatar
from lhm_runtime.errors import PhotoError
from lhm_runtime.reconstruction.photo_doubts import turn_of
from lhm_runtime.reconstruction.still_models import StillModels
from streaming.bench.synthetic_people import make_person
from streaming.preview import COLUMNS, TILE
from streaming.reconstruct_command import Look, choose_sides, reconstruct_command, see_turning_person
from streaming.video_file import write_video
from streaming.video_input import VideoInput

app = typer.Typer()
app.command()(reconstruct_command)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def turning_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Someone seen from 16 sides all round, starting from behind."""
    person = make_person(11, 10_000)
    frames = [to_i420(np.ascontiguousarray(person.photograph(180 + 22.5 * k)[::2, ::2])) for k in range(16)]
    path = tmp_path_factory.mktemp("videos") / "turning.mp4"
    write_video(path, frames, 8.0)
    return path


def test_a_photo_becomes_an_avatar_and_a_sheet(tmp_path: Path) -> None:
    out, sheet = tmp_path / "me.avatar", tmp_path / "me.png"
    result = run(DEMO_PERSON, "-o", out, "--preview", sheet, "--count", "10000")
    assert result.exit_code == 0, result.output
    assert "wrote" in result.output
    made = load_avatar(out)
    assert len(made) == 10_000
    with Image.open(sheet) as picture:
        assert picture.size == (COLUMNS * TILE[0], 2 * TILE[1])
        tiles = np.asarray(picture).reshape(2, TILE[1], COLUMNS, TILE[0], 3).swapaxes(1, 2).reshape(-1, *TILE[::-1], 3)
    background = tiles[2][2, 2]
    for tile in tiles[1:]:  # the first is the photo
        shown = (np.abs(tile.astype(int) - background) > 12).any(axis=2)
        assert 0.03 < shown.mean() < 0.9
    faces = [tile.astype(int) for tile in tiles[-3:]]
    assert all(np.abs(a - b).max() > 30 for a, b in itertools.pairwise(faces))


def test_the_avatar_goes_beside_the_photo(tmp_path: Path) -> None:
    photo = tmp_path / "me.png"
    Image.open(DEMO_PERSON).reduce(2).save(photo)
    result = run(photo, "--count", "10000")
    assert result.exit_code == 0, result.output
    assert load_avatar(tmp_path / "me.avatar").metadata.reconstructor.startswith("projection")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-o", "me.ply"], "should end in .avatar"),
        (["--preview", "me.jpg"], "should end in .png"),
        (["-o", "nowhere/me.avatar"], "nowhere/me.avatar cannot be written"),
        (["--side", "nobody.png"], "nobody.png"),
        (["--count", "100"], "100"),
        (["--person", "0"], "--person"),
        (["--method", "magic"], "magic"),
    ],
)
def test_wrong_options_are_named(arguments: list[str], said: str) -> None:
    result = run(DEMO_PERSON, *arguments)
    assert result.exit_code == 2
    assert said in result.output


def test_a_video_stands_alone(turning_video: Path) -> None:
    result = run(turning_video, "--back", DEMO_PERSON)
    assert result.exit_code == 2
    assert "stands alone" in result.output


def test_a_picture_of_nobody_is_one_sentence(tmp_path: Path) -> None:
    Image.new("RGB", (200, 200)).save(tmp_path / "nobody.png")
    result = run(tmp_path / "nobody.png", "-o", tmp_path / "nobody.avatar")
    assert isinstance(result.exception, PhotoError)
    assert "nobody was found" in str(result.exception)
    assert not (tmp_path / "nobody.avatar").exists()


def test_a_turning_video_gives_each_side_once(turning_video: Path) -> None:
    shares: list[float] = []
    with StillModels() as models:
        photos = see_turning_person(turning_video, models, shares.append)
    turns = [turn_of(photo.landmarks.body_world) for photo in photos if photo.landmarks.body_world is not None]
    assert abs(turns[0]) < 25
    assert any(abs(turn) > 150 for turn in turns)
    assert any(60 < turn < 120 for turn in turns)
    assert any(-120 < turn < -60 for turn in turns)
    assert shares == sorted(shares)
    assert shares[-1] <= 1


def sharp(turns: dict[int, float]) -> dict[int, Look]:
    return {number: Look(turn, 1.0) for number, turn in turns.items()}


def test_sides_are_chosen_by_what_they_add() -> None:
    assert choose_sides(sharp({0: -170.0, 10: -90.0, 20: -3.0, 40: 85.0})) == [20, 0, 40, 10]
    assert choose_sides(sharp({5: 2.0})) == [5]
    assert choose_sides(sharp({5: 180.0, 6: 90.0})) == []
    assert choose_sides({}) == []


def test_of_frames_of_one_side_the_sharpest_is_taken() -> None:
    looks = {0: Look(0.0, 10.0), 1: Look(4.0, 80.0), 2: Look(20.0, 900.0), 3: Look(178.0, 5.0), 4: Look(-175.0, 6.0)}
    assert choose_sides(looks) == [1, 4]


def test_a_video_in_which_nobody_turns_is_refused(turning_video: Path, tmp_path: Path) -> None:
    with VideoInput(str(turning_video)) as video:
        frames = [frame.rgb.copy() for frame in video]
    for name, shown, said in (
        ("still", [frames[8]] * 6, "nobody turns round"),
        ("back", [frames[0], frames[1]] * 3, "nobody from the front"),
        ("empty", [np.full_like(frames[0], 180)] * 3, "shows nobody:"),
    ):
        path = tmp_path / f"{name}.mp4"
        write_video(path, [to_i420(frame) for frame in shown], 8.0)
        with StillModels() as models, pytest.raises(PhotoError, match=said):
            see_turning_person(path, models, lambda _: None)


def to_i420(rgb: np.ndarray) -> np.ndarray:
    return av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv420p").to_ndarray()
