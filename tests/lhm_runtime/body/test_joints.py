import numpy as np
import pytest

from lhm_runtime.body import joints


def test_table_is_smplx_in_size_and_order() -> None:
    assert joints.NUM_JOINTS == len(joints.JOINT_NAMES) == len(set(joints.JOINT_NAMES)) == len(joints.PARENTS) == 55
    assert [joints.JOINT_NAMES[i] for i in (0, 15, 20, 21, 22, 23, 24, 25, 39, 40, 54)] == [
        "pelvis", "head", "left_wrist", "right_wrist", "jaw", "left_eye_smplhf", "right_eye_smplhf",
        "left_index1", "left_thumb3", "right_index1", "right_thumb3",
    ]  # fmt: skip


def test_parents_come_before_children_and_end_at_the_pelvis() -> None:
    assert joints.PARENTS[0] == -1
    assert all(0 <= joints.PARENTS[i] < i for i in range(1, 55))


def test_names_agree_with_the_smplx_package() -> None:
    names = pytest.importorskip("smplx.joint_names", reason="the smplx package is not installed (extra 'smplx')")
    assert list(joints.JOINT_NAMES) == names.JOINT_NAMES[:55]


def test_slices_cover_all_joints_but_the_root_once() -> None:
    slices = [joints.BODY, joints.JAW, joints.LEFT_EYE, joints.RIGHT_EYE, joints.LEFT_HAND, joints.RIGHT_HAND]
    assert [i for part in slices for i in range(55)[part]] == list(range(1, 55))
    assert joints.JOINT_NAMES[joints.JAW] == ("jaw",)
    assert all(name.startswith("left_") for name in joints.JOINT_NAMES[joints.LEFT_HAND])
    assert all(name.startswith("right_") for name in joints.JOINT_NAMES[joints.RIGHT_HAND])


def test_left_and_right_mirror_each_other() -> None:
    for name, index in joints.JOINT_INDEX.items():
        if name.startswith("left_"):
            parent = joints.JOINT_NAMES[joints.PARENTS[index]]
            mirrored = joints.PARENTS[joints.JOINT_INDEX[name.replace("left", "right")]]
            assert joints.JOINT_NAMES[mirrored] == parent.replace("left", "right")


def test_table_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        joints.PARENTS[3] = 7
    with pytest.raises(TypeError):
        joints.JOINT_INDEX["tail"] = 55  # type: ignore[index]
    assert np.array_equal(joints.PARENTS[:4], [-1, 0, 0, 0])
