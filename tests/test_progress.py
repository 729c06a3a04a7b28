"""`listening` hears every part of the work, and its exception ends the work."""

import threading

import pytest

from utils.fusing.fusion import Fuser, read_exposures
from utils.pictures.image import write_image
from utils.progress import counted, listening, step
from utils.stack.align import align_exposures
from utils.stack.ghost import remove_ghosts


class Cancelled(Exception):
    pass


def test_every_part_is_heard_before_it_is_done():
    heard, made = [], []
    with listening(lambda *said: heard.append((*said, len(made)))):
        for part in counted("painting", iter("abc"), 3):
            made.append(part)
    assert heard == [("painting", done, 3, done) for done in range(3)] and made == list("abc")
    step("painting", 0, 1)  # nobody listens any more
    assert len(heard) == 3


def test_another_thread_is_not_heard():
    heard = []
    with listening(lambda *said: heard.append(said)):
        other = threading.Thread(target=step, args=("reading", 0, 1))
        other.start()
        other.join()
    assert not heard


def test_fusing_files_says_each_of_its_steps(tmp_path, stack, tiny_weights):
    images = stack(4, shape=(400, 500, 3))
    paths = [tmp_path / f"{k}.png" for k in range(4)]
    for path, image in zip(paths, images, strict=True):
        write_image(path, image)
    heard = []
    with listening(lambda *said: heard.append(said)):
        images, *_ = read_exposures(paths, tmp_path / "out.png")
        images, _ = remove_ghosts(align_exposures(images, "mtb"))
        Fuser.from_checkpoint(tiny_weights).fuse(images)
    said = {what: [(done, of) for name, done, of in heard if name == what] for what, *_ in heard}
    assert list(said) == ["reading", "aligning", "looking for what moved", "blending"]
    assert said["reading"] == [(done, 4) for done in range(4)]
    assert said["aligning"] == [(done, 4) for done in range(1, 4)]  # to the middle one
    assert said["looking for what moved"] == [(done, 3) for done in range(3)]
    assert said["blending"] == [(done, len(said["blending"])) for done in range(len(said["blending"]))]


@pytest.mark.parametrize("where", ["aligning", "looking for what moved", "blending"])
def test_a_listeners_exception_ends_the_work(where, stack, tiny_weights):
    def listener(what, done, of):
        if what == where:
            raise Cancelled

    fuser = Fuser.from_checkpoint(tiny_weights)
    with listening(listener), pytest.raises(Cancelled):
        fuser.fuse(remove_ghosts(align_exposures(stack(3), "mtb"))[0])
