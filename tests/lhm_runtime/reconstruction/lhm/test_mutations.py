"""The goldens have teeth: each deliberate change to the code, one at a time, breaks one of them.

A change is a piece of source replaced by another: functions run with the changed code, and everything else stays.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

import pytest
from lhm_goldens import (
    PICTURE_TOLERANCE,
    Golden,
    errors,
    record_animation,
    record_network,
    record_pictures,
    wrong,
)

from lhm_runtime.reconstruction.lhm import (
    animation,
    decoder,
    dinov2,
    network,
    points,
    preprocessing,
    transformer,
)

NETWORK = [
    (network, "body_person, head_person =", "head_person, body_person =", "halves of the global token"),
    (network, "body_features.mean(dim=1)", "body_features.amax(dim=1)", "mean of the body features"),
    (points, "[phase.sin(), phase.cos(), points]", "[phase.cos(), phase.sin(), points]", "sines before cosines"),
    (points, "points @ self.basis", "2 * points @ self.basis", "frequencies"),
    (transformer, "(1 + image_ff_gate)", "image_ff_gate", "double residual"),
    (transformer, "image_scale, image_shift =", "image_shift, image_scale =", "scale first in the last layer"),
    (transformer, "shift, scale, gate, ff_shift", "scale, shift, gate, ff_shift", "shift first elsewhere"),
    (transformer, 'approximate="tanh"', 'approximate="none"', "tanh GELU"),
    (transformer, "(image), self.norm_added_k)", "(image), self.norm_k)", "norm of image keys"),
    (transformer, "self.to_q(points), self.norm_q", "self.to_q(points)", "norm of queries"),
    (transformer, "head_dit(points[:, first_head:]", "head_dit(points[:, : -first_head]", "head points last"),
    (transformer, "body_image, body_person)\n", "body_image, head_person)\n", "token of the body"),
    (transformer, "[:, :first_head], head_points]", "[:, :first_head], points[:, first_head:]]", "head block"),
    (transformer, "normalised, 1 + scale", "normalised, scale", "1 + scale"),
    (transformer, "(head_features, (0, padding))", "(head_features, (padding, 0))", "zeros after features"),
    (dinov2, "yield normalise(self.norm, tokens)", "yield tokens", "normalised taps"),
    (dinov2, "gelu(self.fc1(tokens))", 'gelu(self.fc1(tokens), approximate="tanh")', "exact GELU"),
    (dinov2, "antialias=True", "antialias=False", "smoothed positions"),
    (dinov2, "[tokens[:, :1], registers,", "[registers, tokens[:, :1],", "class token first"),
    (dinov2, "self.ls1(self.attn(normalise(self.norm1, tokens)))", "self.attn(tokens)", "first norm and scale"),
    (decoder, 'raw["shs"].sigmoid()', '0.5 + 0.28209479 * raw["shs"]', "colours, no harmonics"),
    (decoder, "scales.clamp(max=UPPER_BODY_SCALE_LIMIT_M)", "scales", "small upper bodies"),
    (decoder, 'raw["xyz"].sigmoid() - 0.5', 'raw["xyz"].tanh()', "sigmoid offsets"),
]
ANIMATION = [
    (
        animation,
        "rig.skin_weights.astype(np.float64) @",
        "(rig.skin_weights + rig.skin_weights[::-1]).astype(np.float64) / 2 @",
        "weights not diffused",
    ),
    (animation, "still = rig.is_constrained", "still = ~rig.is_constrained", "points that never rotate"),
    (animation, "expressed) + _shape_offset(rig, betas))", "expressed + _shape_offset(rig, betas)))", "shape"),
    (animation, "_move(closing, expressed)", "expressed", "legs closed"),
    (animation, "posing[:, :, :3] @ closing[:, :, :3]", "closing[:, :, :3] @ posing[:, :, :3]", "order of turns"),
    (
        animation,
        "(rigid, canonical.quat_wxyz.astype(np.float64))",
        "(canonical.quat_wxyz.astype(np.float64), rigid)",
        "order of quaternions",
    ),
    (animation, "np.where(turned[:, :1] < 0, -turned, turned)", "turned", "positive w"),
    (animation, '"left_hip"], 2] = HIP_TURN_RAD', '"left_hip"], 2] = -HIP_TURN_RAD', "legs apart"),
    (animation, "joint_matrices(pose, body.rest_joints(betas))", "joint_matrices(pose, body.rest_joints())", "joints"),
]
PICTURES = [
    (preprocessing, "value=1.0)", "value=0.0)", "white squares"),
    (preprocessing, "image = _blur(image, longest / size)", "pass", "smoothing before shrinking"),
    (preprocessing, "align_corners=True", "align_corners=False", "corners"),
    (preprocessing, "- mean) / std", "- mean)", "deviation"),
    (preprocessing, "(high - low) * _BODY_MARGIN", "(high - low + 1) * _BODY_MARGIN", "width of boxes"),
    (
        preprocessing,
        "int(width * ASPECT - height), 0), 0,",
        "0, 0), int(width * ASPECT - height),",
        "air above the wide",
    ),
    (preprocessing, "np.where(person[:, :, None], rgb", "np.where(mask[:, :, None] >= 0, rgb", "on white"),
    (preprocessing, "= height // 2, width // 2", "= height // 2, width // 2 + 1", "centre"),
]

Mutation = tuple[ModuleType, str, str, str]


@pytest.mark.parametrize("mutation", NETWORK, ids=lambda mutation: mutation[3])
def test_a_change_of_the_network_is_noticed(
    mutation: Mutation, compact: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = compact.expected("mid.") | compact.expected("out.gs.")
    _expect_trouble(mutation, monkeypatch, lambda: errors(compact, record_network(compact), expected))


@pytest.mark.parametrize("mutation", ANIMATION, ids=lambda mutation: mutation[3])
def test_a_change_of_the_animation_is_noticed(
    mutation: Mutation, compact: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {name: array for name, array in compact.expected("out.").items() if not name.startswith("out.gs.")}
    _expect_trouble(mutation, monkeypatch, lambda: errors(compact, record_animation(compact), expected))


@pytest.mark.parametrize("mutation", PICTURES, ids=lambda mutation: mutation[3])
def test_a_change_of_the_preprocessing_is_noticed(
    mutation: Mutation, compact: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {name: array for name, array in compact.pictures.items() if re.search(r"s\d+$", name)}
    _expect_trouble(
        mutation, monkeypatch, lambda: errors(compact, record_pictures(compact), expected, PICTURE_TOLERANCE)
    )


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        (transformer, "FEED_FORWARD_ROWS", 97),
        (transformer, "FEED_FORWARD_ROWS", 1 << 30),
    ],
)
def test_portions_change_nothing(
    module: ModuleType, name: str, value: int, compact: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, value)
    expected = compact.expected("mid.") | compact.expected("out.gs.")
    assert not wrong(errors(compact, record_network(compact), expected))


def _expect_trouble(
    mutation: Mutation, monkeypatch: pytest.MonkeyPatch, compare: Callable[[], Mapping[str, float]]
) -> None:
    module, old, new, _ = mutation
    path = Path(inspect.getfile(module))
    source = path.read_text()
    assert source.count(old) == 1, f"{old!r} is {source.count(old)} times in {path.name}"
    codes = dict(_functions(compile(source.replace(old, new), str(path), "exec")))
    for function in _live_functions(module):
        monkeypatch.setattr(function, "__code__", codes[function.__qualname__])
    assert wrong(compare())


def _functions(code: CodeType) -> Iterator[tuple[str, CodeType]]:
    """All code in compiled source, by qualified name."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant.co_qualname, constant
            yield from _functions(constant)


def _live_functions(module: ModuleType) -> Iterator[FunctionType]:
    """Functions and methods of a module, below what type checking wraps around them."""
    classes = [
        value for value in vars(module).values() if inspect.isclass(value) and value.__module__ == module.__name__
    ]
    for owner in (module, *classes):
        for value in vars(owner).values():
            function = inspect.unwrap(value) if callable(value) and not inspect.isclass(value) else value
            if isinstance(function, FunctionType) and function.__code__.co_filename == inspect.getfile(module):
                yield function
