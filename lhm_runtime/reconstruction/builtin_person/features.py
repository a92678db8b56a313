"""Eyes, brows, lashes, teeth and nails of the built-in person: too fine to be painted on the skin."""

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from scipy.spatial import cKDTree

from lhm_runtime.body.joints import JOINT_INDEX
from lhm_runtime.reconstruction.builtin_person.figure import Figure
from lhm_runtime.reconstruction.builtin_person.sampling import Patch, Samples, cover, strokes
from lhm_runtime.reconstruction.builtin_person.shading import Rgb, bump, mix, noise, resample, smoothstep
from lhm_runtime.reconstruction.builtin_person.skin import BROW_LOWER, BROW_UPPER, EYE_LOWER, EYE_UPPER

_SCLERA: Rgb = (0.93, 0.915, 0.90)
_IRIS_CORE: Rgb = (0.55, 0.44, 0.26)
_LIMBUS: Rgb = (0.13, 0.17, 0.18)
_PUPIL: Rgb = (0.03, 0.03, 0.035)
_LASH: Rgb = (0.12, 0.08, 0.07)
_TOOTH: Rgb = (0.93, 0.90, 0.85)

_IRIS_RADIUS = 0.0064
_PUPIL_RADIUS = 0.0026
_EYE_INSET = 0.0023
"""The closed lids pass this near under the surface of the body model's eyeball."""


