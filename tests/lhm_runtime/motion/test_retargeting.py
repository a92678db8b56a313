import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_INDEX, JOINT_NAMES
from lhm_runtime.body.kinematics import forward_kinematics
from lhm_runtime.errors import InvalidInputError
from lhm_runtime.motion.retargeting import BoneRotations, Convention, Retargeter, smplx_values_to_pose
from lhm_runtime.types import SmplxPose

BODY = BodyModel.default()
REST = BODY.rest_joints()

# a humanoid in T-pose facing +z with y up; its left is at +x here and mirrored or turned per convention below
PARENT = {
    "Hips": None, "Spine": "Hips", "Chest": "Spine", "UpperChest": "Chest", "Neck": "UpperChest", "Head": "Neck",
    **{
        f"{side}{bone}": f"{side}{parent}" if parent not in ("Hips", "UpperChest") else parent
        for side in ("Left", "Right")
        for bone, parent in {
            "Shoulder": "UpperChest", "UpperArm": "Shoulder", "LowerArm": "UpperArm", "Hand": "LowerArm",
            "MiddleProximal": "Hand", "UpperLeg": "Hips", "LowerLeg": "UpperLeg", "Foot": "LowerLeg",
        }.items()
    },
}  # fmt: skip
OFFSET = {
    "Hips": (0, 0.9, 0), "Spine": (0, 0.1, 0), "Chest": (0, 0.12, 0), "UpperChest": (0, 0.12, 0),
    "Neck": (0, 0.15, 0), "Head": (0, 0.08, 0),
    "Shoulder": (0.05, 0.1, 0), "UpperArm": (0.1, 0, 0), "LowerArm": (0.25, 0, 0), "Hand": (0.24, 0, 0),
    "MiddleProximal": (0.09, 0, 0), "UpperLeg": (0.09, -0.05, 0), "LowerLeg": (0, -0.4, 0), "Foot": (0, -0.41, 0),
}  # fmt: skip
LIMBS = {
    "UpperArm": ("LowerArm", "shoulder", "elbow"),
    "LowerArm": ("Hand", "elbow", "wrist"),
    "Hand": ("MiddleProximal", "wrist", "middle1"),
    "UpperLeg": ("LowerLeg", "hip", "knee"),
    "LowerLeg": ("Foot", "knee", "ankle"),
}
# from our axes to each convention's
MATRIX = {"unity": np.diag([-1.0, 1, 1]), "vrm0": np.diag([-1.0, 1, -1]), "vrm1": np.eye(3)}


def bones_of(turns: dict[str, np.ndarray], convention: Convention, **more: object) -> BoneRotations:
    """``turns``: rotvecs in the convention's axes."""
    xyzw = Rotation.from_rotvec(np.reshape(list(turns.values()), (-1, 3))).as_quat()
    quat_wxyz = np.roll(xyzw, 1, axis=1).astype(np.float32)
    return BoneRotations(tuple(turns), quat_wxyz, 0.0, convention, **more)  # type: ignore[arg-type]


def source_positions(bones: BoneRotations) -> dict[str, np.ndarray]:
    """Loop FK of the humanoid in the convention's own axes, then seen in ours."""
    to_theirs = MATRIX[bones.convention]
    local = dict(zip(bones.names, Rotation.from_quat(np.roll(bones.quat_wxyz, -1, axis=1)).as_matrix(), strict=True))
    world: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for bone, parent in PARENT.items():
        side_sign = np.array([-1, 1, 1]) if bone.startswith("Right") else 1
        offset = to_theirs @ (np.array(OFFSET[re.sub("Left|Right", "", bone)]) * side_sign)
        R, p = (np.eye(3), np.zeros(3)) if parent is None else world[parent]
        world[bone] = (R @ local.get(bone, np.eye(3)), p + R @ offset)
    return {bone: to_theirs.T @ p for bone, (_, p) in world.items()}


