"""Draw lhm_runtime/assets/demo_person.png: the photo of a person who does not exist, to reconstruct in the demo."""

from pathlib import Path

from PIL import Image

from streaming.bench.synthetic_people import make_person

DEMO_PERSON = 11
GAUSSIANS = 160_000
"""More than an avatar usually has: it stands for a photo."""

if __name__ == "__main__":
    out = Path(__file__).parents[1] / "lhm_runtime" / "assets" / "demo_person.png"
    Image.fromarray(make_person(DEMO_PERSON, GAUSSIANS).photograph()).save(out, optimize=True)
    print(f"wrote {out}: {out.stat().st_size:,} bytes")
