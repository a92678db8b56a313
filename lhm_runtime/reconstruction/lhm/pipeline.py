"""From a photo to Gaussians by LHM, stage by stage; each encoder is gone before the next part is loaded."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.reconstruction.lhm.animation import PointRig, open_hips
from lhm_runtime.reconstruction.lhm.checkpoint import Checkpoint, choose_dtype
from lhm_runtime.reconstruction.lhm.head_box import find_head
from lhm_runtime.reconstruction.lhm.points import recover_points
from lhm_runtime.reconstruction.lhm.preprocessing import (
    RESTORER_PX,
    body_input,
    crop_body,
    crop_head,
    head_input,
)
from lhm_runtime.reconstruction.lhm.sapiens import encode_body, load_sapiens
from lhm_runtime.reconstruction.photo import Photo
from lhm_runtime.types import Gaussians

HeadFinder = Callable[[Photo], Float[np.ndarray, " 4"] | None]
"""From a photo to left, top, right, bottom of the whole head, pixels; None where it shows none."""

FaceRestorer = Callable[[UInt8[np.ndarray, "112 112 3"]], UInt8[np.ndarray, "448 448 3"]]
"""Enlarges a picture of a head, as GFPGAN does for the published code."""


@dataclass(frozen=True, slots=True, eq=False)
class Canonical:
    """What the network gives, and what ``animation.make_avatar`` needs besides."""

    gaussians: Gaussians
    """Legs apart, without shape: no skinning has touched them."""
    rig: PointRig
    body: BodyModel


def reconstruct_canonical(
    photo: Photo,
    checkpoint: Checkpoint,
    sapiens: Path,
    *,
    source_size: int,
    points: Float32[np.ndarray, "p 3"] | None = None,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    find_head: HeadFinder = find_head,
    restore_face: FaceRestorer | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Canonical:
    """Run the whole network on one photo.

    Args:
        photo: the person and their matte; ``read_photo`` takes another mask or matting model.
        checkpoint: of the network.
        sapiens: file of the body encoder.
        source_size: of the variant (``Variant.source_size``).
        points: the published query points (``read_points``); near ones are drawn where None.
        device: torch's name of where to compute.
        dtype: of the large weights; ``choose_dtype`` of the device where None.
        find_head: another source of the head's box.
        restore_face: sharpens the head's picture; its own pixels are used where None.
        progress: called with the name of each stage and the share of all stages that is done.

    Raises:
        FileFormatError: Sapiens is missing or damaged.
        PhotoError: nobody in the matte.
        InvalidInputError: a head box that is none.
    """
    stages = ("cutting out", "body features", "head features", "transformer")

    def tell(stage: int) -> None:
        if progress is not None:
            progress(stages[stage], stage / len(stages))

    dtype = choose_dtype(device) if dtype is None else dtype
    tell(0)
    rig, body = checkpoint.read_rig(), checkpoint.read_body()
    query_points = open_hips(recover_points(rig.shape_directions, body) if points is None else points, rig, body)
    body_picture = body_input(crop_body(photo.rgb, photo.alpha, source_size).rgb).to(device)
    head_picture = head_input(_head_picture(photo, find_head(photo), restore_face)).to(device)
    with torch.inference_mode():
        tell(1)
        body_features = encode_body(load_sapiens(sapiens, device=device, dtype=dtype), body_picture)
        tell(2)
        head_features = checkpoint.load_head_encoder(device=device, dtype=dtype)(head_picture)
        tell(3)
        network = checkpoint.load_network(device=device, dtype=dtype)
        decoded = network(
            torch.from_numpy(query_points).to(device),
            body_features,
            head_features,
            torch.from_numpy(rig.is_upper_body).to(device),
        )
    return Canonical(decoded.at(query_points), rig, body)


def _head_picture(
    photo: Photo, box: Float[np.ndarray, " 4"] | None, restore_face: FaceRestorer | None
) -> UInt8[np.ndarray, "s s 3"]:
    if restore_face is None:
        return crop_head(photo.rgb, box)
    return restore_face(crop_head(photo.rgb, box, RESTORER_PX))
