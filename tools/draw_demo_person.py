"""Draw lhm_runtime/assets/demo_person.png: the photo of a person who does not exist, to reconstruct in the demo."""

from dataclasses import replace
from pathlib import Path

from PIL import Image

from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.body.kinematics import forward_kinematics
from lhm_runtime.motion.procedural import relaxed_pose
from lhm_runtime.rasterizer import frame_person
from lhm_runtime.reconstruction.builtin_person import build_person
from lhm_runtime.reconstruction.builtin_person.look import Look
from lhm_runtime.types import SmplxPose
from streaming.bench.synthetic_people import SyntheticPerson

SIZE = (1152, 1536)
OVERSAMPLING = 3
GAUSSIANS = 200_000
"""More than an avatar usually has: it stands for a photo."""
LOOK = Look(
    shape={"height": -0.4, "weight": -0.8, "gender": 0.7, "muscle": 0.0, "age": -0.5, "proportions": 0.7},
    hair=(0.36, 0.20, 0.12),
    hair_sheen=(0.74, 0.46, 0.29),
    shirt=(0.27, 0.40, 0.31),
    shirt_seam=(0.17, 0.26, 0.20),
    stripe=(0.27, 0.40, 0.31),
    sleeve=1.8,
    looseness=1.4,
    trousers=(0.17, 0.19, 0.27),
    trousers_seam=(0.11, 0.12, 0.18),
    faded=(0.22, 0.25, 0.34),
    shoes=(0.55, 0.36, 0.24),
    shoe_seam=(0.38, 0.24, 0.16),
)
FOV_Y_DEG, PITCH = 28.0, 0.1
"""From four metres, at the height of the chin."""


def make_demo_person() -> SyntheticPerson:
    """The person as they stand for the photo: at ease, a hand of air between arms and body, eyes on the camera."""
    avatar = build_person(GAUSSIANS, look=LOOK)
    pose = _stand(relaxed_pose(avatar.expression_names))
    joints = forward_kinematics(pose.rotvec, avatar.rest_joints, pose.transl)[:, :3, 3]
    camera = frame_person(joints, "full", *SIZE, pitch=PITCH, fov_y_deg=FOV_Y_DEG)
    return SyntheticPerson(avatar, pose, camera)


def _stand(pose: SmplxPose) -> SmplxPose:
    rotvec = pose.rotvec.copy()
    for side, sign in (("left", 1), ("right", -1)):
        rotvec[JOINT_INDEX[f"{side}_shoulder"], 2] += sign * 0.25
        rotvec[JOINT_INDEX[f"{side}_hip"], 2] += sign * 0.04
        rotvec[JOINT_INDEX[f"{side}_elbow"], 1] -= sign * 0.15
    return replace(pose, rotvec=rotvec)


if __name__ == "__main__":
    out = Path(__file__).parents[1] / "lhm_runtime" / "assets" / "demo_person.png"
    Image.fromarray(make_demo_person().photograph(oversampling=OVERSAMPLING)).save(out, optimize=True)
    print(f"wrote {out}: {out.stat().st_size:,} bytes")
