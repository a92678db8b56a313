"""Which reconstructor is taken and why; where files are looked for, and the sentence when they are not there."""

import sys
from pathlib import Path

import pytest
from lhm_checkpoints import CONFIG, write_lhm, write_points, write_sapiens
from safetensors.torch import save_file

from lhm_runtime.errors import BackendError, FileFormatError, InvalidInputError
from lhm_runtime.models import MODELS_VARIABLE
from lhm_runtime.reconstruction.lhm import cost
from lhm_runtime.reconstruction.lhm.choice import METHODS, choose
from lhm_runtime.reconstruction.lhm.config import VARIANTS
from lhm_runtime.reconstruction.lhm.run import prepare_run
from lhm_runtime.reconstruction.lhm.weights import (
    BEST_FIRST,
    NETWORKS,
    PUBLISHED,
    SAPIENS,
    find_file,
    find_lhm,
    find_points,
    find_published,
    networks_here,
    storage_folder,
)

SAPIENS_FILE = "sapiens_1b_epoch_173_torchscript.pt2"


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder of models beside the package; nothing of this machine's shows."""
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path / "models"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    return tmp_path / "models" / "lhm"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lhm(tmp_path_factory.mktemp("own"))


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


class TestWeights:
    def test_everything_published_can_be_told_apart(self) -> None:
        assert {network.name for network in NETWORKS} == set(VARIANTS) == set(BEST_FIRST)
        assert len({published.name for published in PUBLISHED}) == len(PUBLISHED)
        assert [f"lhm-{name}" for name in ("mini", "500m")] == [
            name for name in METHODS if name in {"lhm-mini", "lhm-500m"}
        ]
        assert {network.name.lower() for network in NETWORKS} < set(METHODS)
        assert find_published("Lhm-Mini").name == "LHM-MINI"
        with pytest.raises(InvalidInputError, match="'lhm-2b'; known are lhm-mini"):
            find_published("lhm-2b")

    def test_nothing_is_here(self, root: Path) -> None:
        assert networks_here() == []
        assert storage_folder() == root
        with pytest.raises(BackendError) as caught:
            find_lhm("lhm-mini")
        for part in (
            f"model.safetensors of 3DAIGC/LHM-MINI on Hugging Face as {root / 'LHM-MINI' / 'model.safetensors'}",
            f"{SAPIENS_FILE} of facebook/sapiens-pretrain-1b-torchscript on Hugging Face as {root / SAPIENS_FILE}",
            "lhm-live models get lhm-mini",
            "--method projection works",
        ):
            assert part in str(caught.value)

    def test_only_sapiens_is_missing(self, root: Path) -> None:
        touch(root / "LHM-500M" / "model.safetensors")
        with pytest.raises(BackendError, match=SAPIENS_FILE) as caught:
            find_lhm("LHM-500M")
        assert "model.safetensors" not in str(caught.value)
        assert networks_here() == []

    def test_where_files_may_lie(self, root: Path, tmp_path: Path) -> None:
        sapiens = touch(root / "sapiens" / "pretrained" / "checkpoints" / "sapiens_1b" / SAPIENS_FILE)
        in_cache = tmp_path / "cache" / "lhm-live" / "models" / "lhm"
        older = touch(in_cache / "LHM-1B" / "step_010000" / "model.safetensors")
        newer = touch(in_cache / "LHM-1B" / "step_060000" / "model.safetensors")
        mini = touch(root / "LHM-MINI" / "model.safetensors")
        points = touch(root / "dense_sample_points" / "1_20000.ply")
        if sys.platform not in {"win32", "darwin"}:
            assert networks_here() == ["LHM-1B", "LHM-MINI"]
            assert find_lhm().checkpoint == newer != older
        found = find_lhm("lhm-mini")
        assert (found.variant, found.checkpoint, found.sapiens) == ("LHM-MINI", mini, sapiens)
        assert find_points(20_000) == points
        assert find_points(40_000) is None
        assert find_file(SAPIENS, SAPIENS_FILE) == sapiens

    def test_a_folder_of_one_s_own(self, folder: Path) -> None:
        found = find_lhm(None, folder)
        assert found.variant is None
        assert found.sapiens == folder / SAPIENS_FILE
        assert find_points(CONFIG.points, found.folder) == folder / f"1_{CONFIG.points}.ply"
        with pytest.raises(BackendError, match=r"there is no .*absent: expected LHM's model\.safetensors"):
            find_lhm(None, folder / "absent")
        with pytest.raises(InvalidInputError, match="no LHM network is called"):
            find_lhm("lhm-3b", folder)


