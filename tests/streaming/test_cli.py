import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from lhm_runtime.avatar import Avatar, load_avatar
from lhm_runtime.motion.procedural import wave
from lhm_runtime.motion.sequences import save_motion
from lhm_runtime.ply import import_ply
from streaming import cli
from streaming.doctor import Finding

ROOT = Path(__file__).resolve().parents[2]
MOTIONS = ROOT / ".." / "shared" / "data" / "motion"

needs_shared = pytest.mark.skipif(not MOTIONS.is_dir(), reason="real motions of ../shared are absent")


def run(*arguments: object) -> Result:
    # wide, so that no path is broken
    return CliRunner(env={"COLUMNS": "250"}).invoke(cli.app, [str(argument) for argument in arguments])


@pytest.fixture
def small_builtin(monkeypatch: pytest.MonkeyPatch, avatar: Avatar) -> None:
    """The built-in person with fewer Gaussians: making all 40,000 takes seconds."""
    monkeypatch.setattr("streaming.arguments.build_person", lambda: avatar)


class TestRender:
    def test_video(self, avatar_file: Path, tmp_path: Path) -> None:
        out = tmp_path / "wave.mp4"
        result = run("render", avatar_file, "--pose", "wave", "--size", "64x96", "--fps", 10, "--seconds", 1, "-o", out)
        assert result.exit_code == 0, result.output
        assert "10 frames of 64x96 at 10 fps with libx264" in result.stdout
        with av.open(out) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert len(frames) == 10
        assert frames[0].shape == (96, 64, 3)
        np.testing.assert_allclose(frames[0][0, 0], (0xE9, 0xEC, 0xEF), atol=4)
        assert np.abs(frames[0].astype(int) - frames[5]).max() > 40  # it moves

    def test_sheet_of_eight_sides(self, avatar_file: Path, tmp_path: Path) -> None:
        out = tmp_path / "sides.png"
        result = run("render", avatar_file, "--size", 64, "-o", out, "--background", "00ff00")
        assert result.exit_code == 0, result.output
        sheet = np.asarray(Image.open(out))
        assert sheet.shape == (128, 256, 3)
        np.testing.assert_array_equal(sheet[0, 0], [0, 255, 0])
        tiles = sheet.reshape(2, 64, 4, 64, 3).swapaxes(1, 2).reshape(8, 64, 64, 3).astype(int)
        assert min(np.abs(tiles[i] - tiles[j]).mean() for i in range(8) for j in range(i)) > 1

    def test_folder_with_alpha(self, avatar_file: Path, tmp_path: Path) -> None:
        out = tmp_path / "frames"
        result = run("render", avatar_file, "--size", "63x65", "--fps", 4, "--seconds", 1, "-o", out)
        assert result.exit_code == 0, result.output
        pictures = [np.asarray(Image.open(file)) for file in sorted(out.iterdir())]
        assert len(pictures) == 4
        assert pictures[0].shape == (65, 63, 4)
        assert pictures[0][0, 0, 3] == 0
        assert pictures[0][30, 31, 3] > 200

    def test_folder_over_a_colour_is_opaque(self, avatar_file: Path, tmp_path: Path) -> None:
        run(
            "render",
            avatar_file,
            "--size",
            32,
            "--fps",
            2,
            "--seconds",
            1,
            "--background",
            "102030",
            "-o",
            tmp_path / "f",
        )
        picture = np.asarray(Image.open(tmp_path / "f" / "00000.png"))
        assert picture.shape == (32, 32, 3)
        np.testing.assert_array_equal(picture[0, 0], [0x10, 0x20, 0x30])

    @pytest.mark.usefixtures("small_builtin")
    @pytest.mark.parametrize("who", [[], ["--body"], ["builtin"]])
    def test_the_built_in_person_needs_no_file(self, tmp_path: Path, who: list[str]) -> None:
        result = run("render", *who, "--size", 32, "-o", tmp_path / "a.png")
        assert result.exit_code == 0, result.output
        assert Image.open(tmp_path / "a.png").size == (128, 64)

    def test_recorded_motion(self, avatar_file: Path, tmp_path: Path) -> None:
        save_motion(tmp_path / "m.npz", wave(1.0, 20.0))
        result = run(
            "render", avatar_file, "--pose", tmp_path / "m.npz", "--size", 32, "--fps", 10, "-o", tmp_path / "a.mp4"
        )
        assert result.exit_code == 0, result.output
        assert "10 frames" in result.stdout

    @pytest.mark.shared
    @needs_shared
    @pytest.mark.parametrize("name", ["amass_sample.npz", "seq_amass", "seq_wave/smplx_params"])
    def test_real_motion(self, avatar_file: Path, tmp_path: Path, name: str) -> None:
        out = tmp_path / "a.png"
        result = run("render", avatar_file, "--pose", MOTIONS / name, "--size", 64, "--background", "ffffff", "-o", out)
        assert result.exit_code == 0, result.output
        tiles = np.asarray(Image.open(out)).reshape(2, 64, 4, 64, 3).swapaxes(1, 2).reshape(8, 64, 64, 3)
        seen = (tiles < 250).any(axis=-1)
        assert (seen.mean(axis=(1, 2)) > 0.05).all()
        border = np.concatenate([seen[:, 0], seen[:, -1], seen[:, :, 0], seen[:, :, -1]], axis=1)
        assert not border.any()  # the whole person is in every picture

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--size", "63", "-o", "a.mp4"], "odd"),
            (["--size", "0", "-o", "a.mp4"], "not like 512"),
            (["--size", "9000", "-o", "a.png"], "up to 8192"),
            (["--size", "12x", "-o", "a.png"], "not like 512"),
            (["--background", "red", "-o", "a.png"], "six hex digits"),
            (["--framing", "feet", "-o", "a.png"], "feet"),
            (["--fps", "0", "-o", "a.png"], "--fps"),
            (["-o", "a.mov"], ".mov is not written here"),
            (["x.avatar", "--body", "-o", "a.png"], "not both"),
            ([], "--out"),
        ],
    )
    def test_wrong_options_are_explained(self, arguments: list[str], message: str) -> None:
        result = run("render", *arguments)
        assert result.exit_code == 2
        assert message in " ".join(result.stderr.replace("│", " ").split())