def joints_of(pose: SmplxPose) -> np.ndarray:
    return forward_kinematics(pose.rotvec, REST, pose.transl)[:, :3, 3]


def random_turns(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {bone: rng.normal(0, 0.7, 3) for bone in PARENT}


def angle_deg(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b)))


@pytest.mark.parametrize("convention", ["unity", "vrm0", "vrm1"])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_limbs_point_where_the_sources_do(convention: Convention, seed: int) -> None:
    bones = bones_of(random_turns(seed), convention)
    source, ours = source_positions(bones), joints_of(Retargeter(REST).to_pose(bones))
    for bone, (end, joint, joint_end) in LIMBS.items():
        for side in ("Left", "Right"):
            wanted = source[side + end] - source[side + bone]
            low = side.lower()
            got = ours[JOINT_INDEX[f"{low}_{joint_end}"]] - ours[JOINT_INDEX[f"{low}_{joint}"]]
            assert angle_deg(wanted, got) < 0.01, f"{side}{bone}"


@pytest.mark.parametrize("convention", ["unity", "vrm0", "vrm1"])
def test_the_three_conventions_agree(convention: Convention) -> None:
    turns = random_turns(3)
    wanted = Retargeter(REST).to_pose(bones_of(turns, "vrm1"))
    to_theirs = MATRIX[convention]
    theirs = {
        bone: Rotation.from_matrix(to_theirs @ Rotation.from_rotvec(turn).as_matrix() @ to_theirs.T).as_rotvec()
        for bone, turn in turns.items()
    }
    got = Retargeter(REST).to_pose(bones_of(theirs, convention))
    np.testing.assert_allclose(got.rotvec, wanted.rotvec, atol=1e-5)


def test_unity_turns_left_handed() -> None:
    """In Unity +30 degrees about y turns a person to their right; raising the left arm is about -z."""
    turned = Retargeter(REST).to_pose(bones_of({"Hips": np.array([0, np.radians(30), 0])}, "unity"))
    np.testing.assert_allclose(turned.rotvec[0], [0, np.radians(-30), 0], atol=1e-6)
    raised = bones_of({"LeftUpperArm": np.array([0, 0, np.radians(-60)])}, "unity")
    joints = joints_of(Retargeter(REST).to_pose(raised))
    arm = joints[JOINT_INDEX["left_wrist"]] - joints[JOINT_INDEX["left_shoulder"]]
    assert angle_deg(arm, np.array([0.5, np.sqrt(0.75), 0])) < 0.01


def test_t_pose_is_level_or_the_zero_pose() -> None:
    nothing = bones_of({}, "unity")
    joints = joints_of(Retargeter(REST).to_pose(nothing))
    for side, sign in (("left", 1), ("right", -1)):
        arm = joints[JOINT_INDEX[f"{side}_wrist"]] - joints[JOINT_INDEX[f"{side}_shoulder"]]
        assert angle_deg(arm, np.array([sign, 0, 0])) < 0.01
    plain = Retargeter(REST, match_limbs=False).to_pose(nothing)
    np.testing.assert_allclose(plain.rotvec, 0, atol=1e-7)


def test_without_matching_rotations_are_only_renamed() -> None:
    turns = random_turns(8)
    pose = Retargeter(REST, match_limbs=False).to_pose(bones_of(turns, "vrm1"))
    for bone, joint in (("Hips", "pelvis"), ("LeftLowerArm", "left_elbow"), ("UpperChest", "spine3")):
        wanted = Rotation.from_rotvec(turns[bone])
        got = Rotation.from_rotvec(pose.rotvec[JOINT_INDEX[joint]])
        assert (wanted * got.inv()).magnitude() < 1e-5


