"""How many bits a second one viewer's path carries, from what the viewer reports.

Two reports say it: the receiver's own estimate (REMB, draft-alvestrand-rmcat-remb-03), which watches delay, and the
share of packets lost (RFC 3550 receiver reports), used as in draft-ietf-rmcat-gcc-02, section 6. aiortc has neither
a sender-side estimator nor a pacer, so this is all there is.
"""

from typing import Final

HEADROOM: Final = 0.85
"""Share of the estimate used for video; the rest is for headers and retransmissions."""

_HEAVY_LOSS: Final = 0.10
_LIGHT_LOSS: Final = 0.02
_GROWTH_PER_S: Final = 1.08
_MIN_BPS: Final = 100e3
"""Loss lowers the rate no further: from nothing it would not come back within minutes."""
_MAX_BPS: Final = 50e6
_TRIED_BPS: Final = 1e6
"""Up to here the rate may creep without an estimate that confirms it."""


class ViewerRate:
    """One viewer's share of bits; pure arithmetic, the caller brings the time."""

    def __init__(self, start_bps: float) -> None:
        self._estimated_bps = start_bps
        self._loss_bps = _MAX_BPS
        self._heard_at: float | None = None

    @property
    def bps(self) -> float:
        """Video bits a second that this viewer can be sent."""
        return min(self._estimated_bps, self._loss_bps)

    def on_estimate(self, estimate_bps: float, sent_bps: float, target_bps: float, now: float) -> None:
        """Take in a REMB report.

        An estimate follows what arrives, so that of an easy picture is low on the fastest link: when far less is
        sent than the encoder may use, a low estimate holds the rate (and lets it creep up) instead of lowering it.

        Args:
            estimate_bps: the report.
            sent_bps: bits a second sent lately.
            target_bps: what the encoder was allowed.
            now: seconds on any steady clock.
        """
        usable = HEADROOM * estimate_bps
        elapsed = 0.0 if self._heard_at is None else min(now - self._heard_at, 2.0)
        self._heard_at = now
        little_was_sent = sent_bps < 0.7 * target_bps and estimate_bps >= 1.2 * sent_bps
        if usable <= self._estimated_bps and little_was_sent:
            crept = self._estimated_bps * _GROWTH_PER_S**elapsed
            self._estimated_bps = max(self._estimated_bps, min(crept, max(3 * estimate_bps, _TRIED_BPS)))
        else:
            self._estimated_bps = usable

    def on_loss(self, fraction: float) -> None:
        """Take in a receiver report (about one a second): the share of packets lost since the last one, 0 to 1."""
        if fraction > _HEAVY_LOSS:
            self._loss_bps = max(_MIN_BPS, self.bps * (1 - 0.5 * fraction))
        elif fraction < _LIGHT_LOSS:
            self._loss_bps = min(_MAX_BPS, self._loss_bps * _GROWTH_PER_S)
