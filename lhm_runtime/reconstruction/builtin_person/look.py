"""What makes one built person look other than the next: shape, colours, and the cut of the clothes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from lhm_runtime.reconstruction.builtin_person.shading import Rgb

_SHAPE = MappingProxyType(
    {"height": -0.75, "weight": -0.95, "gender": 0.9, "muscle": -0.1, "age": -0.8, "proportions": 0.9}
)


@dataclass(frozen=True, slots=True)
class Look:
    """The built-in person's look is the default; other values make other people of the same kind."""

    shape: Mapping[str, float] = field(default_factory=lambda: _SHAPE)
    """Shape coefficients of the body by name."""
    skin_tint: Rgb = (1.0, 1.0, 1.0)
    """Factor on the colours of skin and lips: below 1 darker."""
    hair: Rgb = (0.29, 0.185, 0.13)
    hair_sheen: Rgb = (0.66, 0.47, 0.33)
    hair_growth_m: float = 0.0
    """How much longer the hair is than down to the chin."""
    iris: Rgb = (0.34, 0.47, 0.44)
    shirt: Rgb = (0.20, 0.45, 0.47)
    shirt_seam: Rgb = (0.12, 0.31, 0.33)
    stripe: Rgb = (0.20, 0.45, 0.47)
    """Colour of every other stripe of the shirt."""
    stripe_m: float = 0.0
    """Period of the stripes; 0 for none. Below 0 they are upright."""
    sleeve: float = 0.66
    """Length in upper arms: 1 ends at the elbow, 1.8 at the wrist."""
    looseness: float = 1.0
    """How far the shirt stands off, in times of a T-shirt's."""
    trousers: Rgb = (0.235, 0.275, 0.365)
    trousers_seam: Rgb = (0.15, 0.18, 0.25)
    faded: Rgb = (0.36, 0.41, 0.50)
    """Colour of the worn fronts of the thighs."""
    shoes: Rgb = (0.62, 0.42, 0.29)
    shoe_seam: Rgb = (0.45, 0.29, 0.20)
