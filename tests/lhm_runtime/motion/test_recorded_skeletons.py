from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_INDEX, JOINT_NAMES
from lhm_runtime.body.kinematics import forward_kinematics
from lhm_runtime.errors import InvalidInputError, MotionFileError
from lhm_runtime.motion.bvh import BvhClip
from lhm_runtime.motion.recorded_skeletons import body_bvh, retarget_bvh

REST = BodyModel.default().rest_joints()
TURNS = ("Yrotation", "Xrotation", "Zrotation")

# Mixamo's names, T-pose, y up, facing +z, centimetres; two spine bones or four are tried as well
SIDED = {
    "Shoulder": ("Spine2", (6, 12, 0)), "Arm": ("Shoulder", (11, 0, 0)), "ForeArm": ("Arm", (27, 0, 0)),
    "Hand": ("ForeArm", (25, 0, 0)), "HandMiddle1": ("Hand", (9, 0, 0)), "HandMiddle2": ("HandMiddle1", (3, 0, 0)),
    "UpLeg": ("Hips", (9, -5, 0)), "Leg": ("UpLeg", (0, -44, 0)), "Foot": ("Leg", (0, -43, 0)),
    "ToeBase": ("Foot", (0, -6, 12)),
}  # fmt: skip
LIMBS = {
    "Arm": ("ForeArm", "shoulder", "elbow"), "ForeArm": ("Hand", "elbow", "wrist"),
    "Hand": ("HandMiddle1", "wrist", "middle1"), "HandMiddle1": ("HandMiddle2", "middle1", "middle2"),
    "UpLeg": ("Leg", "hip", "knee"), "Leg": ("Foot", "knee", "ankle"),
}  # fmt: skip


def skeleton(arm_drop_deg: float = 0.0, spine: int = 3) -> tuple[list[str], list[int], np.ndarray]:
    """Names, parents and offsets, depth first."""
    top = f"Spine{spine - 1}" if spine > 1 else "Spine"
    links: dict[str, tuple[str | None, tuple[float, float, float]]] = {"Hips": (None, (0, 97, 0))}
    chain = ["Hips", *(["Spine"] + [f"Spine{k}" for k in range(1, spine)])]
    links |= {bone: (below, (0, 36 / spine, 0)) for below, bone in pairwise(chain)}
    links |= {"Neck": (top, (0, 16, 0)), "Head": ("Neck", (0, 9, 0))}
    for side, sign in (("Left", 1), ("Right", -1)):
        for bone, (parent, (x, y, z)) in SIDED.items():
            hangs_on = parent if parent == "Hips" else top if parent == "Spine2" else side + parent
            drop = np.radians(arm_drop_deg if bone in ("ForeArm", "Hand", "HandMiddle1", "HandMiddle2") else 0.0)
            links[side + bone] = (hangs_on, (sign * x * np.cos(drop), y - x * np.sin(drop), z))
    order: list[str] = []

    def visit(bone: str) -> None:
        order.append(bone)
        for child, (parent, _) in links.items():
            if parent == bone:
                visit(child)

    visit("Hips")
    parents = [-1 if (parent := links[bone][0]) is None else order.index(parent) for bone in order]
    return order, parents, np.array([links[bone][1] for bone in order], float)


def clip_of(
    names: list[str],
    parents: list[int],
    offsets: np.ndarray,
    angles: np.ndarray,
    hips: np.ndarray,
    R_file: np.ndarray | None = None,
) -> BvhClip:
    """``angles`` [t, j, 3] of YXZ in degrees, in axes turned from ours by ``R_file``."""
    R_file = np.eye(3) if R_file is None else R_file
    shape = angles.shape
    local = Rotation.from_euler("YXZ", angles.reshape(-1, 3), degrees=True).as_matrix()
    turned = Rotation.from_matrix(R_file @ local @ R_file.T).as_euler("YXZ", degrees=True).reshape(shape)
    return BvhClip(
        names=tuple(names),
        parents=np.array(parents),
        offsets=offsets @ R_file.T,
        channels=(("Xposition", "Yposition", "Zposition", *TURNS), *[TURNS] * (len(names) - 1)),
        end_parents=np.zeros(0, int),
        end_offsets=np.zeros((0, 3)),
        frame_time_s=1 / 30,
        values=np.concatenate([hips @ R_file.T, turned.reshape(len(turned), -1)], axis=1),
    )


