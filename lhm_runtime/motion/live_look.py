"""One person seen under a time budget: the body in every frame, face and hands as often as the budget allows.

A face that is a frame or two older is not missed as a late arm is. So the time each look takes is charged to a budget
that refills with every frame; when the machine is busy, looks take longer and face and hands come round more rarely,
until each has its turn in one frame of ``RAREST``. Between two looks what was seen last moves along with the body.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lhm_runtime.motion.cutouts import HAND_PX, HEAD_PX, Cutout, cutouts_of, join_cutouts
from lhm_runtime.motion.landmark_points import WRISTS
from lhm_runtime.motion.mediapipe_models import Face, Hand, MediapipeModels, Sight
from lhm_runtime.motion.person_choice import Body, is_same_person, owns_face

BUDGET_S = 0.022
"""For all looks at a frame, on average: two thirds of a frame at 30 a second."""
RAREST = 4
"""Face and hands are looked at in one frame of this many at least, whatever the budget says."""

_REST = 8  # frames before looking again for what was not found: detectors cost more than following
_WRIST_VISIBLE = 0.5


@dataclass(slots=True)
class _Turn:
    """When a part is looked at, in frames."""

    waited: int = RAREST
    """Since the last look."""
    resting: int = 0
    """Until it may be looked at again."""


class LiveLook:
    """Looks at one person, frame after frame; for one thread."""

    def __init__(self, models: MediapipeModels, clock: Callable[[], float] = time.perf_counter) -> None:
        """Look with ``models`` opened for the webcam; ``clock`` counts seconds."""
        self._models, self._clock = models, clock
        self._body: Body | None = None
        self._face: tuple[Face, Cutout] | None = None
        self._hands: list[tuple[Hand, Cutout] | None] = [None, None]
        self._turns = {"face": _Turn(), "hands": _Turn()}
        self._credit_s = 0.0

    def look(self, picture: np.ndarray) -> Sight:
        """The person followed, in a picture uint8 [h, w, 3]."""
        start = self._clock()
        body = self._models.follow_body(picture)
        if body is None or (self._body is not None and not is_same_person(body, self._body)):
            self._face, self._hands = None, [None, None]
        self._body = body
        if body is None:
            return Sight()
        head, *hands = cutouts_of(body)
        self._credit_s += BUDGET_S - (self._clock() - start)
        shown = body.visibility[WRISTS] > _WRIST_VISIBLE
        if not shown.any():
            self._hands = [None, None]
        for part, turn in sorted(self._turns.items(), key=lambda named: -named[1].waited):
            turn.waited += 1
            turn.resting -= 1
            if (part == "hands" and not shown.any()) or turn.resting >= 0:
                continue
            if self._credit_s <= 0 and turn.waited < RAREST:
                continue
            start = self._clock()
            if part == "face":
                found = self._look_at_face(picture, body, head)
            else:
                found = self._look_at_hands(picture, body, hands, shown)
            self._turns[part] = _Turn(0, 0 if found else _REST)
            self._credit_s -= self._clock() - start
        # neither a pause nor one slow look counts for long
        self._credit_s = min(max(self._credit_s, -BUDGET_S), BUDGET_S)
        left, right = (
            None if hand is None else _carry_hand(*hand, now) for hand, now in zip(self._hands, hands, strict=True)
        )
        face = None if self._face is None else _carry_face(*self._face, head)
        return Sight(body=body, face=face, left_hand=left, right_hand=right)

    def _look_at_face(self, picture: np.ndarray, body: Body, head: Cutout) -> bool:
        seen = self._models.follow_face(head.cut(picture, HEAD_PX))
        self._face = None
        if seen is not None:
            face = replace(seen, points=head.place(seen.points, HEAD_PX))
            if owns_face(body, face.points[:, :2]):
                self._face = (face, head)
        return self._face is not None

    def _look_at_hands(self, picture: np.ndarray, body: Body, hands: Sequence[Cutout], shown: np.ndarray) -> bool:
        left, right = (cutout if there else None for cutout, there in zip(hands, shown, strict=True))
        self._hands = [None, None]
        nearest = [np.inf, np.inf]
        for seen in self._models.follow_hands(join_cutouts(picture, left, right)):
            half = int(seen.image[:, 0].mean() > HAND_PX)
            points = hands[half].place(seen.image - [half * HAND_PX, 0], HAND_PX)
            # the other hand may reach into this cutout
            distance = float(np.linalg.norm(points[0] - body.image[WRISTS[half]]))
            if shown[half] and distance < nearest[half]:
                self._hands[half] = (replace(seen, image=points), hands[half])
                nearest[half] = distance
        return any(hand is not None for hand in self._hands)


def _carry_hand(hand: Hand, then: Cutout, now: Cutout) -> Hand:
    return hand if now is then else replace(hand, image=now.place(then.find(hand.image)))


def _carry_face(face: Face, then: Cutout, now: Cutout) -> Face:
    return face if now is then else replace(face, points=now.place(then.find(face.points)))
