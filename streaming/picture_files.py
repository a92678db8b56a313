"""Pictures into .png files: one sheet, or a folder of frames."""

import io
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from lhm_runtime.errors import InvalidInputError
from lhm_runtime.files import write_atomically

_MAX_SHEET_SIDE = 32_768


def write_sheet(path: Path, pictures: Iterable[np.ndarray], columns: int = 4) -> None:
    """Write ``pictures`` (uint8 [h, w, 3], one size) as one .png, row by row, whole or not at all.

    Raises:
        InvalidInputError: no picture, or a sheet too large to be opened anywhere.
        OSError: the file cannot be written.
    """
    tiles = [picture.copy() for picture in pictures]
    if not tiles:
        raise InvalidInputError("a sheet needs at least one picture, got none")
    columns = min(columns, len(tiles))
    height, width, channels = tiles[0].shape
    rows = -(-len(tiles) // columns)
    if max(rows * height, columns * width) > _MAX_SHEET_SIDE:
        raise InvalidInputError(
            f"a sheet of {columns}x{rows} pictures of {width}x{height} is more than {_MAX_SHEET_SIDE} pixels "
            "wide or high; ask for a smaller size"
        )
    sheet = np.zeros((rows * height, columns * width, channels), np.uint8)
    for i, tile in enumerate(tiles):
        y, x = i // columns * height, i % columns * width
        sheet[y : y + height, x : x + width] = tile
    data = io.BytesIO()
    Image.fromarray(sheet).save(data, "png", compress_level=6)
    write_atomically(path, data.getvalue())


def write_frames(folder: Path, pictures: Iterable[np.ndarray]) -> int:
    """Write ``pictures`` (uint8 [h, w, 3 or 4]) as folder/00000.png, 00001.png, ...; all of them or none.

    Returns:
        how many there were.

    Raises:
        InvalidInputError: no picture, or the folder exists and is not empty.
        OSError: a file cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidInputError(f"{folder} exists and is not an empty folder; name a new one")
    part = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    count = 0
    try:
        part.mkdir()
        for picture in pictures:
            # fast compression: frames are an intermediate, and this is most of the time
            Image.fromarray(picture).save(part / f"{count:05d}.png", compress_level=1)
            count += 1
        if count == 0:
            raise InvalidInputError("a folder of frames needs at least one picture, got none")
        part.replace(folder)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return count