class TestErrors:
    def test_one_line_and_exit_code_1(self, tmp_path: Path) -> None:
        result = run("render", tmp_path / "none.avatar", "-o", tmp_path / "a.mp4")
        assert result.exit_code == 1
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
        assert "none.avatar" in result.stderr

    def test_long_or_bracketed_messages_stay_whole(self, avatar_file: Path, tmp_path: Path) -> None:
        pose = "x" * 150 + "[red]"
        result = run("render", avatar_file, "--pose", pose, "-o", tmp_path / "a.mp4")
        assert result.stderr.count("\n") == 1
        assert repr(pose) in result.stderr

    def test_debug_shows_where(self, avatar_file: Path, tmp_path: Path) -> None:
        result = run("--debug", "render", avatar_file, "--pose", "moonwalk", "-o", tmp_path / "a.mp4")
        assert result.exit_code == 1
        assert "moonwalk" in str(result.exception)
        assert result.stderr == ""

    def test_a_ply_is_told_what_to_become(self, tmp_path: Path) -> None:
        result = run("render", "scan.ply", "-o", tmp_path / "a.mp4")
        assert result.exit_code == 1
        assert "lhm-live import-ply scan.ply -o scan.avatar" in result.stderr

    def test_a_folder_in_use_is_left_alone(self, avatar_file: Path, tmp_path: Path) -> None:
        (tmp_path / "precious").write_text("mine")
        result = run("render", avatar_file, "--size", 32, "--fps", 2, "-o", tmp_path)
        assert result.exit_code == 1
        assert [file.name for file in tmp_path.iterdir()] == ["precious"]


@pytest.mark.parametrize(
    ("name", "part", "how", "code"),
    [
        ("film.mp4", ".film.mp4.*.part", signal.SIGINT, 130),
        ("frames", ".frames.*.part", signal.SIGTERM, -signal.SIGTERM),
    ],
)
def test_whoever_stops_it_finds_nothing_left(
    avatar_file: Path, tmp_path: Path, name: str, part: str, how: signal.Signals, code: int
) -> None:
    # a shell that starts the tests in the background leaves SIGINT ignored
    command = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    command += "from streaming.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", command, "render", avatar_file, "--seconds", "60", "-o", tmp_path / name],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(part)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it never began to write"
        time.sleep(0.05)
    process.send_signal(how)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code
    assert stderr.strip().endswith("stopped") or how is signal.SIGTERM
    assert "Traceback" not in stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("small_builtin")
def test_film_writes_a_video_and_a_sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming.render_command._FILM_SIZE", (48, 64))
    result = run("film", "-o", tmp_path / "show.mp4")
    assert result.exit_code == 0, result.output
    assert "show.mp4" in result.stdout
    assert "show.png" in result.stdout
    with av.open(tmp_path / "show.mp4") as container:
        assert container.streams.video[0].frames == 300
    assert Image.open(tmp_path / "show.png").size == (8 * 270, 2 * 360)
    assert run("film", "-o", tmp_path / "show.gif").exit_code == 2


def test_where_nothing_can_be_written_nothing_is_drawn(avatar_file: Path, tmp_path: Path) -> None:
    for out in (tmp_path / "none" / "a.ply", tmp_path / "none" / "a.mp4"):
        command = ("export", avatar_file) if out.suffix == ".ply" else ("render", avatar_file, "-o")
        result = run(*command, out)
        assert (result.exit_code, "there is no folder" in result.stderr) == (2, True), result.output
    result = run("export", avatar_file, "/dev/full/a.ply")
    assert (result.exit_code, "there is no folder /dev/full" in result.stderr) == (2, True)


def test_its_version() -> None:
    assert run("--version").stdout == f"lhm-live {version('lhm-live')}\n"


