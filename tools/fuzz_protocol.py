"""Fuzz the wire format by coverage: pip install atheris, then python tools/fuzz_protocol.py -max_total_time=600.

Seeds are the golden packets. Whatever comes is a ProtocolError or a sample whose numbers are within the limits, that
can be sent again, that says the same then, and that makes a pose. Options are libFuzzer's.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["streaming.protocol", "streaming.wire", "lhm_runtime.motion.retargeting"]):
    from streaming.errors import ProtocolError
    from streaming.protocol import (
        MAX_TEXT_BYTES,
        BoneSample,
        LandmarkSample,
        encode_bones,
        encode_landmarks,
        format_sample,
        parse_sample,
    )

import numpy as np

from lhm_runtime.body.body_model import BodyModel
from lhm_runtime.motion.retargeting import Retargeter

GOLDEN = Path(__file__).parents[1] / "tests" / "streaming" / "golden"
RETARGETER = Retargeter(BodyModel.default().rest_joints(), ("jawOpen",))


def try_packet(data: bytes) -> None:
    """One input, as bytes and as text."""
    for packet in (data, data.decode(errors="replace")):
        try:
            sample = parse_sample(packet)
        except ProtocolError as error:
            str(error).encode()  # it can be told
            continue
        require_usable(sample)


def require_usable(sample: LandmarkSample | BoneSample) -> None:
    """Raise unless a sample can be drawn and sent on, and is then the same."""
    if isinstance(sample, BoneSample):
        bones = sample.bones
        if not np.allclose(np.linalg.norm(bones.quat_wxyz, axis=1), 1, atol=1e-5):
            raise AssertionError(bones.quat_wxyz)
        if not np.isfinite(RETARGETER.to_pose(bones).rotvec).all():
            raise AssertionError(bones)
        if sum(len(name.encode()) + 3 for name in bones.blendshape_names) < 2000:  # JSON may hold more than bytes can
            again = parse_sample(encode_bones(sample, "quat_f32"))
            if again.sequence != sample.sequence or again.bones.names != bones.names:
                raise AssertionError(bones)
    else:
        again = parse_sample(encode_landmarks(sample))
        if again.landmarks.image_size != sample.landmarks.image_size:
            raise AssertionError(sample.landmarks)
    if len(format_sample(sample).encode()) > MAX_TEXT_BYTES:
        raise AssertionError(sample)


def main() -> None:
    """Fuzz until libFuzzer has had enough."""
    with tempfile.TemporaryDirectory() as corpus:
        for seed in GOLDEN.rglob("*.*"):
            (Path(corpus) / f"{seed.parent.name}-{seed.name}").write_bytes(seed.read_bytes())
        atheris.Setup([*sys.argv, "-max_len=5000", "-timeout=10", corpus], try_packet)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