def positions_of(
    names: list[str], parents: list[int], offsets: np.ndarray, angles: np.ndarray, hips: np.ndarray
) -> dict[str, np.ndarray]:
    """Loop FK of one frame."""
    local = Rotation.from_euler("YXZ", angles, degrees=True).as_matrix()
    R, p = [local[0]], [hips]
    for joint in range(1, len(names)):
        p.append(p[parents[joint]] + R[parents[joint]] @ offsets[joint])
        R.append(R[parents[joint]] @ local[joint])
    return dict(zip(names, p, strict=True))


def check_limbs(source: dict[str, np.ndarray], rotvec: np.ndarray, transl: np.ndarray) -> None:
    ours = forward_kinematics(rotvec, REST, transl)[:, :3, 3]
    for bone, (end, joint, joint_end) in LIMBS.items():
        for side in ("Left", "Right"):
            wanted = source[side + end] - source[side + bone]
            low = side.lower()
            got = ours[JOINT_INDEX[f"{low}_{joint_end}"]] - ours[JOINT_INDEX[f"{low}_{joint}"]]
            error = np.arctan2(np.linalg.norm(np.cross(wanted, got)), wanted @ got)
            assert np.degrees(error) < 0.01, f"{side}{bone}"


AXES = {
    "y up": np.eye(3),
    "y up, facing -z": np.diag([-1.0, 1, -1]),
    "y up, facing +x": np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]]),
    "z up": np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),
}