def test_fingers_curl_in_the_hand() -> None:
    """A fist: every finger bone 80 degrees about the axis that bends it, which brings the tips back to the palm."""
    turns = {
        f"Left{finger}{phalanx}": np.array([0, 0, np.radians(-80)])
        for finger in ("Index", "Middle", "Ring", "Little")
        for phalanx in ("Proximal", "Intermediate", "Distal")
    }
    open_hand, fist = (joints_of(Retargeter(REST).to_pose(bones_of(t, "vrm1"))) for t in ({}, turns))
    for finger in ("index", "middle", "ring", "pinky"):
        tip, knuckle, wrist = (JOINT_INDEX[f"left_{name}"] for name in (f"{finger}3", f"{finger}1", "wrist"))
        assert fist[tip, 1] < open_hand[tip, 1] - 0.02  # down, on the palm's side
        np.testing.assert_allclose(fist[[knuckle, wrist]], open_hand[[knuckle, wrist]], atol=1e-6)


class TestRoot:
    @pytest.mark.parametrize("convention", ["unity", "vrm0", "vrm1"])
    def test_steps_scale_with_the_legs(self, convention: Convention) -> None:
        height = REST[0, 1] - REST[:, 1].min()
        retargeter = Retargeter(REST, hips_height_m=0.8)
        hips = MATRIX[convention] @ [0.1, 0.7, 0.3]
        pose = retargeter.to_pose(bones_of({}, convention, root_transl=hips.astype(np.float32)))
        np.testing.assert_allclose(pose.transl, np.array([0.1, -0.1, 0.3]) * height / 0.8, atol=1e-5)

    def test_the_first_moment_stands_for_the_rest(self) -> None:
        retargeter = Retargeter(REST)
        first, second = np.array([1, 0.9, 2], np.float32), np.array([1, 0.8, 2.5], np.float32)
        np.testing.assert_allclose(retargeter.to_pose(bones_of({}, "vrm1", root_transl=first)).transl, 0)
        scale = (REST[0, 1] - REST[:, 1].min()) / 0.9
        moved = retargeter.to_pose(bones_of({}, "vrm1", root_transl=second))
        np.testing.assert_allclose(moved.transl, [0, -0.1 * scale, 0.5 * scale], atol=1e-5)

    def test_no_position_is_no_translation(self) -> None:
        np.testing.assert_array_equal(Retargeter(REST).to_pose(bones_of({}, "unity")).transl, 0)

    @pytest.mark.parametrize("height", [0.0, -1.0, np.nan, np.inf])
    def test_a_height_must_be_positive(self, height: float) -> None:
        with pytest.raises(InvalidInputError, match="hips_height_m"):
            Retargeter(REST, hips_height_m=height)


def test_smplx_bones_pass_unchanged() -> None:
    rng = np.random.default_rng(0)
    rotvec = rng.normal(0, 0.7, (55, 3))
    transl = rng.normal(size=3).astype(np.float32)
    bones = bones_of(dict(zip(JOINT_NAMES, rotvec, strict=True)), "smplx", root_transl=transl)
    pose = Retargeter(REST).to_pose(replace(bones, timestamp_s=4.5))
    assert (Rotation.from_rotvec(pose.rotvec).inv() * Rotation.from_rotvec(rotvec)).magnitude().max() < 1e-5
    np.testing.assert_array_equal(pose.transl, transl)
    assert pose.timestamp_s == 4.5


