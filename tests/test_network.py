"""utils/fusing/network.py: what a deciding network is given of its scenes, and what is made of its answer."""

import numpy as np
import pytest

from utils.errors import UserError
from utils.fusing.blend import develop
from utils.fusing.colour import stops_for
from utils.fusing.network import DecidingNetwork
from utils.pictures.pixels import luma, shrink, to_float
from utils.stack.response import fit_response


class Slope(DecidingNetwork):
    """Decides that the picture gets brighter from left to right and from top to bottom, and keeps what it has seen."""

    def __init__(self, exposures=5, decision_pixels=3000, most=0.8):
        self.exposures, self.decision_pixels, self.most, self.seen = exposures, decision_pixels, most, None

    def decide(self, exposures):
        self.seen = exposures
        height, width = exposures.shape[1:]
        y = np.add.outer(np.linspace(0.1, 0.3, height), np.linspace(0, self.most - 0.3, width)).astype(np.float32)
        return y, np.full(exposures.shape, 1 / len(exposures), np.float32)


def test_a_small_copy_is_the_luminance_of_the_shrunk_shots_without_alpha(stack):
    shots = stack(2, (90, 120, 4), np.uint16)
    colours = [np.ascontiguousarray(shot[..., :3]) for shot in shots]
    for scenes, pixels in ((1, 3000), (15, 3000), (16, 3000), (17, 2823), (40, 1200), (160, 300)):  # 16 together
        copy = Slope().small_copy(shots, [0, 3], scenes)
        small = [to_float(shrink(shot, pixels=pixels)) for shot in colours]
        assert copy.response == fit_response(colours, [0, 3])
        np.testing.assert_array_equal(copy.shots, [luma(shot) for shot in small])
        np.testing.assert_array_equal(copy.radiance, copy.response.merge(small))


@pytest.mark.parametrize("side, pixels", [(90, 100), (100, 312), (110, 378), (113, 399), (120, 400), (300, 400)])
def test_large_pictures_are_decided_on_larger_copies(side, pixels):
    """One pixel for 32, if that is more than decision_pixels (here 100), up to four times as many."""
    shots = [np.full((side, side), value, np.uint8) for value in (20, 200)]
    network = Slope(decision_pixels=100)
    network.growth = 1 if side == 90 else 4
    copy = network.small_copy(shots)
    assert copy.radiance.shape == shrink(shots[0], pixels=pixels).shape == copy.shots[0].shape


def test_scenes_stand_side_by_side_and_every_second_one_is_mirrored(stack):
    """A lower one is continued downwards; each gets the stops of its own part of the decision, not mirrored."""
    network = Slope()
    scenes = [stack(2, (40, 50, 3)), stack(2, (64, 30)), stack(3, (20, 33, 3)), stack(2, (64, 8, 3))]
    copies = [network.small_copy(scene) for scene in scenes]
    decisions = network.decide_together(copies)
    parts = [copy.response.expose(copy.shots, 5, copy.radiance) for copy in copies]
    for number, part in enumerate(parts):
        columns = part[:, :, ::-1] if number % 2 else part
        parts[number] = columns[:, [min(row, part.shape[1] - 1) for row in range(64)]]
    np.testing.assert_array_equal(network.seen, np.concatenate(parts, 2))
    y, left = network.decide(network.seen)[0], 0
    for number, (copy, decision, scene) in enumerate(zip(copies, decisions, scenes, strict=True)):
        height, width = copy.radiance.shape[:2]
        own = y[:height, left : left + width]
        own = own[:, ::-1] if number % 2 else own
        np.testing.assert_array_equal(decision.stops, stops_for(np.array(own), copy.radiance, copy.response))
        assert decision.scene is copy
        expected = develop(scene, copy.response, decision.stops, copy.radiance)
        np.testing.assert_array_equal(decision.develop(scene), expected)
        left += width


def test_a_network_that_sees_the_shots_themselves_needs_as_many_of_each_scene(stack):
    network = Slope(exposures=0)
    two, three = (network.small_copy(stack(count, (30, 40, 3))) for count in (2, 3))
    network.decide_together([two, two])
    np.testing.assert_array_equal(network.seen[:, :, :40], two.shots)
    with pytest.raises(UserError, match="one number of shots"):
        network.decide_together([two, three])


@pytest.mark.parametrize("most, fine", [(9.99, True), (10.0, False)])
def test_no_luminance_is_ten_times_white(stack, most, fine):
    shots = stack(2, (30, 40, 3))
    if fine:
        assert Slope(most=most).fuse(shots).shape == (30, 40, 3)
        return
    with pytest.raises(UserError, match="no luminance: its file of weights is damaged"):
        Slope(most=most).fuse(shots)
