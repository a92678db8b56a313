"""Flesh lies inside the person's silhouette, and is only drawn where points are seen."""

import numpy as np
import pytest
from people import DEMO_PERSON
from PIL import Image

from lhm_runtime.motion.person_choice import Body
from lhm_runtime.reconstruction.flesh import draw_flesh
from lhm_runtime.reconstruction.still_models import Person, StillModels


@pytest.fixture(scope="module")
def found() -> tuple[Person, Person]:
    """Someone whole as one look finds them, and as both looks do."""
    pixels = np.asarray(Image.open(DEMO_PERSON).convert("RGB"))
    with StillModels() as models:
        person = models.find_people(pixels)[0]
        return person, models.settle(pixels, person)


def test_it_lies_inside_the_person(found: tuple[Person, Person]) -> None:
    body, inside = found[1].body, found[1].silhouette > 0.5
    flesh = draw_flesh(body, inside.shape)
    assert inside[flesh].mean() > 0.97
    assert flesh[inside].mean() > 0.3


def test_only_what_is_seen_is_drawn(found: tuple[Person, Person]) -> None:
    body, shape = found[1].body, found[1].silhouette.shape
    nobody = Body(body.world, body.image, np.zeros_like(body.visibility))
    assert not draw_flesh(nobody, shape).any()
    head = Body(body.world, body.image, np.where(np.arange(33) < 11, body.visibility, 0).astype(np.float32))
    rows = np.flatnonzero(draw_flesh(head, shape).any(axis=1))
    assert 0.15 < np.ptp(rows) / body.pixels_per_metre < 0.3


def test_what_the_mirrored_look_does_not_see_is_doubted(found: tuple[Person, Person]) -> None:
    once, settled = (person.silhouette for person in found)
    assert (settled <= once).all()
    mirrored = 2 * settled - once  # where it sees less
    np.testing.assert_allclose(mirrored, mirrored.clip(0, 1), atol=1e-6)
    assert 0 < np.abs(mirrored - once).mean() < 0.02
