from pathlib import Path

import pytest

from lhm_runtime.avatar import Avatar, save_avatar
from lhm_runtime.reconstruction.builtin_person import build_person


@pytest.fixture(scope="session")
def avatar() -> Avatar:
    return build_person(2_000)


@pytest.fixture(scope="session")
def avatar_file(avatar: Avatar, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("avatars") / "small.avatar"
    save_avatar(avatar, path)
    return path
