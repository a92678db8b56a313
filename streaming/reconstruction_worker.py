"""The process that makes one avatar: ``python -m streaming.reconstruction_worker``, told as JSON on standard input.

A process, because reconstruction takes a gigabyte for seconds and reads files of strangers: whatever happens to it,
the server lives on. It answers with lines of JSON on standard output: stages, then a result or an error.
"""

import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

import numpy as np
from PIL import Image, ImageFilter

from lhm_runtime.avatar import Avatar, save_avatar
from lhm_runtime.body.kinematics import forward_kinematics, joint_matrices
from lhm_runtime.errors import LhmLiveError
from lhm_runtime.motion.procedural import relaxed_pose
from lhm_runtime.rasterizer import Renderer, frame_person
from streaming.avatar_store import AvatarFacts, write_facts

PREVIEW_SIZE = (384, 512)

_RECONSTRUCTED: Final = 0.94
"""Of the work, when the preview is still to be drawn."""
_BACKDROP_SIDE, _BACKDROP_BLUR = 640, 24


@dataclass(frozen=True, slots=True)
class Order:
    """What to make, and where to put it."""

    name: str
    photo: str | None
    """Path of the photo; None: the built-in person."""
    made_of: str
    avatar: str
    facts: str
    preview: str
    backdrop: str


def main() -> int:
    """Carry out the order on standard input."""
    out = sys.stdout
    order = Order(**json.load(sys.stdin))
    with redirect_stdout(sys.stderr):  # what libraries print is none of our lines
        try:
            _make(order, lambda stage, done: _say(out, stage=stage, fraction=done))
        except LhmLiveError as error:
            _say(out, error=str(error).replace(f"{order.photo}", repr(order.name)))
            return 1
        except OSError as error:
            _say(out, error=f"the server cannot keep the avatar: {error.strerror or error}")
            return 1
    return 0


def _make(order: Order, tell: Callable[[str, float], None]) -> None:
    warnings: tuple[str, ...] = ()
    if order.photo is None:
        from lhm_runtime.reconstruction.builtin_person import build_person  # noqa: PLC0415

        tell("making the sample person", 0.0)
        avatar = build_person()
    else:
        from lhm_runtime.reconstruction import reconstruct  # noqa: PLC0415

        # nobody waits in a browser for what LHM takes on a CPU: without a card this is projection
        made = reconstruct(
            Path(order.photo), device="cuda", progress=lambda stage, done: tell(stage, _RECONSTRUCTED * done)
        )
        avatar, warnings = made.avatar, made.warnings
        _write_backdrop(made.photos[0].rgb, Path(order.backdrop))
    tell("drawing the preview", _RECONSTRUCTED)
    save_avatar(avatar, Path(order.avatar))
    _draw_preview(avatar, Path(order.preview))
    facts = AvatarFacts(order.name, avatar.metadata.reconstructor, avatar.metadata.created_at, warnings, order.made_of)
    write_facts(Path(order.facts), facts)


def _draw_preview(avatar: Avatar, path: Path) -> None:
    pose = relaxed_pose(avatar.expression_names)
    joints = forward_kinematics(pose.rotvec, avatar.rest_joints, pose.transl)[:, :3, 3]
    with Renderer(avatar) as renderer:
        picture = renderer.render(
            joint_matrices(pose, avatar.rest_joints),
            pose.expression,
            frame_person(joints, avatar.metadata.shown, *PREVIEW_SIZE),
            pixel_format="rgba",
        )
    Image.fromarray(picture).save(path)


def _write_backdrop(rgb: np.ndarray, path: Path) -> None:
    picture = Image.fromarray(rgb)
    picture.thumbnail((_BACKDROP_SIDE, _BACKDROP_SIDE))
    picture.filter(ImageFilter.GaussianBlur(_BACKDROP_BLUR)).save(path, quality=80)


def _say(out: TextIO, **fields: object) -> None:
    print(json.dumps(fields), file=out, flush=True)


if __name__ == "__main__":
    sys.exit(main())
