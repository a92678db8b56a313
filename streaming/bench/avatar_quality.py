"""How close reconstructed avatars come to photos, to later frames of a video, and to people known from every side."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import cv2
import numpy as np

from lhm_runtime.avatar import Avatar
from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.kinematics import forward_kinematics, joint_matrices
from lhm_runtime.errors import FileFormatError, PhotoError
from lhm_runtime.motion.person_choice import Body
from lhm_runtime.rasterizer import Renderer
from lhm_runtime.reconstruction import Method, Reconstruction, reconstruct
from lhm_runtime.reconstruction.body_proportions import with_proportions
from lhm_runtime.reconstruction.fitting import fit_body
from lhm_runtime.reconstruction.following import AvatarFollower
from lhm_runtime.reconstruction.photo import Photo, read_photo, see_person
from lhm_runtime.reconstruction.still_models import StillModels
from lhm_runtime.types import Camera, SmplxPose
from streaming.bench.similarity import iou, psnr, ssim
from streaming.bench.synthetic_people import TRUNK_AND_LIMBS, SyntheticPerson, go_round, make_person, middle
from streaming.reconstruct_command import see_turning_person
from streaming.video_file import write_video
from streaming.video_input import VideoInput

HEIGHT = 512
"""Pictures are compared at this height, pixels."""
YAWS_DEG = (0, 30, -30, 60, -60, 90, -90, 180)
"""Sides from which synthetic people are compared."""
SOURCES: Mapping[str, tuple[int, ...]] = {
    "1 photo": (0,),
    "front+back": (0, 180),
    "4 photos": (0, 180, 90, -90),
    "video": (0, 45, 90, 135, 180, -135, -90, -45),
}
"""What synthetic people are reconstructed from: photos from these sides, degrees, or a video of someone who turns."""

_MARGIN = 0.03
"""Air around the person's box, in its sides."""
_FACE_SIDE = 128
_IRISES = (468, 473)
_VIDEO_FPS = 8.0

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels."""


@dataclass(frozen=True, slots=True)
class Score:
    """How alike an avatar and the truth are in one view, on white."""

    psnr: float
    """dB."""
    ssim: float
    iou: float
    """Of the mattes."""


@dataclass(frozen=True, slots=True)
class SideScore:
    """How alike an avatar and the truth are from one side."""

    person: Score
    """In the person's box, 512 pixels high."""
    whole: Score
    """Over the whole picture at its own size, as papers of reconstruction have it: its empty part counts too."""


@dataclass(frozen=True, slots=True)
class FaceScore:
    """How much an avatar's face is the photo's, measured without a face recogniser."""

    ssim: float
    """Of the box around the face points, 128 pixels high."""
    points: float
    """Mean distance of the 478 face points found in the same view from those of the photo, in distances between the
    eyes; NaN where no face is found in the same view."""


@dataclass(slots=True)
class StageClock:
    """Seconds by stage, kept by being told of each one's progress."""

    cpu_s: dict[str, float] = field(default_factory=dict)
    """Processor time of all threads, in the order of the stages: what does not depend on the machine's other work."""
    wall_s: dict[str, float] = field(default_factory=dict)
    _stage: str = ""
    _cpu: float = 0.0
    _wall: float = 0.0

    def tell(self, stage: str, done: float) -> None:  # noqa: ARG002 - the shape of a progress function
        """Stop the running stage's time and start this one's."""
        cpu, wall = time.process_time(), time.perf_counter()
        if self._stage:
            self.cpu_s[self._stage] = self.cpu_s.get(self._stage, 0.0) + cpu - self._cpu
            self.wall_s[self._stage] = self.wall_s.get(self._stage, 0.0) + wall - self._wall
        self._stage, self._cpu, self._wall = stage, cpu, wall


@dataclass(frozen=True, slots=True, eq=False)
class PhotoResult:
    """One photo, reconstructed and seen from its own side."""

    name: str
    made: Reconstruction
    score: Score
    face: FaceScore | None
    """None where the photo shows no face."""
    clock: StageClock


