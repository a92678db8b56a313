import pytest

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.body.joints import JOINT_INDEX, JOINT_NAMES
from lhm_runtime.motion.bone_names import FACE_MIXES, own_face_shape, recorded_joints, vrm_face_mix, vrm_joints

SIDES = ("left", "right")
SHAPES = BodyModel.default().expression_names

MIXAMO = {
    "mixamorig:Hips": "pelvis",
    "mixamorig:Neck": "neck",
    "mixamorig:Head": "head",
    **{
        f"mixamorig:{side.title()}{theirs}": f"{side}_{ours}"
        for side in SIDES
        for theirs, ours in {
            "UpLeg": "hip", "Leg": "knee", "Foot": "ankle", "ToeBase": "foot",
            "Shoulder": "collar", "Arm": "shoulder", "ForeArm": "elbow", "Hand": "wrist",
            "HandThumb1": "thumb1", "HandIndex2": "index2", "HandPinky3": "pinky3",
        }.items()
    },
}  # fmt: skip
CMU = {
    "Hips": "pelvis", "LHipJoint": None, "LeftUpLeg": "left_hip", "LeftLeg": "left_knee", "LeftFoot": "left_ankle",
    "LeftToeBase": "left_foot", "LowerBack": None, "Spine": None, "Spine1": None, "Neck": "neck", "Neck1": None,
    "Head": "head", "RightShoulder": "right_collar", "RightArm": "right_shoulder", "RightForeArm": "right_elbow",
    "RightHand": "right_wrist", "RightFingerBase": None, "RightHandIndex1": "right_index1", "RThumb": None,
}  # fmt: skip
ROKOKO = {
    "Hips": "pelvis", "LeftThigh": "left_hip", "LeftShin": "left_knee", "LeftFoot": "left_ankle",
    "LeftToe": "left_foot", "LeftShoulder": "left_collar", "LeftArm": "left_shoulder", "LeftForeArm": "left_elbow",
    "LeftHand": "left_wrist", "Neck": "neck", "Head": "head",
}  # fmt: skip
XSENS = {
    "Hips": "pelvis", "Chest": None, "Chest2": None, "Chest3": None, "Chest4": None, "Neck": "neck", "Head": "head",
    "RightCollar": "right_collar", "RightShoulder": "right_shoulder", "RightElbow": "right_elbow",
    "RightWrist": "right_wrist", "RightHip": "right_hip", "RightKnee": "right_knee", "RightAnkle": "right_ankle",
    "RightToe": "right_foot",
}  # fmt: skip
SMPL = {
    "Pelvis": "pelvis", "L_Hip": "left_hip", "L_Knee": "left_knee", "L_Ankle": "left_ankle", "L_Foot": "left_foot",
    "Spine1": None, "Neck": "neck", "Head": "head", "R_Collar": "right_collar", "R_Shoulder": "right_shoulder",
    "R_Elbow": "right_elbow", "R_Wrist": "right_wrist",
}  # fmt: skip
UNREAL = {
    "pelvis": "pelvis", "spine_01": None, "neck_01": "neck", "head": "head", "clavicle_l": "left_collar",
    "upperarm_l": "left_shoulder", "lowerarm_l": "left_elbow", "hand_l": "left_wrist", "index_01_l": "left_index1",
    "thigh_r": "right_hip", "calf_r": "right_knee", "foot_r": "right_ankle", "ball_r": "right_foot",
}  # fmt: skip


SKELETONS = {"mixamo": MIXAMO, "cmu": CMU, "rokoko": ROKOKO, "xsens": XSENS, "smpl": SMPL, "unreal": UNREAL}


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS.keys())
def test_common_skeletons_are_known(skeleton: dict[str, str | None]) -> None:
    names = list(skeleton)
    assert recorded_joints(names) == {ours: names.index(theirs) for theirs, ours in skeleton.items() if ours}


def test_our_own_names_are_taken_as_they_are() -> None:
    names = [*JOINT_NAMES[::-1], "extra"]
    assert recorded_joints(names) == {name: names.index(name) for name in JOINT_NAMES}


