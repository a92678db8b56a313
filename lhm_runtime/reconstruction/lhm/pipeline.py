"""From a photo to Gaussians by LHM, stage by stage; each encoder is gone before the next part is loaded."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.reconstruction.lhm.animation import PointRig, open_hips
from lhm_runtime.reconstruction.lhm.checkpoint import Checkpoint, choose_dtype
from lhm_runtime.reconstruction.lhm.config import LhmConfig
from lhm_runtime.reconstruction.lhm.cost import STAGES, Meter, StageCost
from lhm_runtime.reconstruction.lhm.head_box import find_head
from lhm_runtime.reconstruction.lhm.network import LhmNetwork
from lhm_runtime.reconstruction.lhm.points import recover_points
from lhm_runtime.reconstruction.lhm.preprocessing import (
    RESTORER_PX,
    BodyPicture,
    body_input,
    crop_body,
    crop_head,
    head_input,
)
from lhm_runtime.reconstruction.lhm.sapiens import SAPIENS_1B, encode_body, load_sapiens
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
    query_points: Float32[np.ndarray, "p 3"]
    """Where the Gaussians would be without the network's offsets."""
    body_picture: BodyPicture
    """The person as the body encoder saw them."""
    head_picture: UInt8[np.ndarray, "s s 3"]
    costs: tuple[StageCost, ...]
    """Time and memory of each stage."""


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
    probe: Callable[[LhmNetwork], AbstractContextManager[object]] = nullcontext,
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
        progress: called with the name of each stage and the share of the work that is done.
        probe: what it gives of the network is entered while the network runs, as ``AttentionProbe`` to look inside.

    Raises:
        FileFormatError: Sapiens is missing or damaged.
        PhotoError: nobody in the matte.
        InvalidInputError: a head box that is none.
    """
    dtype = choose_dtype(device) if dtype is None else dtype
    shares = _shares(checkpoint.config)
    meter = Meter(device, progress)
    meter.begin(STAGES[0], 0.0)
    rig, body = checkpoint.read_rig(), checkpoint.read_body()
    query_points = place_points(points, rig, body)
    person = crop_body(photo.rgb, photo.alpha, source_size)
    head = _head_picture(photo, find_head(photo), restore_face)
    with torch.inference_mode():
        meter.begin(STAGES[1], shares[0])
        body_features = encode_body(
            load_sapiens(sapiens, device=device, dtype=dtype), body_input(person.rgb).to(device)
        )
        meter.begin(STAGES[2], shares[1])
        head_features = checkpoint.load_head_encoder(device=device, dtype=dtype)(head_input(head).to(device))
        meter.begin(STAGES[3], shares[2])
        network = checkpoint.load_network(device=device, dtype=dtype)
        _follow(network, progress, shares[2])
        with probe(network):
            decoded = network(
                torch.from_numpy(query_points).to(device),
                body_features,
                head_features,
                torch.from_numpy(rig.is_upper_body).to(device),
            )
        gaussians = decoded.at(query_points)
        meter.end()
    return Canonical(gaussians, rig, body, query_points, person, head, tuple(meter.costs))


def place_points(
    points: Float32[np.ndarray, "p 3"] | None, rig: PointRig, body: BodyModel
) -> Float32[np.ndarray, "p 3"]:
    """The query points in the network's pose; near the published ones where None."""
    return open_hips(recover_points(rig.shape_directions, body) if points is None else points, rig, body)


def _shares(config: LhmConfig) -> tuple[float, float, float]:
    """Of the work, what is done before the body encoder, the head encoder and the transformer, by their operations."""
    patches = SAPIENS_1B.grid**2
    work = (
        0.05e12,
        24 * SAPIENS_1B.depth * patches * SAPIENS_1B.width * (SAPIENS_1B.width + patches / 6),
        24 * config.dino.depth * 1024 * config.dino.width * (config.dino.width + 1024 / 6),
        24 * config.layers * config.points * config.width * (config.width + (config.points + patches) / 6),
    )
    return work[0] / sum(work), sum(work[:2]) / sum(work), sum(work[:3]) / sum(work)


def _follow(network: LhmNetwork, progress: Callable[[str, float], None] | None, start: float) -> None:
    """Tell of each layer that is done; ``start`` is the share that was done before the first."""
    layers = network.transformer.layers
    for index, layer in enumerate(layers):
        if progress is not None:
            done = start + (1 - start) * (index + 1) / len(layers)
            layer.register_forward_hook(lambda *_, done=done: progress(STAGES[3], done))


def _head_picture(
    photo: Photo, box: Float[np.ndarray, " 4"] | None, restore_face: FaceRestorer | None
) -> UInt8[np.ndarray, "s s 3"]:
    if restore_face is None:
        return crop_head(photo.rgb, box)
    return restore_face(crop_head(photo.rgb, box, RESTORER_PX))