class TestChoice:
    def test_projection_where_nothing_else_is(self) -> None:
        assert choose("projection", 1) == (None, "projection, as asked for")
        run, why = choose("auto", 1)
        assert run is None
        assert why == "projection, as no weights of LHM are on this machine (lhm-live models lists them)"

    def test_lhm_where_its_weights_are(self, folder: Path) -> None:
        run, why = choose("auto", 1, weights=folder, device="cpu")
        assert run is not None
        assert (run.name, run.warnings) == ("lhm", ())
        assert why == "lhm, the best whose weights are on this machine"
        assert choose("lhm", 1, weights=folder)[1] == "lhm, as asked for"

    def test_several_photos_are_for_projection(self, folder: Path) -> None:
        run, why = choose("auto", 3, weights=folder)
        assert run is None
        assert why == "projection, as LHM looks at one photo and 3 are given"
        assert choose("lhm", 3, weights=folder)[0] is not None

    def test_a_damaged_network_is_not_taken_by_itself(self, root: Path) -> None:
        touch(root / "LHM-500M" / "model.safetensors")
        write_sapiens(root / SAPIENS_FILE)
        run, why = choose("auto", 1)
        assert run is None
        assert why.startswith("projection, as LHM cannot be used here: ")
        assert "truncated" in why
        with pytest.raises(FileFormatError, match="truncated"):
            choose("lhm-500m", 1)
        with pytest.raises(BackendError, match="LHM-1B is not complete"):
            choose("lhm-1b", 1)

    def test_too_little_memory(self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "memory.current").write_text("900000000\n")
        (tmp_path / "memory.max").write_text("901000000\n")
        monkeypatch.setattr(cost, "_CGROUP", tmp_path)
        run, why = choose("auto", 1, weights=folder)
        assert run is None
        assert "GB of memory on cpu" in why
        with pytest.raises(BackendError, match=r"of which 0\.0 are free: close other programs, or take"):
            choose("lhm", 1, weights=folder)

    def test_without_torch(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "torch", None)
        run, why = choose("auto", 1, weights=folder)
        assert run is None
        assert "torch, which is not installed: pip install 'lhm-live[lhm]'" in why

    def test_devices(self, folder: Path) -> None:
        files = find_lhm(None, folder)
        with pytest.raises(InvalidInputError, match="device is 'tpu', expected cpu or cuda"):
            prepare_run(files, "tpu")
        import torch  # noqa: PLC0415

        if not torch.cuda.is_available():
            with pytest.raises(BackendError, match="there is no card for --device cuda"):
                prepare_run(files, "cuda")
            run, why = choose("auto", 1, weights=folder, device="cuda")
            assert run is None
            assert why.startswith("projection, as LHM cannot be used here: there is no card")


class TestFiles:
    def test_another_network_than_asked_for(self, folder: Path) -> None:
        with pytest.raises(
            FileFormatError, match="is not LHM-500M, which has 5 layers and 40000 points: it has 2 layers"
        ):
            prepare_run(find_lhm("lhm-500m", folder), "cpu")

    def test_without_the_file_of_points(self, folder: Path, tmp_path: Path) -> None:
        for file in ("model.safetensors", "config.json", SAPIENS_FILE):
            (tmp_path / file).symlink_to(folder / file)
        run = prepare_run(find_lhm(None, tmp_path), "cpu")
        assert run.points is None
        assert "query points 1_1200.ply are not on this machine" in run.warnings[0]
        with_file, _ = prepare_run(find_lhm(None, folder), "cpu").place_points()
        without, _ = run.place_points()
        assert 0.0 < abs(with_file - without).max() < 0.05

    def test_a_file_of_other_points(self, folder: Path, tmp_path: Path) -> None:
        for file in ("model.safetensors", "config.json", SAPIENS_FILE):
            (tmp_path / file).symlink_to(folder / file)
        points, _ = prepare_run(find_lhm(None, folder), "cpu").place_points()
        write_points(tmp_path / "1_1200.ply", points[:1000])
        with pytest.raises(FileFormatError, match="holds 1000 points, the checkpoint was made for 1200"):
            prepare_run(find_lhm(None, tmp_path), "cpu")

    def test_a_network_that_nothing_describes(self, folder: Path, tmp_path: Path) -> None:
        for file in ("model.safetensors", SAPIENS_FILE):
            (tmp_path / file).symlink_to(folder / file)
        with pytest.raises(FileFormatError, match=r"no config\.json beside it says more"):
            prepare_run(find_lhm(None, tmp_path), "cpu")
        (tmp_path / "config.json").write_text('{"dino": {"width": 32, "depth": 4, "heads": 2}}')
        with pytest.raises(FileFormatError, match="lacks 'taps'"):
            prepare_run(find_lhm(None, tmp_path), "cpu")

    def test_a_foreign_file(self, tmp_path: Path) -> None:
        import torch  # noqa: PLC0415

        save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
        write_sapiens(tmp_path / SAPIENS_FILE)
        with pytest.raises(FileFormatError, match="no LHM checkpoint: it has 1 tensors"):
            prepare_run(find_lhm(None, tmp_path), "cpu")
