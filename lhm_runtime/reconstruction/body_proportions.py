"""Bodies whose limbs may be longer or shorter than their shape space has them.

The shape coefficients of a body model move arms and legs together; people, drawings and what a tracker calls a joint
do not. A body that cannot be shortened bends its knees instead to fit into the picture.
"""

from dataclasses import replace
from functools import lru_cache
from typing import Final

import numpy as np

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_INDEX, NUM_JOINTS, PARENTS

PROPORTIONS: Final = ("arm length", "leg length", "shoulder width", "head size")
"""Names of the coefficients added; each changes what it names by a tenth per unit."""

_PER_UNIT = 0.1  # people differ by half as much, drawings and what loose clothes hide by all of it
_KEPT_BETAS = 10
_STRETCHED = {
    "arm length": ("shoulder", "elbow"),
    "leg length": ("hip", "knee"),
    "shoulder width": ("collar",),
}
_NEXT = {"collar": "shoulder", "shoulder": "elbow", "elbow": "wrist", "hip": "knee", "knee": "ankle"}


@lru_cache(maxsize=4)
def with_proportions(body: BodyModel) -> BodyModel:
    """The same body with its first 10 betas followed by PROPORTIONS."""
    kept = min(_KEPT_BETAS, body.shape_directions.shape[2])
    added = np.stack([_direction(body, name) for name in PROPORTIONS], axis=2).astype(np.float32)
    return replace(
        body,
        shape_directions=np.concatenate([body.shape_directions[:, :, :kept], added], axis=2),
        beta_names=(*body.beta_names[:kept], *PROPORTIONS),
    )


def _direction(body: BodyModel, name: str) -> np.ndarray:
    """[v, 3] displacement of the vertices per unit: bones stretch along themselves and carry on what hangs on them."""
    J, v = body.rest_joints().astype(np.float64), body.v_template.astype(np.float64)
    stretch = np.zeros((NUM_JOINTS, 3, 3))
    if name == "head size":
        head = JOINT_INDEX["head"]
        stretch[[head, *np.flatnonzero(head == PARENTS)]] = _PER_UNIT * np.eye(3)
    else:
        for part in _STRETCHED[name]:
            for side in ("left", "right"):
                joint = JOINT_INDEX[f"{side}_{part}"]
                along = J[JOINT_INDEX[f"{side}_{_NEXT[part]}"]] - J[joint]
                stretch[joint] = _PER_UNIT * np.outer(along, along) / (along @ along)
    shift = np.zeros((NUM_JOINTS, 3))
    for joint in range(1, NUM_JOINTS):
        parent = PARENTS[joint]
        shift[joint] = shift[parent] + stretch[parent] @ (J[joint] - J[parent])
    # as in linear blend skinning: each bone's own motion, blended by weights
    constant = shift - (stretch @ J[:, :, None])[:, :, 0]
    weights = body.skin_weights.astype(np.float64)
    blended = (weights @ stretch.reshape(NUM_JOINTS, 9)).reshape(-1, 3, 3)
    displacement: np.ndarray = (blended @ v[:, :, None])[:, :, 0] + weights @ constant
    return displacement