def vrm_names(thumb: tuple[str, str, str]) -> dict[str, str]:
    names = {
        "hips": "pelvis", "spine": "spine1", "chest": "spine2", "upperChest": "spine3", "neck": "neck", "head": "head",
        "jaw": "jaw",
    }  # fmt: skip
    for side in SIDES:
        names |= {
            f"{side}{theirs}": f"{side}_{ours}"
            for theirs, ours in {
                "Eye": "eye_smplhf", "UpperLeg": "hip", "LowerLeg": "knee", "Foot": "ankle", "Toes": "foot",
                "Shoulder": "collar", "UpperArm": "shoulder", "LowerArm": "elbow", "Hand": "wrist",
            }.items()
        }  # fmt: skip
        for theirs, ours in (("Index", "index"), ("Middle", "middle"), ("Ring", "ring"), ("Little", "pinky")):
            for k, phalanx in enumerate(("Proximal", "Intermediate", "Distal"), start=1):
                names[f"{side}{theirs}{phalanx}"] = f"{side}_{ours}{k}"
        for k, phalanx in enumerate(thumb, start=1):
            names[f"{side}Thumb{phalanx}"] = f"{side}_thumb{k}"
    return names


@pytest.mark.parametrize("thumb", [("Proximal", "Intermediate", "Distal"), ("Metacarpal", "Proximal", "Distal")])
@pytest.mark.parametrize("style", [str, str.lower, lambda name: name[0].upper() + name[1:]])
def test_all_55_bones_of_vrm_meet_all_55_joints(thumb: tuple[str, str, str], style: type[str]) -> None:
    names = {style(theirs): ours for theirs, ours in vrm_names(thumb).items()}
    assert len(names) == 55
    for vrm1 in (False, True):  # the names themselves decide
        joints = vrm_joints([*names, "Tail"], vrm1=vrm1)
        assert joints == {theirs: JOINT_INDEX[ours] for theirs, ours in names.items()}
    assert set(names.values()) == set(JOINT_NAMES)


def test_a_thumb_named_the_same_in_both_goes_by_the_convention() -> None:
    assert vrm_joints(["LeftThumbProximal"], vrm1=False) == {"LeftThumbProximal": JOINT_INDEX["left_thumb1"]}
    assert vrm_joints(["LeftThumbProximal"], vrm1=True) == {"LeftThumbProximal": JOINT_INDEX["left_thumb2"]}


def test_mixes_use_shapes_that_exist_and_stay_in_range() -> None:
    for name, mix in FACE_MIXES.items():
        assert set(mix) <= set(SHAPES), name
        assert all(0 < weight <= 1 for weight in mix.values()), name


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("jawOpen", "jawOpen"), ("JawOpen", "jawOpen"), ("JAWOPEN", "jawOpen"), ("eyeBlink_L", "eyeBlinkLeft"),
     ("mouthSmile_R", "mouthSmileRight"), ("MouthLeft", "mouthLeft"), ("jaw", None), ("A", None)],
)  # fmt: skip
def test_shapes_go_by_name_in_any_case(name: str, wanted: str | None) -> None:
    assert own_face_shape(name, SHAPES) == wanted


@pytest.mark.parametrize(
    ("vrm0", "vrm1"),
    [("A", "aa"), ("I", "ih"), ("U", "ou"), ("E", "ee"), ("O", "oh"), ("Joy", "happy"), ("Sorrow", "sad"),
     ("Fun", "relaxed"), ("Angry", "angry"), ("Blink_L", "blinkLeft"), ("Blink_R", "blinkRight"), ("LookUp", "lookUp")],
)  # fmt: skip
def test_both_versions_of_vrm_mean_the_same(vrm0: str, vrm1: str) -> None:
    assert vrm_face_mix(vrm0) == vrm_face_mix(vrm1) != None  # noqa: E711 (chained)
    assert vrm_face_mix(vrm0)


def test_other_names_mean_nothing() -> None:
    assert vrm_face_mix("Tail") is None
    assert vrm_face_mix("neutral") == {}
