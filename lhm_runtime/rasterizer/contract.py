"""The numbers every backend obeys, so that a picture is the same whichever draws it.

`cpu/contract.h` holds the same ones for the kernel; a test compares the two. They are those of 3DGS (Kerbl et al. 2023)
and gsplat 1.5.3, except for the stop rule.
"""

from typing import Literal, get_args

EPS2D_PX2 = 0.3
"""Added to both variances of the projected covariance: no Gaussian is thinner than about half a pixel."""

NEAR_M = 0.01
"""Gaussians whose centre is nearer to the camera, or behind it, are not drawn."""

ALPHA_MIN = 1 / 255
"""Contributions fainter than one step of 8 bits are dropped; this also ends each Gaussian: an opaque one at
sqrt(2 ln 255) = 3.33 standard deviations."""

ALPHA_MAX = 0.999
"""No single Gaussian hides all that is behind it."""

TRANSMITTANCE_STOP = 1e-4
"""What lies behind so little transmittance is not seen."""

FOV_MARGIN = 0.3
"""The projection is linearised no further outside the picture than this share of its half extent: beyond, the affine
approximation of a perspective (EWA, Zwicker et al. 2001) makes Gaussians explode."""

StopRule = Literal["inclusive", "gsplat"]
"""When a pixel is finished. ``gsplat``: before the Gaussian that would take its transmittance to TRANSMITTANCE_STOP or
less, which loses up to a tenth of a colour step there. ``inclusive`` (the default): blend on until all is dark; closer
to the sum that is meant, and faster in blocks of pixels."""

PixelFormat = Literal["rgba", "rgba_premultiplied", "rgb", "i420", "i420_full", "i420_alpha", "float"]
"""What a picture is delivered as, uint8 unless said otherwise; h and w are the camera's.

- ``rgba`` [h, w, 4], straight alpha;
- ``rgba_premultiplied`` [h, w, 4];
- ``rgb`` [h, w, 3], over the background;
- ``i420`` [h*3/2, w], BT.709 limited range, over the background, sizes even;
- ``i420_full``: the same in full range;
- ``i420_alpha`` [h*3, w]: I420 of a picture twice as high. Above, straight colour that fades to the avatar's mean
  colour where nothing is seen (no dark fringes, nothing for a codec to ring at); below, alpha as luma;
- ``float`` [h, w, 4] float32, premultiplied colour and alpha, unclamped.
"""

PIXEL_FORMATS: tuple[PixelFormat, ...] = get_args(PixelFormat)
"""In the order of the kernel's codes."""

STOP_RULES: tuple[StopRule, ...] = get_args(StopRule)
"""In the order of the kernel's codes."""
