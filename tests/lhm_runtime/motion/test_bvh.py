from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from lhm_runtime.errors import MotionFileError
from lhm_runtime.motion.bvh import CHANNELS, MAX_JOINTS, BvhClip, format_bvh, local_transforms, parse_bvh

TEXT = """HIERARCHY
ROOT Hips
{
    OFFSET 0.0 90.5 0.0
    CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
    JOINT Upper Leg
    {
        OFFSET 10 -5 1e-1
        CHANNELS 3 Yrotation Xrotation Zrotation
        End Site
        {
            OFFSET 0 -40 0
        }
    }
    JOINT Spine
    {
        OFFSET 0 10 0
        CHANNELS 3 Xrotation Yrotation Zrotation
        End Site
        {
            OFFSET 0 30 0
        }
    }
}
MOTION
Frames: 2
Frame Time: 0.0333333
1 2 3 10 20 30 40 50 60 70 80 90
-1 -2 -3 -10 -20 -30 -40 -50 -60 -70 -80 -90
"""


def test_reads_what_is_written() -> None:
    clip = parse_bvh(TEXT)
    assert clip.names == ("Hips", "Upper Leg", "Spine")
    np.testing.assert_array_equal(clip.parents, [-1, 0, 0])
    np.testing.assert_array_equal(clip.offsets, [[0, 90.5, 0], [10, -5, 0.1], [0, 10, 0]])
    assert clip.channels[1] == ("Yrotation", "Xrotation", "Zrotation")
    np.testing.assert_array_equal(clip.end_parents, [1, 2])
    np.testing.assert_array_equal(clip.end_offsets, [[0, -40, 0], [0, 30, 0]])
    assert clip.frame_time_s == 0.0333333
    np.testing.assert_array_equal(clip.values[1], [-1, -2, -3, -10, -20, -30, -40, -50, -60, -70, -80, -90])


