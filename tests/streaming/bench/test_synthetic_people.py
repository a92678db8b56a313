"""Synthetic people are reproducible, different, wholly in their photo, and found by what looks for people."""

import numpy as np
import pytest

from lhm_runtime.reconstruction.photo import see_person
from lhm_runtime.reconstruction.still_models import StillModels
from streaming.bench.synthetic_people import PHOTO_SIZE, SyntheticPerson, make_person

COUNT = 10_000


@pytest.fixture(scope="module")
def people() -> list[SyntheticPerson]:
    return [make_person(seed, COUNT) for seed in range(3)]


def test_a_number_is_a_person(people: list[SyntheticPerson]) -> None:
    again = make_person(1, COUNT)
    np.testing.assert_array_equal(again.photograph(), people[1].photograph())
    assert np.abs(people[0].photograph().astype(int) - people[1].photograph()).mean() > 3


def test_they_differ_in_shape_and_stance(people: list[SyntheticPerson]) -> None:
    for a, b in ((0, 1), (1, 2)):
        assert np.abs(people[a].avatar.rest_joints - people[b].avatar.rest_joints).max() > 0.01
        assert np.abs(people[a].pose.rotvec - people[b].pose.rotvec).max() > 0.05


def test_they_are_wholly_in_the_picture(people: list[SyntheticPerson]) -> None:
    for person in people:
        alpha = person.draw(person.camera)[:, :, 3]
        assert alpha.shape == PHOTO_SIZE[::-1]
        assert max(alpha[0].max(), alpha[-1].max(), alpha[:, 0].max(), alpha[:, -1].max()) == 0
        assert np.ptp(np.flatnonzero((alpha > 0.5).any(axis=1))) > 0.7 * PHOTO_SIZE[1]


def test_they_are_found_and_cut_out(people: list[SyntheticPerson]) -> None:
    with StillModels() as models:
        for person in people:
            photo = see_person(person.photograph(), models=models)
            truth = person.draw(person.camera)[:, :, 3]
            assert photo.shot == "full"
            assert np.abs(photo.alpha - truth).sum() / truth.sum() < 0.08
