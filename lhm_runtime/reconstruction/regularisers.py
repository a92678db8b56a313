"""What LHM's training holds Gaussians to (Qiu et al. 2025, section 3.4): as spherical and as close as possible.

Both are hinges: 0 for whatever is allowed. Here they tell how an avatar is made, whatever made it.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float, Float64, Integer
from scipy.spatial import cKDTree

from lhm_runtime.avatar import Avatar
from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_NAMES, NUM_JOINTS
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.reconstruction.body_proportions import with_proportions

ROUND: Final = 5.0
"""Longest in shortest axes that cost nothing."""
CLOSE_M: Final = 1.8 / 32
"""Distance from the body that costs nothing, metres: a person's height in 32 parts."""

PARTS: Final = ("head", "trunk", "arms", "hands", "legs", "feet")

_SHORTEST_M = 1e-6
_BETA_WEIGHT = 1e-4
"""A body of unusual shape is believed when it brings joints a centimetre nearer for each unit of a coefficient."""
_HEAD = ("neck", "head", "jaw", "eye")
_FEET = ("ankle", "foot")


@dataclass(frozen=True, slots=True)
class PartReport:
    """The regularisers on one part of the body, and the shares of Gaussians that they are about."""

    part: str
    count: int
    asap: float
    """Mean penalty for not being round."""
    acap_m: float
    """Mean penalty for being away from the body, metres."""
    needles: float
    """Share whose longest axis is more than ``ROUND`` times the middle one: discs are flat, needles stick out."""
    floating: float
    """Share farther from the body than ``CLOSE_M``."""


def penalise_elongation(scales: Float[np.ndarray, "n 3"]) -> Float64[np.ndarray, " n"]:
    """ASAP: how many times longer than the shortest axis the longest is, beyond ``ROUND`` times.

    Args:
        scales: standard deviations, metres, >= 0.
    """
    lengths = scales.astype(np.float64)
    ratio = lengths.max(axis=1) / np.maximum(lengths.min(axis=1), _SHORTEST_M)
    penalty: np.ndarray = np.maximum(ratio - ROUND, 0.0)
    return penalty


def penalise_distance(offset_m: Float[np.ndarray, "n 3"]) -> Float64[np.ndarray, " n"]:
    """ACAP: metres beyond ``CLOSE_M`` from where a Gaussian belongs.

    Args:
        offset_m: from its place on the body to its centre, metres.
    """
    penalty: np.ndarray = np.maximum(np.linalg.norm(offset_m.astype(np.float64), axis=1) - CLOSE_M, 0.0)
    return penalty


def offsets_from_body(avatar: Avatar, body: BodyModel | None = None) -> Float64[np.ndarray, "n 3"]:
    """From the nearest vertex of a body of the avatar's proportions to each Gaussian, at zero pose, metres.

    Clothes and hair lie outside the body: offsets of centimetres are right for them.

    Args:
        avatar: made by anything.
        body: what it stands on; the free body where None, shaped so that its joints lie where the avatar's do.
    """
    body = with_proportions(BodyModel.default() if body is None else body)
    vertices = _shape_like(body, avatar.rest_joints)
    nearest = cKDTree(vertices).query(avatar.gaussians.means)[1]
    offsets: np.ndarray = avatar.gaussians.means.astype(np.float64) - vertices[nearest]
    return offsets


def report_parts(
    scales: Float[np.ndarray, "n 3"], offset_m: Float[np.ndarray, "n 3"], joints: Integer[np.ndarray, " n"]
) -> list[PartReport]:
    """Both regularisers for each part of the body that has Gaussians, then for all of it.

    Args:
        scales: of the Gaussians.
        offset_m: as for ``penalise_distance``.
        joints: the joint that moves each most.

    Raises:
        InvalidInputError: there are no Gaussians.
    """
    if not len(scales):
        raise InvalidInputError("there are no Gaussians to report on")
    asap, acap = penalise_elongation(scales), penalise_distance(offset_m)
    middle, longest = np.sort(scales.astype(np.float64), axis=1)[:, 1:].T
    needle = longest > ROUND * np.maximum(middle, _SHORTEST_M)
    part_of = _PART_OF_JOINT[joints]

    def report(name: str, chosen: np.ndarray) -> PartReport:
        shares = (float(values[chosen].mean()) for values in (asap, acap, needle, acap > 0))
        return PartReport(name, int(chosen.sum()), *shares)

    reports = [report(name, part_of == k) for k, name in enumerate(PARTS) if (part_of == k).any()]
    return [*reports, report("all", np.ones(len(scales), bool))]


def report_avatar(avatar: Avatar, body: BodyModel | None = None) -> list[PartReport]:
    """``report_parts`` of an avatar; arguments as for ``offsets_from_body``."""
    return report_parts(avatar.gaussians.scales, offsets_from_body(avatar, body), avatar.skin_joints[:, 0])


def _shape_like(body: BodyModel, rest_joints: Float[np.ndarray, "55 3"]) -> Float64[np.ndarray, "v 3"]:
    """Vertices of the body whose joints lie nearest to these, by least squares over shape and place."""
    count = body.shape_directions.shape[2]
    template = body.rest_joints().astype(np.float64)
    columns = [body.rest_joints(unit.astype(np.float32)) - template for unit in np.eye(count)]
    columns += [np.tile(axis, (NUM_JOINTS, 1)) for axis in np.eye(3)]
    system = np.stack([column.ravel() for column in columns], axis=1)
    weight = np.diag([*np.full(count, _BETA_WEIGHT), *np.zeros(3)])
    found = np.linalg.solve(system.T @ system + weight, system.T @ (rest_joints - template).ravel())
    vertices: np.ndarray = body.rest_vertices(found[:count].astype(np.float32)) + found[count:]
    return vertices.astype(np.float64)


def _part(joint: str) -> str:
    bare = joint.removeprefix("left_").removeprefix("right_")
    if bare.startswith(_HEAD):
        return "head"
    if bare.startswith(("pelvis", "spine", "collar")):
        return "trunk"
    if bare.startswith(("shoulder", "elbow")):
        return "arms"
    if bare.startswith(("hip", "knee")):
        return "legs"
    return "feet" if bare.startswith(_FEET) else "hands"


_PART_OF_JOINT = np.array([PARTS.index(_part(name)) for name in JOINT_NAMES])