@pytest.mark.parametrize("R_file", AXES.values(), ids=AXES.keys())
@pytest.mark.parametrize("arm_drop_deg", [0.0, 45.0, 85.0], ids=["T", "A", "hanging"])
@pytest.mark.parametrize("spine", [1, 2, 3, 5])
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_limbs_point_where_the_actors_do(R_file: np.ndarray, arm_drop_deg: float, spine: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    body = skeleton(arm_drop_deg, spine)
    angles, hips = rng.normal(0, 40, (3, len(body[0]), 3)), rng.normal(0, 50, (3, 3))
    rotvec, transl = retarget_bvh(clip_of(*body, angles, hips, R_file), REST)
    for k in range(3):
        check_limbs(positions_of(*body, angles[k], hips[k]), rotvec[k], transl[k])


def test_steps_scale_with_the_legs_or_the_unit() -> None:
    body = skeleton()
    hips = np.array([[0, 97.0, 0], [10, 97, 30]])
    clip = clip_of(*body, np.zeros((2, len(body[0]), 3)), hips)
    leg_m = np.linalg.norm(np.diff(REST[[JOINT_INDEX[f"left_{j}"] for j in ("hip", "knee", "ankle")]], axis=0), axis=1)
    for unit, per_cm in ((None, leg_m.sum() / 87), (0.01, 0.01)):
        _, transl = retarget_bvh(clip, REST, metres_per_unit=unit)
        np.testing.assert_allclose(transl + REST[0], hips * per_cm, atol=1e-4)


def test_a_rest_frame_stands_in_for_offsets_that_say_nothing() -> None:
    """All offsets along x, as some tools write them; only the T-pose of frame 0 shows a person, here turned by 40."""
    names, parents, offsets = skeleton()
    rng = np.random.default_rng(4)
    local = np.empty((2, len(names), 3, 3))
    along_x = np.zeros_like(offsets)
    along_x[:, 0] = np.linalg.norm(offsets, axis=1)
    bone_R = [np.eye(3)] * len(names)  # world turn of each joint in T-pose that carries x to its first child's offset
    for joint in range(len(names)):
        children = [k for k, parent in enumerate(parents) if parent == joint]
        if len(children) == 1:
            bone_R[joint] = Rotation.align_vectors(offsets[children[0]], along_x[children[0]])[0].as_matrix()
    # joints with several children keep their true offsets
    branching = [k for k, parent in enumerate(parents) if parent >= 0 and parents.count(parent) > 1]
    along_x[branching] = offsets[branching]
    move = Rotation.from_euler("YXZ", rng.normal(0, 30, (len(names), 3)), degrees=True).as_matrix()
    heading = Rotation.from_euler("Y", 40, degrees=True).as_matrix()
    for frame, extra in ((0, np.broadcast_to(np.eye(3), move.shape)), (1, move)):
        world: list[np.ndarray] = []
        bound: list[np.ndarray] = []
        for joint, parent in enumerate(parents):
            world.append((heading if parent < 0 else world[parent]) @ extra[joint])
            bound.append(world[joint] @ bone_R[joint])
            local[frame, joint] = bound[joint] if parent < 0 else bound[parent].T @ bound[joint]
    angles = Rotation.from_matrix(local.reshape(-1, 3, 3)).as_euler("YXZ", degrees=True).reshape(2, len(names), 3)
    clip = clip_of(names, parents, along_x, angles, np.tile([0, 97.0, 0], (2, 1)))
    rotvec, transl = retarget_bvh(clip, REST, rest_frame=0)
    moved = Rotation.from_matrix(move).as_euler("YXZ", degrees=True)
    check_limbs(positions_of(names, parents, offsets, moved, np.array([0, 97.0, 0])), rotvec[1], transl[1])
    np.testing.assert_allclose(rotvec[0, 0], 0, atol=1e-6)


def test_the_spine_bends_evenly_over_our_three() -> None:
    body = skeleton(spine=1)
    angles = np.zeros((1, len(body[0]), 3))
    angles[0, body[0].index("Spine"), 1] = 30
    rotvec, _ = retarget_bvh(clip_of(*body, angles, np.zeros((1, 3))), REST)
    for name in ("spine1", "spine2", "spine3"):
        np.testing.assert_allclose(rotvec[0, JOINT_INDEX[name]], [np.radians(10), 0, 0], atol=1e-6)


class TestUnusable:
    def test_missing_joints_are_named(self) -> None:
        names, parents, offsets = skeleton()
        names = [name.replace("LeftLeg", "LeftThing") for name in names]
        clip = clip_of(names, parents, offsets, np.zeros((1, len(names), 3)), np.zeros((1, 3)))
        with pytest.raises(MotionFileError, match=r"no joint known as left_knee; its joints are Hips, Spine"):
            retarget_bvh(clip, REST)

    @pytest.mark.parametrize("fault", ["flat", "one point"])
    def test_a_rest_that_is_no_person(self, fault: str) -> None:
        names, parents, offsets = skeleton()
        offsets = offsets * ([0, 1, 1] if fault == "flat" else 0)
        clip = clip_of(names, parents, offsets, np.zeros((1, len(names), 3)), np.zeros((1, 3)))
        with pytest.raises(MotionFileError, match="no standing person"):
            retarget_bvh(clip, REST)

    def test_options_are_checked(self) -> None:
        body = skeleton()
        clip = clip_of(*body, np.zeros((2, len(body[0]), 3)), np.zeros((2, 3)))
        with pytest.raises(InvalidInputError, match="metres_per_unit is 0"):
            retarget_bvh(clip, REST, metres_per_unit=0.0)
        for frame in (-1, 2):
            with pytest.raises(InvalidInputError, match=f"rest_frame is {frame}; the clip has frames 0 to 1"):
                retarget_bvh(clip, REST, rest_frame=frame)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), right_angles=st.booleans())
def test_a_body_comes_back_as_it_went(seed: int, right_angles: bool) -> None:
    rng = np.random.default_rng(seed)
    rotvec = rng.normal(0, 0.9, (4, 55, 3))
    if right_angles:  # where Euler angles are ambiguous
        rotvec[:2] = np.radians(90) * rng.permuted(np.tile([1.0, 0, 0], (2, 55, 1)), axis=2)
    transl = rng.normal(size=(4, 3)).astype(np.float32)
    clip = body_bvh(rotvec.astype(np.float32), transl, REST, 1 / 60)
    assert sorted(clip.names) == sorted(JOINT_NAMES)
    assert (np.arange(1, 55) > clip.parents[1:]).all()
    again, path = retarget_bvh(clip, REST)
    error = Rotation.from_rotvec(again.reshape(-1, 3)).inv() * Rotation.from_rotvec(rotvec.reshape(-1, 3))
    assert error.magnitude().max() < 2e-6
    np.testing.assert_allclose(path, transl, atol=1e-6)
