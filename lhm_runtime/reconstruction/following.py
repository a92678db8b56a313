"""A pose follows the picture: the avatar is drawn as the body was fitted, and moved to where the person is seen.

Landmarks say where the joints of a mean body are, a few centimetres off on who is blurred, turned or in loose clothes.
Whoever has an avatar can do better by comparing it with the picture. Two things tell where its surface belongs: the
optical flow from the drawn avatar to the picture (DIS, Kroeger et al. 2016), and the outlines of both, matched both
ways across their borders (ICP: Chen and Medioni 1992). Points of the surface become evidence beside the landmarks.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8
from scipy.spatial import cKDTree

from lhm_runtime.avatar import Avatar
from lhm_runtime.body.joints import NUM_JOINTS
from lhm_runtime.body.kinematics import joint_matrices
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.rasterizer import Renderer
from lhm_runtime.reconstruction.fit_evidence import add_points, gather_evidence
from lhm_runtime.reconstruction.fitting import STEADY, BodyFit, level, pitch_of, reprojection_of, state_of
from lhm_runtime.reconstruction.landmark_anchors import Anchors, limb_anchors, pose_anchors
from lhm_runtime.reconstruction.photo import Photo
from lhm_runtime.reconstruction.pose_refinement import BodyState, refine
from lhm_runtime.types import Camera

_SIDE = 448
"""Longest side of the pictures compared, pixels."""
_ROUNDS = 4
"""How often the avatar is drawn and moved."""
_EFFORT = (0.7, 2)
"""Weight of bones and iterations of each round."""
_BODY_JOINTS = 22
"""The first joints: fingers, jaw and eyes are too small to be followed."""
_CANDIDATES = 8000
"""Gaussians that may serve as points of the surface."""
_VISIBLE_M = 0.03
"""How far behind what is drawn a Gaussian still counts as seen."""
_FLOW_POINTS, _BORDER_POINTS = 300, 200
"""About how many there are, evenly over the avatar's picture and along the outlines."""
_FLOW_M, _BORDER_M = 0.008, 0.005
"""Their deviations, as if there were so many; fewer tell as much less each."""
_DOUBTFUL_M = 0.05
"""Points that are to move by more count less."""
_FURTHEST_FLOW_M, _FURTHEST_BORDER_M = 0.25, 0.10
_OTHER_BRIGHTNESS = 0.2
"""Flow that ends on something this much brighter or darker is wrong."""
_DARKEST = 0.4
"""Brightness that black has inside a person, to stand out from what is outside."""
_ACROSS_PX = 8.0
"""Pixels that borders of opposite directions are taken to be further apart, halved."""
_EDGE_PX = 3
_NORMAL_SIGMA_PX = 2.0
_LUMA = (0.299, 0.587, 0.114)
_NO_EXPRESSION = np.zeros(0)