def test_rotations_multiply_in_the_order_of_the_channels() -> None:
    rotation, position = local_transforms(parse_bvh(TEXT))
    for joint, order, angles in ((0, "ZXY", (10, 20, 30)), (1, "YXZ", (40, 50, 60)), (2, "XYZ", (70, 80, 90))):
        for frame, sign in ((0, 1), (1, -1)):
            wanted = Rotation.from_euler(order, [sign * angle for angle in angles], degrees=True).as_matrix()
            np.testing.assert_allclose(rotation[frame, joint], wanted, atol=1e-12)
    np.testing.assert_array_equal(position[:, 0], [[1, 2, 3], [-1, -2, -3]])
    np.testing.assert_array_equal(position[:, 2], [[0, 10, 0]] * 2)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\n\n").replace("    ", "\t \t"),
        lambda text: text.replace("HIERARCHY", "hierarchy").replace("Xposition", "XPOSITION"),
        lambda text: text.replace("Frames: 2", "Frames:    2").replace("Frame Time:", "Frame  Time:\t"),
        lambda text: text + "\n\n",
    ],
    ids=["crlf", "blank lines and tabs", "case", "spaces", "end"],
)
def test_harmless_variants_read_the_same(change: Callable[[str], str]) -> None:
    clip, wanted = parse_bvh(change(TEXT)), parse_bvh(TEXT)
    assert clip.names == wanted.names
    assert clip.channels == wanted.channels
    np.testing.assert_array_equal(clip.values, wanted.values)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_any_skeleton_survives_a_round_trip(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 12))
    parents = [-1]
    for joint in range(1, count):  # depth first: hang it on the last joint or one of its ancestors
        ancestors = [joint - 1]
        while ancestors[-1] > 0:
            ancestors.append(parents[ancestors[-1]])
        parents.append(int(rng.choice(ancestors)))
    channels = tuple(tuple(rng.permutation(CHANNELS)[: rng.integers(0, 7)].tolist()) for _ in range(count))
    width = sum(map(len, channels))
    clip = BvhClip(
        names=tuple(f"joint {k}" for k in range(count)),
        parents=np.array(parents),
        offsets=rng.normal(size=(count, 3)).round(6),
        channels=channels,
        end_parents=np.array([count - 1]),
        end_offsets=rng.normal(size=(1, 3)).round(6),
        frame_time_s=float(rng.uniform(0.001, 1).__round__(6)),
        values=(rng.normal(size=(3, width)) * 100).round(6),
    )
    again = parse_bvh(format_bvh(clip))
    assert (again.names, again.channels, again.frame_time_s) == (clip.names, clip.channels, clip.frame_time_s)
    for name in ("parents", "offsets", "end_parents", "end_offsets", "values"):
        np.testing.assert_array_equal(getattr(again, name), getattr(clip, name))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("HIERARCHY", "HIERARCHIE", "line 1: expected HIERARCHY, in 'HIERARCHIE'"),
        ("ROOT Hips", "ROOT", "line 2: expected ROOT and a name"),
        ("OFFSET 10 -5 1e-1", "OFFSET 10 -5", "line 8: expected 3 numbers, got 2"),
        ("OFFSET 10 -5 1e-1", "OFFSET 10 -5 x", "line 8: could not convert"),
        ("OFFSET 10 -5 1e-1", "OFFSET 10 -5 nan", "line 8: nan is not finite"),
        ("CHANNELS 3 Yrotation", "CHANNELS 4 Yrotation", "line 9: expected CHANNELS"),
        ("CHANNELS 3 Yrotation", "CHANNELS 3 Wrotation", "line 9: expected CHANNELS"),
        ("CHANNELS 3 Yrotation", "CHANNELS 3 Xrotation", "line 9: expected CHANNELS"),
        ("JOINT Spine", "JOINT Hips", "line 15: there are two joints 'Hips'"),
        ("JOINT Spine", "BONE Spine", "line 15: expected JOINT"),
        ("Frames: 2", "Frames: 0", "line 26: the number of frames is 0"),
        ("Frames: 2", "Frames: 1.5", "line 26: the number of frames is 1.5"),
        ("Frames: 2", "Frames: 99999999999", "line 27: .* are more than"),
        ("Frames: 2", "Frames: 3", "ends after line 29, expected frame 3 of 3: it is cut short"),
        ("Frame Time: 0.0333333", "Frame Time: -1", "line 27: the frame time is -1"),
        ("-1 -2 -3", "-1 -2", "line 29: expected 12 numbers, got 11"),
        ("-1 -2 -3", "-1 inf -3", "line 29: inf is not finite"),
    ],
)
def test_faults_are_named_with_their_line(old: str, new: str, message: str) -> None:
    with pytest.raises(MotionFileError, match=message):
        parse_bvh(TEXT.replace(old, new))


def test_too_many_joints_are_refused_however_deep() -> None:
    opened = "".join(f"JOINT j{k}\n{{\nOFFSET 0 0 0\nCHANNELS 0\n" for k in range(MAX_JOINTS))
    with pytest.raises(MotionFileError, match=f"more than {MAX_JOINTS} joints"):
        parse_bvh("HIERARCHY\nROOT r\n{\nOFFSET 0 0 0\nCHANNELS 0\n" + opened)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damaged_text_is_read_or_refused(data: st.DataObject) -> None:
    lines = TEXT.splitlines()
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(lines) - 1))
        match data.draw(st.sampled_from(["cut", "drop", "double", "garble"])):
            case "cut":
                lines = lines[: at + 1]
            case "drop" if len(lines) > 1:
                del lines[at]
            case "double":
                lines.insert(at, lines[at])
            case _:
                lines[at] = data.draw(st.text(max_size=20)) + lines[at][data.draw(st.integers(0, 20)) :]
    try:
        clip = parse_bvh("\n".join(lines))
    except MotionFileError:
        return
    assert np.isfinite(clip.values).all()
    assert clip.values.shape[1] == sum(map(len, clip.channels))
