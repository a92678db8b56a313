"""Where in the pictures chosen points look: attention from body points to image tokens, layer by layer."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.reconstruction.lhm.animation import PointRig
from lhm_runtime.reconstruction.lhm.config import HEAD_POINTS
from lhm_runtime.reconstruction.lhm.network import LhmNetwork
from lhm_runtime.reconstruction.lhm.pipeline import Canonical
from lhm_runtime.reconstruction.lhm.run import LhmRun
from lhm_runtime.reconstruction.lhm.transformer import JointAttention
from lhm_runtime.reconstruction.photo import Photo

WATCHED: Final[Mapping[str, str]] = {
    "head": "head",
    "chest": "spine3",
    "left hand": "left_wrist",
    "right hand": "right_wrist",
    "left knee": "left_knee",
    "right foot": "right_ankle",
}
"""Points that are watched, and the joint that they hang on."""

_GROUP: Final = 16

PictureName = Literal["body", "head"]


@dataclass(frozen=True, slots=True, eq=False)
class AttentionMap:
    """What a group of points takes from one picture in one layer, mean over points and attention heads."""

    points: str
    layer: int
    picture: PictureName
    weights: Float32[np.ndarray, "g g"]
    """Share of all attention that goes to each patch, row by row; the rest of 1 goes to other points."""


def choose_points(query_points: Float[np.ndarray, "p 3"], rig: PointRig) -> dict[str, Int[np.ndarray, " k"]]:
    """For each of ``WATCHED``, up to 16 points in front and in the middle of what the joint moves most.

    Left out are joints that move no point.
    """
    joint = rig.skin_weights.argmax(axis=1)
    chosen = {}
    for name, joint_name in WATCHED.items():
        moved = np.flatnonzero(joint == JOINT_INDEX[joint_name])
        if not len(moved):
            continue
        depth = query_points[moved, 2]
        in_front = moved[depth >= np.median(depth)]
        aside = np.linalg.norm(query_points[in_front, :2] - query_points[moved, :2].mean(axis=0), axis=1)
        chosen[name] = in_front[np.argsort(aside, kind="stable")[:_GROUP]]
    return chosen


class AttentionProbe:
    """Collects maps while a network runs inside ``watch``; memory: a row of attention for each chosen point."""

    def __init__(self, groups: Mapping[str, Int[np.ndarray, " k"]], count: int) -> None:
        """Points of each group by index, of ``count`` that the network is given.

        Raises:
            InvalidInputError: a group without points, or an index beyond ``count``.
        """
        for name, indices in groups.items():
            if not len(indices) or indices.min() < 0 or indices.max() >= count:
                raise InvalidInputError(f"points of {name!r} are {indices}, expected some of 0 to {count - 1}")
        self.maps: list[AttentionMap] = []
        self._groups = groups
        self._first_head = int(count * (1 - HEAD_POINTS))

    @contextmanager
    def watch(self, network: LhmNetwork) -> Iterator[None]:
        """Listen to every layer of the network."""
        with ExitStack() as stack:
            for index, layer in enumerate(network.transformer.layers):
                for picture, block in (("head", layer.head_dit), ("body", layer.body_dit)):
                    hook = block.attn.register_forward_pre_hook(
                        lambda attention, given, index=index, picture=picture: self._collect(
                            attention, *given, layer=index, picture=picture
                        )
                    )
                    stack.callback(hook.remove)
            yield

    def _collect(
        self, attention: JointAttention, points: Tensor, image: Tensor, *, layer: int, picture: PictureName
    ) -> None:
        q, k, _ = attention.project(points, image)
        side = round(image.shape[1] ** 0.5)
        for name, indices in self._groups.items():
            # the head's block is given the head's points alone
            own = indices if picture == "body" else indices[indices >= self._first_head] - self._first_head
            if not len(own):
                continue
            chosen = q[:, :, torch.from_numpy(own).to(q.device)].float()
            weights = (chosen @ k.float().transpose(2, 3) / q.shape[3] ** 0.5).softmax(dim=3)
            seen = weights[0, :, :, points.shape[1] :].mean(dim=(0, 1)).view(side, side)
            self.maps.append(AttentionMap(name, layer, picture, seen.cpu().numpy()))


def look_inside(
    run: LhmRun, photo: Photo, progress: Callable[[str, float], None] | None = None
) -> tuple[Canonical, list[AttentionMap]]:
    """Run a network on a photo and watch ``choose_points``; arguments and errors as for ``LhmRun.reconstruct``."""
    query_points, rig = run.place_points()
    probe = AttentionProbe(choose_points(query_points, rig), len(query_points))
    return run.reconstruct(photo, progress, probe.watch), probe.maps
