"""The avatars of one server: a folder with an .avatar, a picture and a few facts of each."""

import json
import re
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from lhm_runtime.avatar import Avatar, load_avatar
from lhm_runtime.files import write_atomically
from streaming.errors import RefusedError

_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_MAX_NAME: Final = 60


@dataclass(frozen=True, slots=True)
class AvatarFacts:
    """What a page says about an avatar."""

    name: str
    method: str
    """Its reconstructor."""
    created_at: str
    """ISO 8601, UTC."""
    warnings: tuple[str, ...] = ()
    made_of: str = ""
    """For those that are made without being asked for: when this is another by now, they are made again."""


class AvatarStore:
    """Avatars by id: ids are names of files, so no other is ever looked up."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        """Keep them in ``folder``, which is made if need be; raises OSError where that is not possible.

        With ``url`` they are kept there, in storage that several machines share, and the folder holds copies; raises
        InvalidInputError where it cannot be opened.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._mirror = folder, None
        if url is not None:
            from streaming.cluster.mirror import Mirror  # noqa: PLC0415 - needs the extra "scale"

            self._mirror = Mirror(f"{url.rstrip('/')}/avatars", folder)

    def list(self) -> dict[str, AvatarFacts]:
        """All that are complete, the newest first; the built-in person after all that were photos."""
        found = {}
        for avatar_id in self._ids():
            facts = _read_facts(self.facts_path(avatar_id))
            if facts is not None:
                found[avatar_id] = facts

        def rank(entry: tuple[str, AvatarFacts]) -> tuple[bool, str]:
            return (not entry[1].method.startswith("builtin"), entry[1].created_at)

        return dict(sorted(found.items(), key=rank, reverse=True))

    def load(self, avatar_id: str) -> Avatar:
        """The avatar; raises RefusedError when there is none, AvatarFileError when its file is damaged."""
        self.require(avatar_id)
        if self._mirror is not None:
            self._mirror.fetch(self.avatar_path(avatar_id).name)
        return load_avatar(self.avatar_path(avatar_id))

    def require(self, avatar_id: str) -> None:
        """Raise RefusedError unless there is such an avatar."""
        path = self.avatar_path(avatar_id)
        if not (_ID.fullmatch(avatar_id) and (path.is_file() if self._mirror is None else self._is_there(path.name))):
            raise RefusedError(404, "unknown_avatar", f"there is no avatar {avatar_id[:64]!r}")

    def delete(self, avatar_id: str) -> None:
        """Remove the avatar and everything about it; raises RefusedError when there is none."""
        self.require(avatar_id)
        for path in self._paths(avatar_id):
            if self._mirror is not None:
                self._mirror.remove(path.name)
            path.unlink(missing_ok=True)

    def discard_unfinished(self, avatar_id: str) -> None:
        """Remove what there is of an avatar that has no facts yet: nobody will ever ask for it."""
        if not self.facts_path(avatar_id).exists():
            for path in self._paths(avatar_id):
                path.unlink(missing_ok=True)

    def publish(self, avatar_id: str) -> None:
        """Let other machines have what is now in the folder, where they share a storage; raises OSError."""
        if self._mirror is not None:
            for path in reversed(self._paths(avatar_id)):
                self._mirror.send(path.name)

    def new_id(self, name: str) -> str:
        """An id that is free, and tells something of ``name``."""
        word = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:24]
        return f"{word or 'avatar'}-{secrets.token_hex(4)}"

    def avatar_path(self, avatar_id: str) -> Path:
        """Where its Gaussians are."""
        return self._folder / f"{avatar_id}.avatar"

    def facts_path(self, avatar_id: str) -> Path:
        """Where its facts are; written last, so that what has them is complete."""
        return self._folder / f"{avatar_id}.json"

    def preview_path(self, avatar_id: str) -> Path:
        """Where its picture is, if it has one."""
        return self._folder / f"{avatar_id}.png"

    def backdrop_path(self, avatar_id: str) -> Path:
        """Where the blurred surroundings of its photo are, if it has any."""
        return self._folder / f"{avatar_id}.backdrop.jpg"

    def _paths(self, avatar_id: str) -> tuple[Path, ...]:
        """All files of an avatar, the facts first."""
        return (
            self.facts_path(avatar_id),
            self.avatar_path(avatar_id),
            self.preview_path(avatar_id),
            self.backdrop_path(avatar_id),
        )

    def _ids(self) -> set[str]:
        """Of all that are complete; their small files are then in the folder."""
        if self._mirror is None:
            return {path.stem for path in self._folder.glob("*.json") if self.avatar_path(path.stem).is_file()}
        names = self._mirror.names()
        for name in names:
            if not name.endswith(".avatar"):
                self._mirror.fetch(name)
        stems = {Path(name).stem for name in names if name.endswith(".json")}
        return {stem for stem in stems if self.avatar_path(stem).name in names}

    def _is_there(self, name: str) -> bool:
        return self._mirror is not None and name in self._mirror.names()


def write_facts(path: Path, facts: AvatarFacts) -> None:
    """Write what ``AvatarStore.list`` reads."""
    write_atomically(path, json.dumps(asdict(facts), ensure_ascii=False).encode())


def tidy_name(file_name: str) -> str:
    """What to call the avatar of an uploaded file."""
    stem = re.split(r"[/\\]", file_name)[-1].rpartition(".")[0] or file_name
    printable = "".join(letter if letter.isprintable() else " " for letter in stem)
    return " ".join(printable.replace("_", " ").split())[:_MAX_NAME] or "Avatar"


def _read_facts(path: Path) -> AvatarFacts | None:
    try:
        known = json.loads(path.read_bytes())
        return AvatarFacts(
            str(known["name"]),
            str(known["method"]),
            str(known["created_at"]),
            tuple(map(str, known.get("warnings", ()))),
            str(known.get("made_of", "")),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # not ours, or half written by a crash
        return None
