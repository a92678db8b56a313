"""The built-in person: something good to show before there is a photo.

Made by code from the free body alone: ``figure`` shapes it, ``sampling`` spreads Gaussians on surfaces, the other
modules each make one part. Light is baked in softly from above, as it would be on an overcast day.
"""

from datetime import UTC, datetime

import numpy as np

from lhm_runtime.avatar import MAX_INFLUENCES, Avatar, AvatarMetadata
from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.reconstruction.builtin_person.features import (
    make_brows_and_lashes,
    make_eyes,
    make_nails,
    make_teeth,
)
from lhm_runtime.reconstruction.builtin_person.figure import Figure, build_figure
from lhm_runtime.reconstruction.builtin_person.hair import make_hair
from lhm_runtime.reconstruction.builtin_person.look import Look
from lhm_runtime.reconstruction.builtin_person.sampling import Patch, concatenate
from lhm_runtime.reconstruction.builtin_person.shoes import make_shoes
from lhm_runtime.reconstruction.builtin_person.skin import make_skin
from lhm_runtime.reconstruction.builtin_person.wardrobe import make_shirt, make_trousers
from lhm_runtime.reconstruction.rigging import EXPRESSION_FLOOR_M
from lhm_runtime.types import Gaussians

MIN_COUNT = 2_000
"""Fewer Gaussians than this cannot show the eyes."""

MAX_COUNT = 200_000
"""More than this and the smallest parts run out of places to put them."""

_SHARES = {
    "hair": 0.12,
    "eyes": 0.024,
    "hairs": 0.014,
    "teeth": 0.004,
    "shirt": 0.25,
    "trousers": 0.20,
    "shoes": 0.065,
}
"""Of all Gaussians; the skin takes the rest."""


def build_person(count: int = 40_000, body: BodyModel | None = None, look: Look | None = None) -> Avatar:
    """Build the built-in person with exactly ``count`` Gaussians; equal arguments give equal arrays.

    Args:
        count: 2,000 to 200,000; made for 10,000 to 160,000.
        body: the free body that ships with the package where None, or another with MediaPipe face landmarks.
        look: shape, colours and cuts; the built-in person's own where None.

    Raises:
        InvalidInputError: a count out of range, or a body without face landmarks.
    """
    if not MIN_COUNT <= count <= MAX_COUNT:
        raise InvalidInputError(f"count is {count}, the built-in person takes {MIN_COUNT} to {MAX_COUNT} Gaussians")
    figure = build_figure(BodyModel.default() if body is None else body, Look() if look is None else look)
    n = {part: round(share * count) for part, share in _SHARES.items()}
    nails = make_nails(figure)
    skin = count - sum(n.values()) - len(nails.means)
    person = concatenate(
        [
            *make_skin(figure, skin),
            *make_eyes(figure, n["eyes"]),
            *make_brows_and_lashes(figure, n["hairs"]),
            *make_teeth(figure, n["teeth"]),
            nails,
            make_hair(figure, n["hair"]),
            make_shirt(figure, n["shirt"]),
            make_trousers(figure, n["trousers"]),
            *make_shoes(figure, n["shoes"]),
        ]
    )
    return _rig(figure, person)


def _rig(figure: Figure, person: Patch) -> Avatar:
    """Give each Gaussian the weights and expressions of the triangle it rides on."""
    body = figure.body
    corners = figure.faces[person.triangles]
    weights = np.einsum("nk,nkj->nj", person.barycentric, body.skin_weights[corners])
    rigid = np.flatnonzero(person.rigid_joint >= 0)
    weights[rigid] = 0
    weights[rigid, person.rigid_joint[rigid]] = 1
    order = np.argsort(-weights, axis=1, kind="stable")[:, :MAX_INFLUENCES]
    heaviest = np.take_along_axis(weights, order, axis=1)
    heaviest /= heaviest.sum(axis=1, keepdims=True)
    reach = np.linalg.norm(body.expression_directions, axis=1).max(axis=1)
    moved = (reach[corners] > EXPRESSION_FLOOR_M).any(axis=1) & person.expressive
    expressive = np.flatnonzero(moved)
    directions = np.einsum(
        "mk,mkce->mec",
        person.barycentric[expressive],
        body.expression_directions[corners[expressive]],
        optimize=True,
    )
    return Avatar(
        gaussians=Gaussians(
            means=person.means.astype(np.float32),
            quat_wxyz=person.quat_wxyz.astype(np.float32),
            scales=person.scales.astype(np.float32),
            opacity=person.opacity.astype(np.float32),
            rgb=np.clip(person.rgb, 0, 1).astype(np.float32),
        ),
        skin_joints=order.astype(np.uint8),
        skin_weights=heaviest.astype(np.float32),
        constrained=np.zeros(len(person.means), bool),
        expression_gaussians=expressive.astype(np.int32),
        expression_directions=directions.astype(np.float32),
        expression_names=body.expression_names,
        rest_joints=figure.joints.astype(np.float32),
        metadata=AvatarMetadata(
            reconstructor="builtin-person 1",
            body_model=body.name,
            body_model_sha256=body.sha256,
            licence="Apache-2.0 (look), CC0-1.0 (body)",
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        ),
    )
