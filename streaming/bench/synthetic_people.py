"""People whose every side is known: variations of the built-in person, photographed by the renderer.

Reconstructed from their front, they can be compared with the truth from every side, which no photo allows.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from lhm_runtime.avatar import Avatar
from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.body.kinematics import forward_kinematics, joint_matrices
from lhm_runtime.body.rotations import rotvec_to_matrix
from lhm_runtime.motion.procedural import relaxed_pose
from lhm_runtime.rasterizer import Renderer, frame_person
from lhm_runtime.reconstruction.builtin_person import build_person
from lhm_runtime.reconstruction.builtin_person.look import Look
from lhm_runtime.reconstruction.builtin_person.shading import Rgb, noise
from lhm_runtime.types import Camera, SmplxPose

PHOTO_SIZE = (768, 1024)
TRUNK_AND_LIMBS = 22
"""How many of the joints these are: the first ones."""
_PHOTO_FOV_DEG = (35.0, 55.0)  # from a portrait lens to a phone's main camera
_GAUSSIANS = 60_000

_HAIR: tuple[Rgb, ...] = ((0.29, 0.185, 0.13), (0.09, 0.07, 0.065), (0.62, 0.47, 0.29), (0.42, 0.22, 0.12))
_SKIN: tuple[Rgb, ...] = ((1.0, 1.0, 1.0), (0.86, 0.80, 0.74), (0.66, 0.57, 0.50), (0.47, 0.39, 0.34))


@dataclass(frozen=True, slots=True, eq=False)
class SyntheticPerson:
    """A person, how they stand, and the camera that takes the photo from the front."""

    avatar: Avatar
    pose: SmplxPose
    camera: Camera

    def camera_from(self, yaw_deg: float) -> Camera:
        """The camera gone round the person by ``yaw_deg``, towards their left side."""
        up = self.camera.T_camera_world[:3, 1]  # the vertical, in the camera's frame
        return go_round(self.camera, middle(self.avatar, self.pose), up, float(np.radians(yaw_deg)))

    def draw(self, camera: Camera) -> np.ndarray:
        """[h, w, 4] float32, premultiplied, from any camera."""
        with Renderer(self.avatar) as renderer:
            return renderer.render(
                joint_matrices(self.pose, self.avatar.rest_joints), self.pose.expression, camera, pixel_format="float"
            )

    def photograph(self, yaw_deg: float = 0.0, oversampling: int = 1) -> np.ndarray:
        """[h, w, 3] uint8: from the front, or from further round towards their left side; a wall and a floor behind.

        Args:
            yaw_deg: how far round.
            oversampling: the person is drawn so many times larger and averaged, lest what is finer than a pixel, as
                lashes, come out as wide as one.
        """
        camera = self.camera_from(yaw_deg)
        size = (camera.width, camera.height)
        picture = cv2.resize(self.draw(_enlarge(camera, oversampling)), size, interpolation=cv2.INTER_AREA)
        wall = _wall(camera)
        photo: np.ndarray = picture[:, :, :3] + (1 - picture[:, :, 3:]) * wall
        return np.asarray(np.rint(255 * photo.clip(0, 1)), np.uint8)


def _enlarge(camera: Camera, times: int) -> Camera:
    """The same view on so many times as many pixels a side."""
    fx, fy, cx, cy = (times * value for value in (camera.fx, camera.fy, camera.cx, camera.cy))
    return Camera(camera.T_camera_world, fx, fy, cx, cy, times * camera.width, times * camera.height)


def go_round(camera: Camera, pivot: np.ndarray, axis: np.ndarray, angle: float) -> Camera:
    """The camera gone round ``pivot`` (world) by ``angle`` about ``axis`` (in its own frame), towards a left side."""
    centre = camera.T_camera_world[:3, :3] @ pivot + camera.T_camera_world[:3, 3]
    T = np.eye(4)
    T[:3, :3] = rotvec_to_matrix(-angle * axis)
    T[:3, 3] = centre - T[:3, :3] @ centre
    return replace(camera, T_camera_world=T @ camera.T_camera_world)


def middle(avatar: Avatar, pose: SmplxPose) -> np.ndarray:
    """[3] the mean joint of trunk and limbs, metres: no single joint's error moves it much."""
    joints = forward_kinematics(pose.rotvec, avatar.rest_joints, pose.transl)[:TRUNK_AND_LIMBS, :3, 3]
    mean: np.ndarray = joints.mean(axis=0)
    return mean


