"""One contract: the kernel's header and contract.py hold the same numbers and names."""

import re
from pathlib import Path

import pytest

from lhm_runtime.rasterizer import contract
from lhm_runtime.rasterizer.cpu import library

HEADER = Path(library.__file__).with_name("contract.h").read_text()


@pytest.mark.parametrize("isa", library.runnable())
def test_the_kernel_was_built_with_these_numbers(isa) -> None:
    built = library.contract(isa)
    assert built["eps2d"] == pytest.approx(contract.EPS2D_PX2, rel=1e-6)
    assert built["near"] == pytest.approx(contract.NEAR_M, rel=1e-6)
    assert built["alpha_min"] == pytest.approx(contract.ALPHA_MIN, rel=1e-6)
    assert built["alpha_max"] == pytest.approx(contract.ALPHA_MAX, rel=1e-6)
    assert built["transmittance_stop"] == pytest.approx(contract.TRANSMITTANCE_STOP, rel=1e-6)
    assert built["fov_margin"] == pytest.approx(contract.FOV_MARGIN, rel=1e-6)


def codes(enum: str) -> dict[str, int]:
    body = re.search(rf"enum class {enum} : int {{(.*?)}};", HEADER, re.DOTALL)
    assert body is not None
    names = re.findall(r"k(\w+) = (\d+)", body[1])
    return {re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=0)(?=[A-Z])", "_", name).lower(): int(code) for name, code in names}


def test_format_and_rule_codes_are_the_header_s() -> None:
    assert codes("PixelFormat") == {name: code for code, name in enumerate(contract.PIXEL_FORMATS)}
    assert codes("StopRule") == {name: code for code, name in enumerate(contract.STOP_RULES)}