@dataclass(frozen=True, slots=True)
class FrameResult:
    """One later frame of the video that an avatar was made of the first frame of."""

    frame: int
    whole: Score
    """Over the whole frame at its own size."""
    person: Score
    """In the person's box."""
    by_landmarks: Score
    """Over the whole frame, with the body fitted to landmarks alone: before the pose followed the picture."""


@dataclass(frozen=True, slots=True, eq=False)
class PersonResult:
    """One synthetic person, reconstructed from one kind of source."""

    seed: int
    source: str
    """Key of SOURCES."""
    scores: dict[int, SideScore]
    """By yaw in degrees, in the pose found in the first photo; empty when reconstruction failed."""
    posed: dict[int, SideScore]
    """The same in the pose that the person has in truth: what is left is the avatar's own fault."""
    used: int
    """How many photos the avatar was made of."""
    pairs: list[np.ndarray]
    """Truth above avatar for each yaw, uint8 [2 h, w, 3]."""
    failure: str = ""
    """Why it failed."""


def measure_photo(path: Path, models: StillModels, method: Method, count: int) -> PhotoResult:
    """Reconstruct one photo.

    Raises:
        PhotoError: it shows nobody.
    """
    clock = StageClock()
    clock.tell("finding the person", 0.0)
    photo = read_photo(path, models=models)
    made = reconstruct([photo], method=method, count=count, progress=clock.tell)
    clock.tell("", 0.0)
    fit = made.fits[0]
    drawn = _Drawn(made.avatar)
    score, _ = _compare(photo.rgb / 255, photo.alpha, drawn, fit.pose, fit.camera, _box_of(photo.alpha))
    return PhotoResult(path.name, made, score, _compare_faces(photo, drawn, made, models), clock)


def measure_video(
    path: Path, frames: Sequence[int], models: StillModels, method: Method, count: int
) -> list[FrameResult]:
    """Reconstruct someone from a video's first frame, move them as in ``frames``; those that show nobody are left out.

    Each frame's pose is fitted to its landmarks and then follows its picture (``reconstruction.following``): what is
    measured is the avatar, with as little of a tracker's error as can be. What that is worth is reported too.

    Raises:
        PhotoError: the first frame shows nobody.
        FileFormatError: the video cannot be read, or has none of the frames.
    """
    made: Reconstruction | None = None
    results: list[FrameResult] = []
    body, fit = with_proportions(BodyModel.default()), None
    with VideoInput(str(path)) as video:
        for frame in video:
            if frame.index and frame.index not in frames:
                continue
            try:
                photo = see_person(frame.rgb, name=f"frame {frame.index}", models=models, crop=False)
            except PhotoError:
                if made is None:
                    raise
                continue
            if made is None:
                made = reconstruct([photo], method=method, count=count)
                drawn, follower = _Drawn(made.avatar), AvatarFollower(made.avatar)
                continue
            height, width = photo.alpha.shape
            betas = made.fits[0].betas
            fit = fit_body(photo.landmarks, (width, height), body, betas=betas, start=fit, focal_px=photo.focal_px)
            truth, frame_box = photo.rgb / 255, (0, 0, width, height)
            by_landmarks, _ = _compare(truth, photo.alpha, drawn, fit.pose, fit.camera, frame_box, height)
            fit = follower.follow(fit, photo)
            person, _ = _compare(truth, photo.alpha, drawn, fit.pose, fit.camera, _box_of(photo.alpha))
            whole, _ = _compare(truth, photo.alpha, drawn, fit.pose, fit.camera, frame_box, height)
            results.append(FrameResult(frame.index, whole, person, by_landmarks))
            if frame.index >= frames[-1]:
                break
    if made is None or not results:
        raise FileFormatError(f"{path} has none of the frames {frames[0]} to {frames[-1]}, or shows nobody in them")
    return results