class TestFace:
    @staticmethod
    def shapes_of(values: dict[str, float]) -> dict[str, float]:
        bones = bones_of(
            {},
            "unity",
            blendshape_names=tuple(values),
            blendshape_values=np.array([*values.values()], np.float32),
        )
        expression = Retargeter(REST, BODY.expression_names).to_pose(bones).expression
        return {name: float(v) for name, v in zip(BODY.expression_names, expression, strict=True) if v}

    def test_perfect_sync_is_one_to_one(self) -> None:
        assert self.shapes_of({"JawOpen": 0.5, "eyeBlink_L": 0.25}) == {"jawOpen": 0.5, "eyeBlinkLeft": 0.25}

    def test_vowels_and_moods_mix(self) -> None:
        assert self.shapes_of({"Blink": 0.5}) == {"eyeBlinkLeft": 0.5, "eyeBlinkRight": 0.5}
        spoken = self.shapes_of({"A": 1.0})
        assert spoken["jawOpen"] > self.shapes_of({"I": 1.0})["jawOpen"] > 0
        assert self.shapes_of({"Joy": 1.0})["mouthSmileLeft"] > 0.5
        assert self.shapes_of({"Neutral": 1.0}) == {}

    def test_mixes_add_up_to_one_at_most(self) -> None:
        assert self.shapes_of({"Blink": 1.0, "Blink_L": 0.5})["eyeBlinkLeft"] == 1

    def test_a_shape_named_itself_wins(self) -> None:
        for values in ({"Blink": 1.0, "EyeBlinkLeft": 0.2}, {"EyeBlinkLeft": 0.2, "Blink": 1.0}):
            shapes = self.shapes_of(values)
            assert shapes["eyeBlinkLeft"] == pytest.approx(0.2)
            assert shapes["eyeBlinkRight"] == 1

    def test_faces_without_those_shapes_do_without(self) -> None:
        bones = bones_of({}, "unity", blendshape_names=("Joy",), blendshape_values=np.ones(1, np.float32))
        assert Retargeter(REST, ("tongueOut",)).to_pose(bones).expression.tolist() == [0]


def test_unknown_names_are_reported_once() -> None:
    retargeter = Retargeter(REST, BODY.expression_names)
    bones = bones_of(
        {"Hips": np.zeros(3), "Tail": np.ones(3), "Ear": np.ones(3)},
        "unity",
        blendshape_names=("Joy", "Sparkle"),
        blendshape_values=np.ones(2, np.float32),
    )
    for _ in range(2):
        pose = retargeter.to_pose(bones)
    assert retargeter.ignored == ("Tail", "Ear", "Sparkle")
    np.testing.assert_array_equal(pose.rotvec, Retargeter(REST).to_pose(bones_of({}, "unity")).rotvec)


class TestBadBones:
    def test_values_are_checked(self) -> None:
        fine = bones_of({"Hips": np.zeros(3), "Head": np.zeros(3)}, "unity", root_transl=np.zeros(3, np.float32))
        bad = fine.quat_wxyz.copy()
        bad[1] = 0
        with pytest.raises(InvalidInputError, match=r"quat_wxyz\[1\] \(Head\) is zero"):
            Retargeter(REST).to_pose(replace(fine, quat_wxyz=bad))
        bad[1, 2] = np.nan
        with pytest.raises(InvalidInputError, match=r"quat_wxyz\[1, 2\] is nan"):
            Retargeter(REST).to_pose(replace(fine, quat_wxyz=bad))
        with pytest.raises(InvalidInputError, match="quat_wxyz has shape"):
            Retargeter(REST).to_pose(replace(fine, names=("Hips",)))
        with pytest.raises(InvalidInputError, match=r"root_transl\[0\] is inf"):
            Retargeter(REST).to_pose(replace(fine, root_transl=np.full(3, np.inf, np.float32)))
        with pytest.raises(InvalidInputError, match="timestamp_s is nan"):
            Retargeter(REST).to_pose(replace(fine, timestamp_s=np.nan))
        with pytest.raises(InvalidInputError, match="1 blendshape_names without"):
            Retargeter(REST).to_pose(replace(fine, blendshape_names=("Joy",)))

    def test_quaternions_need_not_be_unit(self) -> None:
        bones = bones_of(random_turns(1), "unity")
        longer = replace(bones, quat_wxyz=bones.quat_wxyz * np.float32(-3))
        got, wanted = (Retargeter(REST).to_pose(sample).rotvec for sample in (longer, bones))
        np.testing.assert_allclose(got, wanted, atol=1e-5)