class TestFiles:
    def test_info(self, avatar_file: Path) -> None:
        result = run("info", avatar_file)
        assert result.exit_code == 0, result.output
        for fact in ("2,000", "builtin-person", "free_body", "55 of 55", "small.avatar"):
            assert fact in result.stdout

    @pytest.mark.usefixtures("small_builtin")
    def test_info_on_the_built_in_person(self) -> None:
        assert "2,000" in run("info", "builtin").stdout

    def test_there_and_back_through_ply(self, avatar: Avatar, avatar_file: Path, tmp_path: Path) -> None:
        ply, back = tmp_path / "a.ply", tmp_path / "b.avatar"
        assert run("export", avatar_file, ply).exit_code == 0
        assert "2,000" in run("info", ply).stdout
        result = run("import-ply", ply, "-o", back, "--licence", "CC-BY-4.0")
        assert result.exit_code == 0, result.output
        again = load_avatar(back)
        assert again.metadata.licence == "CC-BY-4.0"
        assert again.metadata.body_model == avatar.metadata.body_model
        np.testing.assert_allclose(again.gaussians.means, avatar.gaussians.means, atol=1e-5)
        assert run("render", back, "--pose", "wave", "--size", 32, "-o", tmp_path / "a.png").exit_code == 0

    def test_export_in_a_pose(self, avatar: Avatar, avatar_file: Path, tmp_path: Path) -> None:
        save_motion(tmp_path / "m.npz", wave(4.0, 10.0))
        spans = {}
        for name, options in {
            "tpose": [],
            "relaxed": ["--pose", "relaxed"],
            "wave": ["--pose", tmp_path / "m.npz", "--frame", 20],
        }.items():
            result = run("export", avatar_file, tmp_path / f"{name}.ply", *options)
            assert result.exit_code == 0, result.output
            means = import_ply(tmp_path / f"{name}.ply").means
            assert len(means) == len(avatar)
            spans[name] = np.ptp(means[:, 0])
        assert spans["tpose"] > 1.5
        assert spans["relaxed"] < 0.8
        assert spans["relaxed"] < spans["wave"] < spans["tpose"]

    @pytest.mark.parametrize(
        ("options", "code", "message"),
        [
            (["--pose", "m.npz", "--frame", "40"], 1, "frames 0 to 39"),
            (["--pose", "crouch"], 1, "neither tpose nor relaxed"),
            (["--frame", "-1"], 2, "--frame"),
        ],
    )
    def test_export_faults(
        self,
        avatar_file: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        options: list[str],
        code: int,
        message: str,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        save_motion(Path("m.npz"), wave(4.0, 10.0))
        result = run("export", avatar_file, "a.ply", *options)
        assert result.exit_code == code
        assert message in result.stderr
        assert not Path("a.ply").exists()

    def test_endings_are_checked(self, avatar_file: Path, tmp_path: Path) -> None:
        assert run("export", avatar_file, tmp_path / "a.obj").exit_code == 2
        assert run("import-ply", tmp_path / "a.ply", "-o", tmp_path / "a.npz").exit_code == 2


class TestDoctor:
    def test_healthy(self) -> None:
        result = run("doctor")
        assert result.exit_code == 0, result.output
        assert "rasterizer kernel" in result.stdout
        assert "Avatars can be drawn" in result.stdout

    def test_ill(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            "streaming.doctor_command.examine", lambda: [Finding("kernel", "broken", "install [g++] please")]
        )
        result = run("doctor")
        assert result.exit_code == 1
        assert "install [g++] please" in result.stdout
        assert "broken" in result.stdout


@pytest.mark.parametrize("command", [name for name in cli.COMMANDS if name != "bench"])
def test_help_has_examples_and_is_what_the_list_says(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"lhm-live {command}" in result.stdout.partition("Example")[2]
    assert cli.COMMANDS[command].says == cli.load(command).help.partition("\n")[0].strip()


def test_every_benchmark_teaches() -> None:
    listed = run("bench", "--help").stdout
    for name in cli.load("bench").commands:
        assert name in listed
        assert f"lhm-live bench {name}" in run("bench", name, "--help").stdout.partition("Example")[2]


def test_help_imports_neither_server_nor_models() -> None:
    """They take a second; whoever asks for help should not wait."""
    program = (
        "import sys\nfrom typer.testing import CliRunner\nfrom streaming import cli\n"
        "assert 'reconstruct' in CliRunner().invoke(cli.app, ['--help']).stdout\n"
        "assert CliRunner().invoke(cli.app, ['serve', '--help']).exit_code == 0\n"
        "heavy = ('aiortc', 'av', 'fastapi', 'uvicorn', 'mediapipe', 'cv2', 'scipy')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert answer.stdout.strip() == "[]"


def test_an_unknown_command_is_told_the_nearest() -> None:
    result = run("rendre")
    assert result.exit_code == 2
    assert "render" in result.stderr


def test_without_a_command_help_is_shown() -> None:
    assert "Usage" in run().output
