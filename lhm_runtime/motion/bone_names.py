"""What others call the joints of SMPL-X and the 52 face shapes."""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from lhm_runtime.body.joints import JOINT_NAMES

_VRM_SIDED = {
    "UpperLeg": "hip",
    "LowerLeg": "knee",
    "Foot": "ankle",
    "Toes": "foot",
    "Shoulder": "collar",
    "UpperArm": "shoulder",
    "LowerArm": "elbow",
    "Hand": "wrist",
    "Eye": "eye_smplhf",
    **{
        f"{theirs}{phalanx}": f"{ours}{k}"
        for theirs, ours in (("Index", "index"), ("Middle", "middle"), ("Ring", "ring"), ("Little", "pinky"))
        for k, phalanx in enumerate(("Proximal", "Intermediate", "Distal"), start=1)
    },
}
_VRM_THUMBS = {
    "vrm0": ("Proximal", "Intermediate", "Distal"),  # Unity's names too
    "vrm1": ("Metacarpal", "Proximal", "Distal"),
}
_VRM_MIDDLE = {
    "Hips": "pelvis",
    "Spine": "spine1",
    "Chest": "spine2",
    "UpperChest": "spine3",
    "Neck": "neck",
    "Head": "head",
    "Jaw": "jaw",
}


def vrm_bones(*, vrm1: bool) -> tuple[str, ...]:
    """What VRM and Unity call the 55 joints of SMPL-X, in their order; case means nothing to either."""
    theirs = {ours: name for name, ours in _VRM_MIDDLE.items()}
    for side in ("Left", "Right"):
        theirs |= {f"{side.lower()}_{ours}": f"{side}{name}" for name, ours in _VRM_SIDED.items()}
        for k, phalanx in enumerate(_VRM_THUMBS["vrm1" if vrm1 else "vrm0"], start=1):
            theirs[f"{side.lower()}_thumb{k}"] = f"{side}Thumb{phalanx}"
    return tuple(theirs[joint] for joint in JOINT_NAMES)


def vrm_joints(names: Sequence[str], *, vrm1: bool) -> dict[str, int]:
    """The SMPL-X joint of each VRM or Unity humanoid bone among ``names``; others are left out. Case is ignored.

    VRM 1.0 renamed the thumb: "ThumbProximal" is its first bone in 0.x and its second in 1.0. Names that only one of
    them has decide; ``vrm1`` does where there are none.
    """
    lower = {name.lower() for name in names}
    if any("thumbmetacarpal" in name for name in lower):
        vrm1 = True
    elif any("thumbintermediate" in name for name in lower):
        vrm1 = False
    joints = {bone.lower(): joint for joint, bone in enumerate(vrm_bones(vrm1=vrm1))}
    return {name: joints[name.lower()] for name in names if name.lower() in joints}


_MIDDLE_ALIASES = {
    "pelvis": ("hips", "pelvis", "hip"),
    "neck": ("neck", "neck1", "neck01"),
    "head": ("head",),
    "jaw": ("jaw",),
}
# in order of preference; "shoulder" and "foot" mean different bones, see recorded_joints
_SIDED_ALIASES = {
    "hip": ("upleg", "upperleg", "thigh", "hip"),
    "knee": ("leg", "lowerleg", "shin", "calf", "knee"),
    "ankle": ("ankle", "foot"),
    "foot": ("toebase", "toe", "toes", "ball"),
    "collar": ("collar", "clavicle", "shoulder"),
    "shoulder": ("arm", "upperarm", "shldr", "shoulder"),
    "elbow": ("forearm", "lowerarm", "elbow"),
    "wrist": ("hand", "wrist"),
    "eye_smplhf": ("eye",),
    **{
        f"{ours}{k}": tuple(
            f"{hand}{theirs}{end}" for hand in ("hand", "") for theirs in names for end in (str(k), f"0{k}", phalanx)
        )
        for ours, names in {
            "index": ("index",),
            "middle": ("middle", "mid"),
            "ring": ("ring",),
            "pinky": ("pinky", "little"),
            "thumb": ("thumb",),
        }.items()
        for k, phalanx in enumerate(("proximal", "intermediate", "distal"), start=1)
    },
}


