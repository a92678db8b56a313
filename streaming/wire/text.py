"""Samples as JSON: the same content as in bytes, for people and for senders without a struct module.

    {"version": 1, "kind": "rotations", "sequence": 17, "captured_ms": 1790000000125.0, "convention": "smplx",
     "rotvec": {"left_elbow": [0, -1.2, 0]}, "root": [0, 0.02, 0], "expression": {"jawOpen": 0.4}}

    {"version": 1, "kind": "landmarks", "sequence": 17, "captured_ms": 1790000000125.0, "image_size": [640, 480],
     "body_world": [[0.01, 0.6, 0.2], ...], "face_blendshapes": [...]}

``rotvec`` may be ``quat_wxyz``; ``convention`` is smplx where it is left out. Arrays of landmarks have the names and
shapes of ``Landmarks``, image points as fractions of the picture. docs/schema/sample-v1.json says it all.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, Literal, NoReturn

import numpy as np
from jaxtyping import Float64

from lhm_runtime.body.rotations import quat_wxyz_to_rotvec
from lhm_runtime.errors import InvalidInputError
from streaming.errors import ProtocolError
from streaming.wire.header import MAX_SEQUENCE, VERSION, pack_header
from streaming.wire.landmarks import FIELD_SHAPES, LandmarkSample, build_landmarks, wire_arrays
from streaming.wire.limits import MAX_SHAPES, MAX_TEXT_BYTES
from streaming.wire.rotations import BONE_NAMES, CONVENTIONS, BoneSample, build_bones, wire_bones

_DIGITS: Final = 6
_COMMON: Final = {"version", "kind", "sequence", "captured_ms"}
_ROTATION_KEYS: Final = _COMMON | {"convention", "rotvec", "quat_wxyz", "root", "expression"}
_LANDMARK_KEYS: Final = _COMMON | {"image_size", *FIELD_SHAPES}


def format_sample(sample: LandmarkSample | BoneSample, form: Literal["rotvec", "quat_wxyz"] = "quat_wxyz") -> str:
    """The sample as JSON, numbers rounded to a millionth, rotations in ``form``; raises as the encoders do."""
    timestamp_s = sample.landmarks.timestamp_s if isinstance(sample, LandmarkSample) else sample.bones.timestamp_s
    pack_header(0, 0, sample.sequence, timestamp_s)  # refuses what no header can hold
    message: dict[str, Any] = {
        "version": VERSION,
        "kind": "landmarks" if isinstance(sample, LandmarkSample) else "rotations",
        "sequence": sample.sequence,
        "captured_ms": timestamp_s * 1e3,
    }
    if isinstance(sample, LandmarkSample):
        message["image_size"] = list(sample.landmarks.image_size)
        message |= {name: _rounded(values) for name, values in wire_arrays(sample.landmarks).items()}
    else:
        bones = sample.bones
        message["convention"] = bones.convention
        joints, quat_wxyz, shapes = wire_bones(bones)
        if joints:
            names = [BONE_NAMES[bones.convention][joint] for joint in joints]
            values = quat_wxyz_to_rotvec(quat_wxyz) if form == "rotvec" else quat_wxyz
            message[form] = dict(zip(names, _rounded(values), strict=True))
        if bones.root_transl is not None:
            message["root"] = _rounded(bones.root_transl)
        if shapes:
            message["expression"] = {name: round(value, _DIGITS) for name, value in shapes.items()}
    text = json.dumps(message, separators=(",", ":"), ensure_ascii=False)
    if len(text.encode()) > MAX_TEXT_BYTES:
        raise InvalidInputError(f"sample of {len(text.encode())} bytes as JSON, at most {MAX_TEXT_BYTES} can be sent")
    return text


def read_text(text: str) -> LandmarkSample | BoneSample:
    """The sample in a message of JSON.

    Raises:
        ProtocolError: anything but exactly one well-formed sample of finite numbers within the limits.
    """
    if len(text) > MAX_TEXT_BYTES:
        raise ProtocolError(f"message of {len(text)} letters, a sample in JSON has at most {MAX_TEXT_BYTES}")
    try:
        message = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"message is no JSON: {str(error) or type(error).__name__}") from error
    if not isinstance(message, dict):
        raise ProtocolError(f"message is a JSON {type(message).__name__}, a sample is an object")
    version = message.get("version")
    if version != VERSION or isinstance(version, bool):
        raise ProtocolError(f"sample of version {_show(version)}, this server reads version {VERSION}")
    match message.get("kind"):
        case "landmarks":
            _refuse_others(message, _LANDMARK_KEYS)
            return _read_landmarks(message)
        case "rotations":
            _refuse_others(message, _ROTATION_KEYS)
            return _read_rotations(message)
        case other:
            raise ProtocolError(f"sample of kind {_show(other)}, expected landmarks or rotations")


def _read_landmarks(message: Mapping[str, Any]) -> LandmarkSample:
    size = message.get("image_size")
    if not (isinstance(size, list) and len(size) == 2 and all(_is_whole(side) for side in size)):
        raise ProtocolError(f"image_size is {_show(size)}, expected width and height in whole pixels")
    arrays = {name: _numbers(name, message[name], shape) for name, shape in FIELD_SHAPES.items() if name in message}
    return build_landmarks(_sequence(message), _captured_ms(message), (size[0], size[1]), arrays)


def _read_rotations(message: Mapping[str, Any]) -> BoneSample:
    convention = message.get("convention", "smplx")
    if convention not in CONVENTIONS:
        raise ProtocolError(f"convention is {_show(convention)}, expected one of {', '.join(CONVENTIONS)}")
    if "rotvec" in message and "quat_wxyz" in message:
        raise ProtocolError("sample with rotvec and quat_wxyz, expected one of them")
    rotations: dict[str, np.ndarray] = {}
    for form, count in (("rotvec", 3), ("quat_wxyz", 4)):
        for name, values in _object(message, form).items():
            rotations[name] = _numbers(f"{form} of {name[:64]!r}", values, (count,))
    shapes = _object(message, "expression")
    if len(shapes) > MAX_SHAPES:
        raise ProtocolError(f"{len(shapes)} face shapes, at most {MAX_SHAPES} are read")
    return build_bones(
        _sequence(message),
        _captured_ms(message),
        convention,
        rotations,
        _numbers("root", message["root"], (3,)) if "root" in message else None,
        {name: float(_numbers(f"expression {name[:64]!r}", value, ())) for name, value in shapes.items()},
    )


def _sequence(message: Mapping[str, Any]) -> int:
    sequence = message.get("sequence")
    if not isinstance(sequence, int) or isinstance(sequence, bool) or not 0 <= sequence <= MAX_SEQUENCE:
        raise ProtocolError(f"sequence is {_show(sequence)}, expected a whole number from 0 to {MAX_SEQUENCE}")
    return sequence


def _captured_ms(message: Mapping[str, Any]) -> float:
    return float(_numbers("captured_ms", message.get("captured_ms"), ()))


def _numbers(name: str, value: object, shape: tuple[int, ...]) -> Float64[np.ndarray, "..."]:
    try:
        numbers = np.asarray(value)
    except ValueError:  # rows of different lengths
        numbers = np.empty(0, object)
    if numbers.dtype.kind not in "iuf" or numbers.shape != shape:
        wanted = " x ".join(map(str, shape)) + " finite numbers" if shape else "a finite number"
        raise ProtocolError(f"{name} is {_show(value)}, expected {wanted}")
    numbers = numbers.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise ProtocolError(f"{name} is {_show(value)}, expected finite numbers")
    return numbers


def _object(message: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = message.get(key, {})
    if not isinstance(found, dict):
        raise ProtocolError(f"{key} is {_show(found)}, expected an object")
    return found


def _refuse_others(message: Mapping[str, Any], known: set[str]) -> None:
    for key in message:
        if key not in known:
            raise ProtocolError(f"{message['kind']} have no {key[:64]!r}; known: {', '.join(sorted(known))}")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _rounded(values: np.ndarray) -> Any:
    return np.round(values.astype(np.float64), _DIGITS).tolist()


def _show(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."
