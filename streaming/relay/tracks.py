"""What one relay is sent of a session."""

from dataclasses import dataclass

from streaming.audio import AudioTrack
from streaming.hub import PacketTrack
from streaming.ladder import TIERS
from streaming.relay.settings import Relay
from streaming.session import Session
from streaming.viewer_rate import ViewerRate


class AudienceRate(ViewerRate):
    """Follows what the relay reports of the way to it, but never so far down that a whole audience gets less to see."""

    @property
    def bps(self) -> float:
        """Video bits a second that it can be sent."""
        return max(super().bps, TIERS[-1].min_bps)


@dataclass(frozen=True, slots=True)
class Tracks:
    """Pictures and sound, for one publication."""

    pictures: PacketTrack
    sound: AudioTrack

    def stop(self) -> None:
        """Leave the session's hubs."""
        self.pictures.stop()
        self.sound.stop()


def subscribe(session: Session, relay: Relay) -> Tracks:
    """Join a session, at the bitrate that ``relay`` says; raises LhmLiveError where it does not run."""
    tracks = Tracks(session.subscribe(relay.codec, stacked=False), session.audio.subscribe())
    tracks.pictures.rate = AudienceRate(relay.bps)
    return tracks