def measure_people(
    seeds: Sequence[int], models: StillModels, method: Method, count: int, sources: Sequence[str] = ("1 photo",)
) -> Iterator[PersonResult]:
    """Reconstruct synthetic people from each kind of source and compare them with the truth from all sides."""
    for seed in seeds:
        person = make_person(seed)
        for source in sources:
            try:
                photos = _film(person, models) if source == "video" else _photograph(person, SOURCES[source], models)
                made = reconstruct(photos, method=method, count=count)
            except PhotoError as error:
                yield PersonResult(seed, source, {}, {}, 0, [], str(error))
                continue
            scores, pairs = _compare_sides(person, made.avatar, made.fits[0].pose, made.fits[0].camera)
            posed, _ = _compare_sides(person, made.avatar, *_stand_alike(person, made.avatar))
            yield PersonResult(seed, source, scores, posed, len(made.photos), pairs)


def _photograph(person: SyntheticPerson, sides: Sequence[int], models: StillModels) -> list[Photo]:
    """Photos from these sides; those of further sides in which nobody is found are left out."""
    photos: list[Photo] = []
    for side in sides:
        try:
            photos.append(see_person(person.photograph(side), name=f"the photo from {side} degrees", models=models))
        except PhotoError:
            if not photos:
                raise
    return photos


