"""Where the camera stands and what is behind the person, live and for films of takes alike."""

from dataclasses import replace
from typing import Final, Protocol

import numpy as np

from lhm_runtime.body.kinematics import forward_kinematics
from lhm_runtime.motion.procedural import relaxed_pose
from lhm_runtime.rasterizer import Framing, frame_person
from lhm_runtime.types import Camera

DEFAULT_BACKGROUND: Final = "E9ECEF"
TRANSPARENT: Final = "transparent"


class View(Protocol):
    """What is asked of the camera: settings of a session, a scene of a take."""

    @property
    def framing(self) -> Framing:
        """How much of the person is seen."""

    @property
    def yaw(self) -> float:
        """Radians round the person; 0 sees the face."""

    @property
    def pitch(self) -> float:
        """Radians; positive looks down."""

    @property
    def mirror(self) -> bool:
        """Whether left and right are exchanged."""


def standing_joints(rest_joints: np.ndarray) -> np.ndarray:
    """[55, 3] metres, of somebody with these rest joints [55, 3] who stands at ease."""
    rest = relaxed_pose()
    return np.asarray(forward_kinematics(rest.rotvec, rest_joints, rest.transl)[:, :3, 3])


def place_camera(joints: np.ndarray, view: View, size: tuple[int, int]) -> Camera:
    """The camera for a picture of ``size`` (width, height) of a person with these ``standing_joints``.

    It stays where it is, whatever they do.
    """
    camera = frame_person(joints, view.framing, *size, yaw=view.yaw, pitch=view.pitch)
    if not view.mirror:
        return camera
    # a camera whose x axis is turned round sees the mirror image
    return replace(camera, T_camera_world=np.diag([-1.0, 1.0, 1.0, 1.0]) @ camera.T_camera_world)


def background_rgb(background: str) -> tuple[float, float, float]:
    """Six hex digits as a colour in [0, 1]; of ``transparent``, for whoever gets no alpha, a light grey."""
    red, green, blue = bytes.fromhex(DEFAULT_BACKGROUND if background == TRANSPARENT else background)
    return (red / 255, green / 255, blue / 255)