class AvatarFollower:
    """An avatar whose poses follow pictures of the person it is of. For one thread."""

    def __init__(self, avatar: Avatar) -> None:
        self._avatar = avatar
        self._renderer = Renderer(avatar)
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._limbs = limb_anchors(avatar.rest_joints)
        self._surface = _sample_surface(avatar)
        self._height_m = float(np.ptp(avatar.gaussians.means[:, 1]))

    def follow(self, fit: BodyFit, photo: Photo) -> BodyFit:
        """The fit with pose, place and the camera's pitch changed so that the avatar covers the person.

        Shape, expression and fingers stay, and so does everything where no change makes the avatar more alike.

        Raises:
            InvalidInputError: the fit is of a picture of another size, or no point of body or hands is in this one.
        """
        size = (fit.camera.width, fit.camera.height)
        if photo.alpha.shape != size[::-1]:
            raise InvalidInputError(
                f"the fit is of a picture of {size[0]}x{size[1]}, the photo is "
                f"{photo.alpha.shape[1]}x{photo.alpha.shape[0]}"
            )
        likely_pitch = (pitch_of(fit.camera), STEADY)
        evidence = gather_evidence(photo.landmarks, self._limbs, np.zeros(0, np.float32), fit.camera.fx, likely_pitch)
        moving = evidence.moving < _BODY_JOINTS
        evidence = replace(evidence, moving=evidence.moving[moving], deviation=evidence.deviation[moving])
        expression = np.zeros(self._surface.point_expressions.shape[2])
        expression[: len(fit.pose.expression)] = fit.pose.expression
        surface = self._surface.select(np.arange(len(self._surface.points)), expression)

        scale = min(1.0, _SIDE / max(size))
        truth = _premultiply(photo, (round(size[0] * scale), round(size[1] * scale)))
        state = replace(state_of(fit, self._avatar.rest_joints), betas=np.zeros(0))
        seen = self._look(state, fit, truth)
        best, least = state, seen.error
        for _ in range(_ROUNDS):
            points = pose_anchors(surface, state.rotvec, state.transl, state.betas).points
            chosen, targets, deviation_m = seen.match(points)
            found = add_points(evidence, surface.select(chosen, _NO_EXPRESSION), targets, deviation_m)
            state = refine(found, state, _EFFORT, free_betas=False)
            seen = self._look(state, fit, truth)
            if seen.error < least:
                best, least = state, seen.error
        pose, camera = level(best, self._avatar.rest_joints, size, fit.camera.fx)
        return replace(
            fit,
            pose=replace(pose, expression=fit.pose.expression, timestamp_s=fit.pose.timestamp_s),
            camera=camera,
            reprojection=reprojection_of(evidence, best, self._height_m),
        )

    def _look(self, state: BodyState, fit: BodyFit, truth: Float32[np.ndarray, "h w 4"]) -> "_Comparison":
        whole = fit.camera
        pose, camera = level(state, self._avatar.rest_joints, (whole.width, whole.height), whole.fx)
        height, width = truth.shape[:2]
        x, y = width / whole.width, height / whole.height
        small = Camera(camera.T_camera_world, camera.fx * x, camera.fy * y, camera.cx * x, camera.cy * y, width, height)
        depth = np.empty((height, width), np.float32)
        drawn = self._renderer.render(
            joint_matrices(pose, self._avatar.rest_joints),
            fit.pose.expression,
            small,
            pixel_format="float",
            depth=depth,
        )
        return _Comparison(drawn, depth, truth, np.array([x, -y]), small, self._flow)