def _film(person: SyntheticPerson, models: StillModels) -> list[Photo]:
    """What is taken from a video file in which the person turns once."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "turning.mp4"
        pictures = (av.VideoFrame.from_ndarray(person.photograph(side), format="rgb24") for side in SOURCES["video"])
        write_video(path, [picture.reformat(format="yuv420p").to_ndarray() for picture in pictures], _VIDEO_FPS)
        return see_turning_person(path, models, lambda _: None)


def _compare_sides(
    person: SyntheticPerson, avatar: Avatar, pose: SmplxPose, camera: Camera
) -> tuple[dict[int, SideScore], list[np.ndarray]]:
    """Turn the cameras of the truth and of the avatar alike, each round its own mean joint of trunk and limbs.

    A picture does not tell how deep in the flesh a joint lies, and round another pivot the same avatar stands elsewhere
    in the picture. Round the pelvis, one joint that the hips hide, avatars of one photo scored 0.3 dB less at 30
    degrees, 0.1 more at 90 and 1.2 less at 180; round the mean of all 55 joints, half of them fingers', 2 to 3 less.
    """
    truth, drawn = _Drawn(person.avatar), _Drawn(avatar)
    up = person.camera.T_camera_world[:3, 1]  # the vertical, in the camera's frame
    scores, pairs = {}, []
    for yaw in YAWS_DEG:
        actual = truth.draw(person.pose, person.camera_from(yaw))
        turned = go_round(camera, middle(avatar, pose), up, float(np.radians(yaw)))
        rgb, alpha = actual[:, :, :3] / np.maximum(actual[:, :, 3:], 1e-6), actual[:, :, 3]
        in_box, pair = _compare(rgb, alpha, drawn, pose, turned, _box_of(alpha))
        height, width = alpha.shape
        whole, _ = _compare(rgb, alpha, drawn, pose, turned, (0, 0, width, height), height)
        scores[yaw] = SideScore(in_box, whole)
        pairs.append(pair)
    return scores, pairs


def _stand_alike(person: SyntheticPerson, avatar: Avatar) -> tuple[SmplxPose, Camera]:
    """The true pose, and a camera before which an avatar of another size stands where the person does."""
    pose = replace(person.pose, transl=np.zeros(3, np.float32))
    theirs, ours = (
        forward_kinematics(pose.rotvec, who.rest_joints, transl)[:TRUNK_AND_LIMBS, :3, 3].astype(np.float64)
        for who, transl in ((person.avatar, person.pose.transl), (avatar, pose.transl))
    )
    size = np.linalg.norm(theirs - theirs.mean(0)) / np.linalg.norm(ours - ours.mean(0))
    # seen from the camera all is size times smaller and nearer: the picture is the same
    T = person.camera.T_camera_world.copy()
    R = T[:3, :3]
    T[:3, 3] = (R @ theirs.mean(0) + T[:3, 3]) / size - R @ ours.mean(0)
    return pose, replace(person.camera, T_camera_world=T)


class _Drawn:
    """An avatar that can be drawn again and again."""

    def __init__(self, avatar: Avatar) -> None:
        self._avatar = avatar
        self._renderer = Renderer(avatar)

    def draw(self, pose: SmplxPose, camera: Camera) -> np.ndarray:
        """[h, w, 4] float32, premultiplied."""
        matrices = joint_matrices(pose, self._avatar.rest_joints)
        return self._renderer.render(matrices, pose.expression, camera, pixel_format="float")


def _compare(
    rgb: np.ndarray, alpha: np.ndarray, drawn: _Drawn, pose: SmplxPose, camera: Camera, box: Box, height: int = HEIGHT
) -> tuple[Score, np.ndarray]:
    """Score of a posed avatar in a box of a picture (straight colours 0 to 1, and alpha); truth above avatar."""
    left, top, right, bottom = box
    size = (max(round((right - left) * height / (bottom - top)), 1), height)
    how = cv2.INTER_AREA if height < bottom - top else cv2.INTER_CUBIC
    matte = alpha[top:bottom, left:right].astype(np.float32)
    picture = rgb[top:bottom, left:right].astype(np.float32) * matte[:, :, None] + 1 - matte[:, :, None]
    truth = np.clip(cv2.resize(picture, size, interpolation=how), 0, 1)
    small_matte = np.asarray(cv2.resize(matte, size, interpolation=how))
    seen = drawn.draw(pose, _cut(camera, box, *size))
    on_white = np.clip(seen[:, :, :3] + 1 - seen[:, :, 3:], 0, 1)
    score = Score(psnr(on_white, truth), ssim(on_white, truth), iou(seen[:, :, 3], small_matte))
    return score, np.rint(255 * np.concatenate([truth, on_white])).astype(np.uint8)


def _compare_faces(photo: Photo, drawn: _Drawn, made: Reconstruction, models: StillModels) -> FaceScore | None:
    face, marks = photo.landmarks.face_image, photo.landmarks
    if face is None or marks.body_image is None or marks.body_world is None or marks.body_visibility is None:
        return None
    fit = made.fits[0]
    low, high = face.min(0), face.max(0)
    margin = 0.1 * (high - low)
    limits = np.array(photo.alpha.shape[::-1])
    left, top = np.clip(low - margin, 0, limits - 8).astype(int)
    right, bottom = np.clip(high + margin, [left + 8, top + 8], limits).astype(int)
    score, _ = _compare(
        photo.rgb / 255, photo.alpha, drawn, fit.pose, fit.camera, (left, top, right, bottom), _FACE_SIDE
    )
    seen = drawn.draw(fit.pose, fit.camera)
    picture = np.rint(255 * np.clip(seen[:, :, :3] + 1 - seen[:, :, 3:], 0, 1)).astype(np.uint8)
    again = models.find_landmarks(picture, Body(marks.body_world, marks.body_image, marks.body_visibility)).face_image
    if again is None:
        return FaceScore(score.ssim, float("nan"))
    eyes = float(np.linalg.norm(face[_IRISES[0]] - face[_IRISES[1]]))
    return FaceScore(score.ssim, float(np.linalg.norm(again - face, axis=1).mean()) / max(eyes, 1e-6))


def _box_of(alpha: np.ndarray) -> Box:
    """The person's box with a margin, inside the picture."""
    inside = alpha > 0.5
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    height, width = alpha.shape
    margin = round(_MARGIN * max(np.ptp(rows), np.ptp(columns)))
    return (
        max(int(columns[0]) - margin, 0),
        max(int(rows[0]) - margin, 0),
        min(int(columns[-1]) + 1 + margin, width),
        min(int(rows[-1]) + 1 + margin, height),
    )


def _cut(camera: Camera, box: Box, width: int, height: int) -> Camera:
    """The camera that sees only ``box`` of its picture, at another size."""
    left, top, right, bottom = box
    x, y = width / (right - left), height / (bottom - top)
    return Camera(
        camera.T_camera_world,
        camera.fx * x,
        camera.fy * y,
        (camera.cx - left) * x,
        (camera.cy - top) * y,
        width,
        height,
    )