class TestSmplxValues:
    @pytest.mark.parametrize("lhm", [False, True])
    def test_reads_both_dialects(self, lhm: bool) -> None:
        rng = np.random.default_rng(0)
        rotvec, transl, expression = rng.normal(size=(55, 3)), rng.normal(size=3), rng.random(10)
        keys = {
            ("global_orient", "root_pose"): rotvec[:1],
            ("body_pose", "body_pose"): rotvec[1:22],
            ("jaw_pose", "jaw_pose"): rotvec[22:23].tolist(),
            ("leye_pose", "leye_pose"): rotvec[23],
            ("reye_pose", "reye_pose"): rotvec[24],
            ("left_hand_pose", "lhand_pose"): rotvec[25:40].reshape(1, 45),
            ("right_hand_pose", "rhand_pose"): rotvec[40:],
            ("transl", "trans"): transl,
            ("expression", "expr"): expression,
        }
        pose = smplx_values_to_pose({names[lhm]: value for names, value in keys.items()} | {"betas": [0] * 10}, 2.5)
        np.testing.assert_allclose(pose.rotvec, rotvec, atol=1e-6)
        np.testing.assert_allclose(pose.transl, transl, atol=1e-6)
        np.testing.assert_allclose(pose.expression, expression, atol=1e-6)
        assert pose.timestamp_s == 2.5

    def test_absent_parts_are_zero(self) -> None:
        pose = smplx_values_to_pose({"body_pose": np.ones(63), "jaw_pose": None}, 0.0)
        assert pose.rotvec[1:22].all()
        assert not pose.rotvec[22:].any()
        assert len(pose.expression) == 0

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"body_pose": np.zeros(66)}, "body_pose has 66 values, expected 63"),
            ({"left_hand_pose": np.zeros(6)}, "left_hand_pose has 6 values, expected 45; .*use_pca=False"),
            ({"transl": [0, np.nan, 0]}, r"transl\[1\] is nan"),
            ({"global_orient": "upright"}, "global_orient is not an array of numbers"),
            ({"pose": np.zeros(165)}, "none of the keys pose is one of global_orient"),
            ({}, "none of the keys"),
        ],
    )
    def test_faults_are_named(self, values: dict[str, object], message: str) -> None:
        with pytest.raises(InvalidInputError, match=message):
            smplx_values_to_pose(values, 0.0)


@given(seed=st.integers(0, 2**31), convention=st.sampled_from(["unity", "vrm0", "vrm1", "smplx"]))
def test_a_pose_as_bones_and_back(seed: int, convention: Convention) -> None:
    body, random = BodyModel.default(), np.random.default_rng(seed)
    joints, names = body.rest_joints().astype(np.float32), body.expression_names
    pose = SmplxPose(
        random.uniform(-1.5, 1.5, (55, 3)).astype(np.float32),
        random.uniform(-1, 1, 3).astype(np.float32),
        random.uniform(0, 1, len(names)).astype(np.float32),
        2.5,
    )
    height_m = float(joints[0, 1] - joints[:, 1].min())
    retargeter = Retargeter(joints, names, hips_height_m=height_m)
    bones = retargeter.to_bones(pose, convention)
    assert (len(bones.names), bones.timestamp_s) == (55, 2.5)
    assert sorted(retargeter.joints_of(bones)) == [*range(55)]
    again = retargeter.to_pose(bones)
    R = Rotation.from_rotvec(again.rotvec.astype(np.float64)).inv() * Rotation.from_rotvec(
        pose.rotvec.astype(np.float64)
    )
    assert R.magnitude().max() < 1e-5
    np.testing.assert_allclose(again.transl, pose.transl, atol=1e-5)
    np.testing.assert_allclose(again.expression, pose.expression, atol=1e-6)
    with pytest.raises(InvalidInputError, match="expression has shape"):
        retargeter.to_bones(replace(pose, expression=pose.expression[1:]), convention)