@dataclass(frozen=True, slots=True, eq=False)
class _Comparison:
    """An avatar as drawn beside the person as seen, premultiplied."""

    drawn: Float32[np.ndarray, "h w 4"]
    depth: Float32[np.ndarray, "h w"]
    """Of what is drawn."""
    truth: Float32[np.ndarray, "h w 4"]
    scale: Float64[np.ndarray, " 2"]
    """Pixels here per pixel of the evidence, whose y is up."""
    camera: Camera
    flow: cv2.DISOpticalFlow

    @property
    def error(self) -> float:
        """Mean square difference."""
        return float(((self.drawn - self.truth) ** 2).mean())

    def match(
        self, points: Float64[np.ndarray, "p 3"]
    ) -> tuple[Int64[np.ndarray, " q"], Float64[np.ndarray, "q 2"], Float64[np.ndarray, " q"]]:
        """Which of the avatar's points, where they should be seen in pixels of the evidence, and deviations, metres.

        ``points``: in the camera's axes, x right, y up, z backwards.
        """
        camera, depth = self.camera, -points[:, 2]
        pixels = points[:, :2] / depth[:, None] * [camera.fx, -camera.fy] + [camera.cx, camera.cy]
        visible = np.flatnonzero(self._shows(pixels, depth))
        if len(visible) == 0:
            return np.zeros(0, np.int64), np.zeros((0, 2)), np.zeros(0)
        px_per_m = camera.fx / float(np.median(depth[visible]))
        flown, ends = self._follow_flow(pixels[visible], px_per_m)
        bordering, crossings = self._match_borders(pixels[visible], px_per_m)
        chosen = visible[np.concatenate([flown, bordering])]
        targets = np.concatenate([ends, crossings])
        moves_m = np.linalg.norm(targets - pixels[chosen], axis=1) / px_per_m
        deviation_m = np.concatenate(
            [
                np.full(len(flown), _FLOW_M * np.sqrt(len(flown) / _FLOW_POINTS)),
                np.full(len(bordering), _BORDER_M * np.sqrt(len(bordering) / _BORDER_POINTS)),
            ]
        )
        centred = (targets - [camera.cx, camera.cy]) / self.scale
        return chosen, centred, deviation_m * np.sqrt(1 + (moves_m / _DOUBTFUL_M) ** 2)

    def _shows(self, pixels: Float64[np.ndarray, "p 2"], depth: Float64[np.ndarray, " p"]) -> Bool[np.ndarray, " p"]:
        """Whether points are in the picture and nothing is before them."""
        inside = _within(pixels, self.depth.shape, 0)
        x, y = np.where(inside[:, None], pixels, 0).astype(np.int64).T
        shows: np.ndarray = inside & (depth > 0) & (depth < self.depth[y, x] + _VISIBLE_M)
        return shows

    def _follow_flow(
        self, pixels: Float64[np.ndarray, "p 2"], px_per_m: float
    ) -> tuple[Int64[np.ndarray, " q"], Float64[np.ndarray, "q 2"]]:
        """Some of the points, evenly spread, and where the flow leads them."""
        here, there = _to_signal(self.drawn), _to_signal(self.truth)
        flow = self.flow.calc(here, there, np.zeros((*here.shape, 2), np.float32))
        cell = max(1.0, np.sqrt(np.count_nonzero(self.drawn[:, :, 3] > 0.5) / _FLOW_POINTS))
        column, row = (pixels // cell).astype(np.int64).T
        _, spread = np.unique(row * here.shape[1] + column, return_index=True)
        x, y = pixels[spread].astype(np.int64).T
        moves = flow[y, x].astype(np.float64)
        ends = pixels[spread] + moves
        good = _within(ends, here.shape, _EDGE_PX) & (np.linalg.norm(moves, axis=1) < _FURTHEST_FLOW_M * px_per_m)
        end_x, end_y = np.where(good[:, None], ends, 0).astype(np.int64).T
        good &= np.abs(here[y, x].astype(np.float64) - there[end_y, end_x]) < _OTHER_BRIGHTNESS * 255
        return spread[good], ends[good]

    def _match_borders(
        self, pixels: Float64[np.ndarray, "p 2"], px_per_m: float
    ) -> tuple[Int64[np.ndarray, " q"], Float64[np.ndarray, "q 2"]]:
        """The points next to the avatar's outline, and where across it the person's lies."""
        ours, our_normals = _find_border(self.drawn[:, :, 3])
        theirs, their_normals = _find_border(self.truth[:, :, 3])
        if min(len(ours), len(theirs)) == 0:
            return np.zeros(0, np.int64), np.zeros((0, 2))
        our_tree, their_tree = (
            cKDTree(np.hstack([border, _ACROSS_PX * normals]))
            for border, normals in ((ours, our_normals), (theirs, their_normals))
        )
        nearest_of_theirs, nearest_of_ours = their_tree.query(our_tree.data)[1], our_tree.query(their_tree.data)[1]
        starts = np.concatenate([ours, ours[nearest_of_ours]])
        normals = np.concatenate([our_normals, our_normals[nearest_of_ours]])
        ends = np.concatenate([theirs[nearest_of_theirs], theirs])
        moves = ends - starts
        shape = self.depth.shape
        good = _within(starts, shape, _EDGE_PX) & _within(ends, shape, _EDGE_PX)
        good &= np.linalg.norm(moves, axis=1) < _FURTHEST_BORDER_M * px_per_m
        used = np.flatnonzero(good)
        used = used[:: max(1, len(used) // _BORDER_POINTS)]
        # along the border anything fits: only the way across it counts
        across = (moves[used] * normals[used]).sum(1, keepdims=True) * normals[used]
        nearest = np.asarray(cKDTree(pixels).query(starts[used])[1], np.int64).reshape(-1)
        return nearest, pixels[nearest] + across


def _sample_surface(avatar: Avatar) -> Anchors:
    """Every so many Gaussians as points that follow the skeleton."""
    chosen = np.arange(0, len(avatar), max(1, len(avatar) // _CANDIDATES))
    weights = np.zeros((len(chosen), NUM_JOINTS))
    np.add.at(weights, (np.arange(len(chosen))[:, None], avatar.skin_joints[chosen]), avatar.skin_weights[chosen])
    expressions = np.zeros((len(chosen), 3, len(avatar.expression_names)))
    place = np.full(len(avatar), -1)
    place[chosen] = np.arange(len(chosen))
    moved = place[avatar.expression_gaussians]
    expressions[moved[moved >= 0]] = avatar.expression_directions[moved >= 0].swapaxes(1, 2)
    return Anchors(
        joints=avatar.rest_joints.astype(np.float64),
        joint_shapes=np.zeros((NUM_JOINTS, 3, 0)),
        points=avatar.gaussians.means[chosen].astype(np.float64),
        point_shapes=np.zeros((len(chosen), 3, 0)),
        weights=weights,
        point_expressions=expressions,
        face_points=np.zeros(0, np.int64),
    )


def _premultiply(photo: Photo, size: tuple[int, int]) -> Float32[np.ndarray, "h w 4"]:
    """The person without the background, 0 to 1, at another size (width, height)."""
    rgba = np.dstack([photo.rgb.astype(np.float32) / 255 * photo.alpha[:, :, None], photo.alpha])
    return np.asarray(cv2.resize(rgba, size, interpolation=cv2.INTER_AREA), np.float32)


def _to_signal(premultiplied: Float32[np.ndarray, "h w 4"]) -> UInt8[np.ndarray, "h w"]:
    """What the flow compares: brightness inside the person, and darker than any of it outside."""
    brightness = premultiplied[:, :, :3] @ np.array(_LUMA, np.float32)
    signal = _DARKEST * premultiplied[:, :, 3] + (1 - _DARKEST) * brightness
    return np.asarray(np.rint(255 * signal.clip(0, 1)), np.uint8)


def _find_border(alpha: Float32[np.ndarray, "h w"]) -> tuple[Float64[np.ndarray, "n 2"], Float64[np.ndarray, "n 2"]]:
    """Pixels just inside a matte's outline, the picture's own edges left out, and the directions outwards."""
    inside = (alpha > 0.5).astype(np.uint8)
    y, x = np.nonzero(inside > cv2.erode(inside, np.ones((3, 3), np.uint8), borderValue=1))
    smooth = cv2.GaussianBlur(alpha, (0, 0), _NORMAL_SIGMA_PX)
    slopes = [cv2.Sobel(smooth, cv2.CV_32F, dx, 1 - dx)[y, x].astype(np.float64) for dx in (1, 0)]
    normals = -np.stack(slopes, axis=1)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    return np.stack([x + 0.5, y + 0.5], axis=1), normals


def _within(pixels: Float64[np.ndarray, "n 2"], shape: tuple[int, ...], edge: int) -> Bool[np.ndarray, " n"]:
    """Whether they are in a picture of ``shape`` (height, width), further than ``edge`` from its edges."""
    within = (pixels >= edge) & (pixels < np.array([shape[1] - edge, shape[0] - edge]))
    return np.asarray(within.all(axis=1))