def make_person(seed: int, count: int = _GAUSSIANS) -> SyntheticPerson:
    """A person by number; equal numbers give equal people."""
    rng = np.random.default_rng([20, seed])
    avatar = build_person(count, look=_random_look(rng))
    pose = _random_stance(rng, avatar)
    joints = forward_kinematics(pose.rotvec, avatar.rest_joints, pose.transl)[:, :3, 3]
    camera = frame_person(
        joints,
        "full",
        *PHOTO_SIZE,
        yaw=float(rng.uniform(-0.15, 0.15)),
        pitch=float(rng.uniform(-0.02, 0.06)),
        fov_y_deg=float(rng.uniform(*_PHOTO_FOV_DEG)),
    )
    return SyntheticPerson(avatar, pose, camera)


def _random_look(rng: np.random.Generator) -> Look:
    def colour() -> Rgb:
        hue, strength, value = rng.uniform(0, 1), rng.uniform(0.1, 0.75), rng.uniform(0.15, 0.92)
        channels = value * (1 - strength * np.clip(np.abs((hue * 6 + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)[::-1])
        return float(channels[0]), float(channels[1]), float(channels[2])

    def darker(base: Rgb, share: float = 0.65) -> Rgb:
        return base[0] * share, base[1] * share, base[2] * share

    def vary(base: Rgb, by: float) -> Rgb:
        r, g, b = (float(np.clip(c + rng.uniform(-by, by), 0.02, 1.0)) for c in base)
        return r, g, b

    hair = vary(_HAIR[rng.integers(len(_HAIR))], 0.03)
    shirt, trousers, shoes = colour(), darker(colour(), 0.8), darker(colour(), 0.7)
    default = Look()
    shape = {name: value + rng.uniform(-0.7, 0.7) for name, value in default.shape.items()}
    shape["gender"] = rng.uniform(-1.0, 1.0)
    return Look(
        shape=shape,
        skin_tint=_SKIN[rng.integers(len(_SKIN))],
        hair=hair,
        hair_sheen=(hair[0] * 2.0 + 0.03, hair[1] * 2.1 + 0.03, hair[2] * 2.1 + 0.03),
        hair_growth_m=float(rng.choice([-0.03, 0.0, 0.05, 0.12])),
        iris=vary(default.iris, 0.12),
        shirt=shirt,
        shirt_seam=darker(shirt),
        stripe=colour(),
        stripe_m=float(rng.choice([0.0, 0.0, 0.08, 0.12, -0.1])),
        sleeve=float(rng.choice([0.5, 0.66, 1.2, 1.8])),
        looseness=float(rng.uniform(0.8, 2.2)),
        trousers=trousers,
        trousers_seam=darker(trousers),
        faded=vary(trousers, 0.08),
        shoes=shoes,
        shoe_seam=darker(shoes),
    )


def _random_stance(rng: np.random.Generator, avatar: Avatar) -> SmplxPose:
    """At ease, the arms a hand or two away from the body, the head turned a little."""
    pose = relaxed_pose(avatar.expression_names)
    rotvec = pose.rotvec.copy()
    for side, sign in (("left", 1), ("right", -1)):
        rotvec[JOINT_INDEX[f"{side}_shoulder"], 2] += sign * rng.uniform(0.0, 0.5)
        rotvec[JOINT_INDEX[f"{side}_hip"], 2] += sign * rng.uniform(0.0, 0.12)
        rotvec[JOINT_INDEX[f"{side}_elbow"], 1] -= sign * rng.uniform(0.0, 0.4)
    rotvec[JOINT_INDEX["head"], 1] += rng.uniform(-0.25, 0.25)
    return replace(pose, rotvec=rotvec)


def _wall(camera: Camera) -> np.ndarray:
    """A wall with soft stains above a darker floor."""
    y, x = np.mgrid[: camera.height, : camera.width].astype(np.float64)
    stains = noise(np.stack([x.ravel(), y.ravel()], axis=1) / 140, 61).reshape(x.shape)
    floor = np.clip((y - 0.86 * camera.height) / 6, 0, 1)
    value = 0.70 + 0.05 * stains - 0.08 * y / camera.height - 0.18 * floor
    wall: np.ndarray = value[:, :, None] * np.array([1.0, 0.98, 0.94])
    return wall
