from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lhm_runtime.errors import InvalidInputError
from streaming.picture_files import write_frames, write_sheet


def shades(count: int, channels: int = 3) -> Iterator[np.ndarray]:
    """Pictures of 4 by 6 in the same buffer, the i-th all 10 i."""
    picture = np.empty((6, 4, channels), np.uint8)
    for i in range(count):
        picture[:] = 10 * i
        yield picture


def test_sheet_goes_row_by_row(tmp_path: Path) -> None:
    write_sheet(tmp_path / "a.png", shades(5), columns=3)
    sheet = np.asarray(Image.open(tmp_path / "a.png"))
    assert sheet.shape == (12, 12, 3)
    corners = sheet[::6, ::4, 0]
    np.testing.assert_array_equal(corners, [[0, 10, 20], [30, 40, 0]])


def test_sheet_is_no_wider_than_its_pictures(tmp_path: Path) -> None:
    write_sheet(tmp_path / "a.png", shades(2), columns=8)
    assert Image.open(tmp_path / "a.png").size == (8, 6)


def test_sheet_limits(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="at least one"):
        write_sheet(tmp_path / "a.png", [])
    with pytest.raises(InvalidInputError, match="smaller size"):
        write_sheet(tmp_path / "a.png", [np.zeros((1, 8192, 3), np.uint8)] * 5, columns=5)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("channels", [3, 4])
def test_frames_keep_every_value(tmp_path: Path, channels: int) -> None:
    folder = tmp_path / "frames"
    assert write_frames(folder, shades(12, channels)) == 12
    files = sorted(folder.iterdir())
    assert [file.name for file in files] == [f"{i:05d}.png" for i in range(12)]
    for i, file in enumerate(files):
        picture = np.asarray(Image.open(file))
        assert picture.shape == (6, 4, channels)
        assert (picture == 10 * i).all()


def test_an_empty_folder_is_filled_and_a_full_one_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    write_frames(folder, shades(1))
    with pytest.raises(InvalidInputError, match="not an empty folder"):
        write_frames(folder, shades(2))
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInputError, match="not an empty folder"):
        write_frames(tmp_path / "file", shades(2))
    assert len(list(folder.iterdir())) == 1


def test_interrupted_frames_leave_nothing(tmp_path: Path) -> None:
    def interrupted() -> Iterator[np.ndarray]:
        yield from shades(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_frames(tmp_path / "frames", interrupted())
    with pytest.raises(InvalidInputError, match="at least one"):
        write_frames(tmp_path / "frames", [])
    assert not list(tmp_path.iterdir())
