"""VTuber software as others write it: VMC frames by python-osc, which shares no code with streaming/osc.py."""

import math
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pythonosc.osc_bundle import OscBundle
from pythonosc.osc_bundle_builder import IMMEDIATELY, OscBundleBuilder
from pythonosc.osc_message import OscMessage
from pythonosc.osc_message_builder import OscMessageBuilder

Quat = tuple[float, float, float, float]
"""xyzw in Unity's axes."""

AT_REST: Quat = (0.0, 0.0, 0.0, 1.0)
HIPS_M = (0.0, 0.95, 0.0)

BODY = [
    *("Hips", "Spine", "Chest", "UpperChest", "Neck", "Head", "LeftEye", "RightEye"),
    *("LeftShoulder", "LeftUpperArm", "LeftLowerArm", "LeftHand"),
    *("RightShoulder", "RightUpperArm", "RightLowerArm", "RightHand"),
    *("LeftUpperLeg", "LeftLowerLeg", "LeftFoot", "LeftToes"),
    *("RightUpperLeg", "RightLowerLeg", "RightFoot", "RightToes"),
]
FINGERS = [
    f"{side}{finger}{bone}"
    for side in ("Left", "Right")
    for finger in ("Thumb", "Index", "Middle", "Ring", "Little")
    for bone in ("Proximal", "Intermediate", "Distal")
]


def turn_z(degrees: float) -> Quat:
    """About Unity's z: a left arm that points to -x goes down."""
    half = math.radians(degrees) / 2
    return (0.0, 0.0, math.sin(half), math.cos(half))


def arms(degrees_below_t_pose: float) -> dict[str, Quat]:
    return {"LeftUpperArm": turn_z(degrees_below_t_pose), "RightUpperArm": turn_z(-degrees_below_t_pose)}


def message(address: str, *arguments: Any) -> OscMessage:
    builder = OscMessageBuilder(address)
    for argument in arguments:
        builder.add_arg(argument)
    return builder.build()


def bone(name: str, quat: Quat = AT_REST, position: Sequence[float] = (0.0, 0.0, 0.0)) -> OscMessage:
    return message("/VMC/Ext/Bone/Pos", name, *map(float, position), *map(float, quat))


def frame(
    turned: Mapping[str, Quat] | None = None,
    shapes: Mapping[str, float] | None = None,
    bones: Iterable[str] = (*BODY, *FINGERS),
    hips_m: Sequence[float] = HIPS_M,
) -> list[OscMessage]:
    """One moment, in the order of the protocol's own example."""
    turned = turned or {}
    root = message("/VMC/Ext/Root/Pos", "root", 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    body = [bone(name, turned.get(name, AT_REST), hips_m if name == "Hips" else (0.0, 0.1, 0.0)) for name in bones]
    face = [message("/VMC/Ext/Blend/Val", name, float(value)) for name, value in (shapes or {}).items()]
    ends = [message("/VMC/Ext/Blend/Apply"), message("/VMC/Ext/OK", 1), message("/VMC/Ext/T", 1.5)]
    return [root, *body, *face, *ends]


def bundle(messages: Iterable[OscMessage | OscBundle]) -> OscBundle:
    builder = OscBundleBuilder(IMMEDIATELY)
    for content in messages:
        builder.add_content(content)
    return builder.build()


def as_one(messages: Sequence[OscMessage]) -> list[bytes]:
    """As VSeeFace does: a bundle a frame."""
    return [bundle(messages).dgram]


def as_several(messages: Sequence[OscMessage], each: int = 12) -> list[bytes]:
    """As VirtualMotionCapture does: bundles that fit a network packet."""
    return [bundle(messages[i : i + each]).dgram for i in range(0, len(messages), each)]


def as_single(messages: Sequence[OscMessage]) -> list[bytes]:
    """As scripts do: every message a packet."""
    return [content.dgram for content in messages]


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
