"""Motions of random numbers."""

import numpy as np

from lhm_runtime.motion.sequences import MotionSequence


def random_motion(frames: int = 7, names: tuple[str, ...] = ("jawOpen", "browUp"), seed: int = 0) -> MotionSequence:
    rng = np.random.default_rng(seed)
    return MotionSequence(
        rotvec=rng.normal(0, 0.6, (frames, 55, 3)).astype(np.float32),
        transl=rng.normal(size=(frames, 3)).astype(np.float32),
        expression=rng.random((frames, len(names)), np.float32),
        timestamps_s=np.cumsum(rng.uniform(0.01, 0.1, frames)),
        expression_names=names,
    )