def make_eyes(figure: Figure, count: int) -> list[Patch]:
    """``count`` Gaussians on the fronts of the two eyeballs; they turn with the eye joints."""
    return [_eye(figure, "left", count - count // 2), _eye(figure, "right", count // 2)]


def _eye(figure: Figure, side: str, count: int) -> Patch:
    """A sunflower of discs round the gaze (+z), 40 % of them on the iris."""
    joint = JOINT_INDEX[f"{side}_eye_smplhf"]
    ball = figure.body.skin_weights[:, joint] > 0.9
    points = figure.vertices[ball]
    # sphere through the eyeball's vertices: |p|^2 = 2 p.c + (r^2 - |c|^2) is linear in c and the rest
    solution = np.linalg.lstsq(np.c_[2 * points, np.ones(len(points))], (points**2).sum(axis=1), rcond=None)[0]
    centre, radius = solution[:3], np.sqrt(solution[3] + solution[:3] @ solution[:3]) - _EYE_INSET
    widest = 1.0
    iris = np.arcsin(_IRIS_RADIUS / radius) * 1.1
    k = np.arange(count)
    first = round(0.40 * count)
    share = np.where(k < first, (k + 0.5) / first, (k - first + 0.5) / (count - first))
    low, high = np.where(k < first, 1.0, np.cos(iris)), np.where(k < first, np.cos(iris), np.cos(widest))
    cosine = low + (high - low) * share
    sine = np.sqrt(1 - cosine**2)
    turn = k * 2.399963229728653
    normals = np.stack([sine * np.cos(turn), sine * np.sin(turn), cosine], axis=1)
    area = 2 * np.pi * radius**2 * (low - high) / np.where(k < first, first, count - first)
    samples = Samples(
        points=centre + radius * normals,
        normals=normals,
        triangles=_nearest(figure, np.flatnonzero(ball[figure.faces].all(axis=1)), centre + radius * normals),
        barycentric=np.full((count, 3), 1 / 3),
        spacing=np.sqrt(area),
    )
    return cover(samples, normals, _iris_and_sclera(figure.look.iris, normals, radius), thickness=0.0005)


def _iris_and_sclera(iris_colour: Rgb, normals: Float[np.ndarray, "n 3"], radius: float) -> Float64[np.ndarray, "n 3"]:
    """Colour of an eye that looks along +z, with the lid's shadow and a catch light baked in."""
    off_axis = radius * np.hypot(normals[:, 0], normals[:, 1])
    angle = np.arctan2(normals[:, 1], normals[:, 0])
    rgb = np.tile(_SCLERA, (len(normals), 1))
    rgb = mix(rgb, (0.80, 0.62, 0.58), 0.5 * smoothstep(0.008, 0.0135, off_axis))
    fibres = noise(np.stack([np.cos(angle) * 9, np.sin(angle) * 9, off_axis * 300], axis=1), 41)
    iris = mix(
        np.tile(iris_colour, (len(normals), 1)) * (1 + 0.16 * fibres)[:, None],
        _IRIS_CORE,
        bump(off_axis - 0.0031, 0.0009) * 0.7,
    )
    iris = iris * (0.92 - 0.28 * smoothstep(-0.004, 0.005, radius * normals[:, 1]))[:, None]
    iris = mix(iris, _LIMBUS, 0.85 * smoothstep(_IRIS_RADIUS - 0.0014, _IRIS_RADIUS - 0.0003, off_axis))
    iris = mix(iris, _PUPIL, smoothstep(_PUPIL_RADIUS + 0.0003, _PUPIL_RADIUS - 0.0003, off_axis))
    share = smoothstep(_IRIS_RADIUS + 0.0003, _IRIS_RADIUS - 0.0003, off_axis)
    rgb = rgb + share[:, None] * (iris - rgb)
    rgb = rgb * (1 - 0.26 * smoothstep(0.0015, 0.006, radius * normals[:, 1]))[:, None]
    glint = np.hypot(radius * normals[:, 0] - 0.0017, radius * normals[:, 1] - 0.0022)
    return mix(rgb, (1.0, 1.0, 1.0), 0.95 * smoothstep(0.0013, 0.0007, glint))


def make_brows_and_lashes(figure: Figure, count: int) -> list[Patch]:
    """``count`` strokes: 56 % brow hairs, the rest along the lids."""
    per_side = [count - count // 2, count // 2]
    patches = []
    for k, n in enumerate(per_side):
        brow, upper = round(0.56 * n), round(0.30 * n)
        patches += [_brow(figure, k, brow), *_lashes(figure, k, upper, n - brow - upper)]
    return patches


def _brow(figure: Figure, k: int, count: int) -> Patch:
    """Short hairs between the two brow lines, rising at the nose and lying flat at the temple."""
    t = (np.arange(count) + 0.5) / count
    across = np.arange(count) * 0.6180339887498949 % 1.0
    # from the nose outwards; one point more than hairs, so that hair k stands between points k and k + 1
    low, high = (resample(figure.landmarks[path[k]][::-1], count + 1) for path in (BROW_LOWER, BROW_UPPER))
    low, high = (low[1:] + low[:-1]) / 2, (high[1:] + high[:-1]) / 2
    middle = (low + high) / 2
    middle[:, 1] += 0.0012 + 0.0026 * smoothstep(0.5, 0.0, t) + 0.0010 * bump(t - 0.62, 0.2)
    width = (0.0050 * smoothstep(-0.05, 0.16, t) * (1 - 0.72 * smoothstep(0.45, 1.02, t)))[:, None]
    rising = (high - low) / np.linalg.norm(high - low, axis=1, keepdims=True)
    points = middle + (across[:, None] - 0.5) * width * rising
    outward = np.gradient(middle, axis=0)
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    lean = (0.95 * smoothstep(0.45, 0.0, t) + 0.25 - 0.75 * across * smoothstep(0.1, 0.5, t))[:, None]
    along = outward + lean * np.array([0, 1.0, 0])
    triangles, points, normals = _on_face(figure, points, 0.0008)
    rgb = np.tile(figure.look.hair, (count, 1)) * (1.25 + 0.25 * noise(points * 900, 42))[:, None]
    scales = (
        np.tile([0.0021, 0.00055, 0.0003], (count, 1)) * np.where(t > 0.85, 0.8, 1.0)[:, None] * np.sqrt(157 / count)
    )
    return strokes(points, along, normals, scales, rgb, opacity=0.62).riding(triangles)


def _lashes(figure: Figure, k: int, upper: int, lower: int) -> list[Patch]:
    """A dark line on the upper lid's edge, heavier towards the temple, and a faint one on the lower lid's."""
    side = ("Right", "Left")[k]
    eye = figure.joint(f"{side.lower()}_eye_smplhf")
    expressions = figure.body.expression_names
    blink = figure.body.expression_directions[:, :, expressions.index(f"eyeBlink{side}")]
    patches = []
    for path, count, width, opacity, lid in (
        (EYE_UPPER[k], upper, 0.00055, 0.92, -1.0),
        (EYE_LOWER[k], lower, 0.00036, 0.35, 1.0),
    ):
        line = resample(_smooth(figure.landmarks[path])[2:-1], count)  # from the temple to the nose
        out = (line - eye) / np.linalg.norm(line - eye, axis=1, keepdims=True)
        points = line + 0.0011 * out - lid * np.array([0, 0.0003, 0])
        # the two lids part in a blink: each line keeps to triangles that go its own way
        goes = (lid * blink[:, 1])[figure.faces].mean(axis=1)
        near = np.linalg.norm(figure.vertices[figure.faces].mean(axis=1) - eye, axis=1) < 0.03
        own = near & ((goes > 0.4 * goes[near].max()) if lid < 0 else (goes > -0.0005))
        triangles = _nearest(figure, np.flatnonzero(own & _outer_face(figure)), points)
        t = np.linspace(0, 1, count)
        step = np.linalg.norm(line[1] - line[0])
        scales = np.stack(
            [
                np.full(count, 0.9 * step),
                width * (1.15 - 0.6 * smoothstep(0.4, 1.0, t)),
                np.full(count, 0.0004),
            ],
            axis=1,
        )
        along = np.gradient(line, axis=0)
        patches.append(strokes(points, along, out, scales, np.tile(_LASH, (count, 1)), opacity).riding(triangles))
    return patches


def _smooth(path: Float[np.ndarray, "k 3"]) -> Float64[np.ndarray, "33 3"]:
    """The path's cubic trend: landmarks scatter by a millimetre, a lid's edge does not."""
    t, fine = np.linspace(-1, 1, len(path)), np.linspace(-1, 1, 33)
    return np.stack([np.polyval(np.polyfit(t, path[:, c], 4), fine) for c in range(3)], axis=1)


def teeth_depth(x: Float[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """How far ahead of the upper lip's edge teeth stand, so far aside, metres: negative, behind it."""
    return -0.0085 - 24.0 * x**2


def make_teeth(figure: Figure, count: int) -> list[Patch]:
    """``count`` Gaussians in two rows behind the lips: the upper rides on the head, the lower on jaw and chin."""
    marks = figure.landmarks
    lip, chin = marks[13], marks[152]
    patches = []
    for n, name, direction in ((count - count // 2, "head", 1.0), (count // 2, "jaw", -1.0)):
        width, depth = (0.035, 0.0100) if name == "head" else (0.028, 0.0060)
        columns = max(n // 3, 2)
        k = np.arange(n)
        x = ((k % columns + 0.5) / columns - 0.5) * width
        row = (k // columns + 0.5) / np.ceil(n / columns)
        edge = lip[1] - (0.0080 if name == "head" else 0.0065)
        points = np.stack([x, edge + direction * depth * row, lip[2] + teeth_depth(x)], axis=1)
        normals = np.stack([48.0 * x, np.zeros(n), np.ones(n)], axis=1)
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        gap = bump(np.abs(((x / 0.0068) + 0.5) % 1.0 - 0.5) - 0.5, 0.10)
        shade = 0.94 - 0.20 * gap - 0.45 * smoothstep(0.009, 0.019, np.abs(x)) - 0.12 * row
        across = np.full(n, 0.62 * width / columns)
        scales = np.stack([across, np.full(n, 0.0019), np.full(n, 0.0008)], axis=1)
        rgb = np.array(_TOOTH) * shade[:, None]
        patch = strokes(points, np.cross([0.0, 1, 0], normals), normals, scales, rgb, 0.95)
        carriers = _nearest(figure, np.arange(len(figure.faces)), np.tile(chin, (n, 1)))
        patches.append(patch.riding(carriers, JOINT_INDEX[name], expressive=name == "jaw"))
    return patches


def make_nails(figure: Figure) -> Patch:
    """One flat Gaussian on each of the ten fingertips."""
    points, along, normals, scales, triangles = [], [], [], [], []
    for side in ("left", "right"):
        for finger in ("thumb", "index", "middle", "ring", "pinky"):
            joint = figure.joint(f"{side}_{finger}3")
            own = np.flatnonzero(figure.weight_of(f"{side}_{finger}3") > 0.5)
            reach = figure.vertices[own] - joint
            tip = reach[np.argmax(np.linalg.norm(reach, axis=1))]
            length = np.linalg.norm(tip)
            direction = tip / length
            back = np.array([0, 1.0, 0.55 if finger == "thumb" else 0.0])
            back -= direction * (direction @ back)
            back /= np.linalg.norm(back)
            target = joint + tip - direction * 0.0065 + 0.02 * back
            face = _nearest(figure, np.flatnonzero(np.isin(figure.faces, own).all(axis=1)), target[None])[0]
            centre = figure.vertices[figure.faces[face]].mean(axis=0)
            normal = figure.normals[figure.faces[face]].mean(axis=0)
            points.append(centre + 0.0012 * normal)
            along.append(direction)
            normals.append(normal / np.linalg.norm(normal))
            size = 1.2 if finger == "thumb" else 0.85 if finger == "pinky" else 1.0
            scales.append(size * np.array([0.0037, 0.0027, 0.0004]))
            triangles.append(face)
    rgb = np.tile((0.97, 0.80, 0.76), (len(points), 1))
    patch = strokes(np.array(points), np.array(along), np.array(normals), np.array(scales), rgb, 0.9)
    return patch.riding(np.array(triangles))


def _on_face(
    figure: Figure, points: Float[np.ndarray, "n 3"], height: float
) -> tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, "n 3"], Float64[np.ndarray, "n 3"]]:
    """Nearest triangles of the outer face; the points moved to ``height`` over their planes; their normals."""
    normals = figure.normals[figure.faces].mean(axis=1)
    triangles = _nearest(figure, np.flatnonzero(_outer_face(figure)), points)
    out = normals[triangles] / np.linalg.norm(normals[triangles], axis=1, keepdims=True)
    above = ((points - figure.vertices[figure.faces[triangles]].mean(axis=1)) * out).sum(axis=1, keepdims=True)
    return triangles, points + (height - above) * out, out


def _outer_face(figure: Figure) -> Bool[np.ndarray, " f"]:
    """Triangles on the front of the head that are not the eyeballs'."""
    eyes = figure.weight_of("left_eye_smplhf", "right_eye_smplhf") > 0.5
    centres = figure.vertices[figure.faces].mean(axis=1)
    facing = figure.normals[figure.faces].mean(axis=1)[:, 2] > 0.1
    outer: np.ndarray = (centres[:, 2] > figure.landmarks[152, 2] - 0.07) & facing & ~eyes[figure.faces].any(axis=1)
    return outer


def _nearest(
    figure: Figure, carriers: Int64[np.ndarray, " c"], points: Float[np.ndarray, "n 3"]
) -> Int64[np.ndarray, " n"]:
    """Which of the triangles ``carriers`` has its middle nearest to each point."""
    index = cKDTree(figure.vertices[figure.faces[carriers]].mean(axis=1)).query(points)[1]
    nearest: np.ndarray = carriers[index]
    return nearest