def recorded_joints(names: Sequence[str]) -> dict[str, int]:
    """SMPL-X joint -> position in ``names``, by the habits of Mixamo, CMU, Rokoko, Xsens, Unreal, VRM and SMPL.

    The spine is not among them: how many bones it has differs too much to go by names.
    """
    if set(JOINT_NAMES) <= set(names):
        return {joint: names.index(joint) for joint in JOINT_NAMES}
    plain: dict[str, int] = {}
    for index, name in enumerate(names):
        plain.setdefault(_plain_name(name), index)
    found: dict[str, int] = {}
    for joint, aliases in _MIDDLE_ALIASES.items():
        known = [plain[alias] for alias in aliases if alias in plain]
        if known:
            found[joint] = known[0]
    for side in ("left", "right"):
        named = {
            ours: next((plain[side + alias] for alias in aliases if side + alias in plain), None)
            for ours, aliases in _SIDED_ALIASES.items()
        }
        if named["foot"] is None and named["ankle"] == plain.get(f"{side}ankle") != plain.get(f"{side}foot"):
            named["foot"] = plain.get(f"{side}foot")  # SMPL: Ankle, Foot
        if named["collar"] == named["shoulder"]:
            named["collar"] = None  # a single "Shoulder" is the upper arm
        found |= {f"{side}_{ours}": index for ours, index in named.items() if index is not None}
    return found


def _plain_name(name: str) -> str:
    """Lower case, letters and digits only, without a prefix like ``mixamorig:``, the side written out in front."""
    name = re.sub(r"^(?:.*:|mixamorig\d*_?)", "", name)
    before = re.match(r"([lLrR])(?=[A-Z_.\- ])[_.\- ]?(?!$)", name)
    after = re.search(r"[_.\- ]([lLrR])$", name)
    side = before or after
    if side:
        name = ("left" if side[1] in "lL" else "right") + name[: side.start()] + name[side.end() :]
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _both(name: str, weight: float = 1.0) -> dict[str, float]:
    return {f"{name}Left": weight, f"{name}Right": weight}


_LIDS_DOWN = {**_both("eyeLookDown"), **_both("eyeBlink", 0.2)}
_SMILE = {**_both("mouthSmile", 0.8), **_both("cheekSquint", 0.6), **_both("eyeSquint", 0.3)}

FACE_MIXES: Final[Mapping[str, Mapping[str, float]]] = MappingProxyType(
    {
        "a": {"jawOpen": 0.6, **_both("mouthLowerDown", 0.2), **_both("mouthUpperUp", 0.1)},
        "i": {
            "jawOpen": 0.12,
            **_both("mouthStretch", 0.6),
            **_both("mouthLowerDown", 0.35),
            **_both("mouthSmile", 0.2),
        },
        "u": {"jawOpen": 0.15, "mouthPucker": 0.75, "mouthFunnel": 0.2},
        "e": {"jawOpen": 0.3, **_both("mouthStretch", 0.4), **_both("mouthLowerDown", 0.3)},
        "o": {"jawOpen": 0.4, "mouthFunnel": 0.7, "mouthPucker": 0.2},
        "blink": _both("eyeBlink"),
        "blinkleft": {"eyeBlinkLeft": 1.0},
        "blinkright": {"eyeBlinkRight": 1.0},
        "joy": _SMILE,
        "angry": {**_both("browDown", 0.9), **_both("noseSneer", 0.5), **_both("mouthFrown", 0.4)},
        "sorrow": {"browInnerUp": 0.9, **_both("mouthFrown", 0.7), "mouthShrugLower": 0.3, **_both("eyeSquint", 0.2)},
        "fun": {**_both("mouthSmile", 0.6), **_both("cheekSquint", 0.3), **_both("browOuterUp", 0.3)},
        "surprised": {"browInnerUp": 0.7, **_both("browOuterUp", 0.8), **_both("eyeWide", 0.8), "jawOpen": 0.35},
        "lookup": _both("eyeLookUp"),
        "lookdown": _LIDS_DOWN,
        "lookleft": {"eyeLookOutLeft": 1.0, "eyeLookInRight": 1.0},
        "lookright": {"eyeLookInLeft": 1.0, "eyeLookOutRight": 1.0},
        "neutral": {},
    }
)
"""VRM 0.x expressions, in lower case, as mixes of ARKit's 52 shapes; mixes chosen by eye."""

_VRM1_FACES = {"aa": "a", "ih": "i", "ou": "u", "ee": "e", "oh": "o", "happy": "joy", "sad": "sorrow", "relaxed": "fun"}


def own_face_shape(name: str, expression_names: Sequence[str]) -> str | None:
    """The one of ``expression_names`` meant: same letters in any case, ``_L`` and ``_R`` for Left and Right too."""
    plain = _plain_face(name)
    return next((own for own in expression_names if own.lower() == plain), None)


def vrm_face_mix(name: str) -> Mapping[str, float] | None:
    """How much of each ARKit shape an expression of VRM 0.x or 1.0 is; None for other names. Case is ignored."""
    plain = _plain_face(name)
    return FACE_MIXES.get(_VRM1_FACES.get(plain, plain))


def _plain_face(name: str) -> str:
    return re.sub(r"_l$", "left", re.sub(r"_r$", "right", name.lower())).replace("_", "")
