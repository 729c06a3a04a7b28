"""utils/pictures/scenes.py and brackets.py: which shots belong together, on cards with real pixels and EXIF."""

import math
import os
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from benchmarks.scenes import count
from tests.cards import CASES, Card, expose, make
from utils.errors import UserError
from utils.pictures.brackets import Shot, find_brackets, in_order, read_shot, same_view, view_of
from utils.pictures.metadata import read_metadata
from utils.pictures.scenes import Scene, _join_damaged, find_scenes, is_finished, read_pairs, with_outputs


@pytest.mark.parametrize("name", CASES)
def test_every_card_is_sorted_right(tmp_path, name):
    card = make(name, tmp_path)
    found = find_scenes(tmp_path, card.shots_per_scene)
    assert count(card, found) == (len(card.brackets), 0, 0), found
    said, used = "".join(found.notes), {path.name for scene in found.scenes for path in scene.paths}
    more = sum(int(copies) for copies in re.findall(r"left out: .*and (\d+) more", said))  # copies without their names
    files = [path for path in tmp_path.rglob("*.*") if not {".Trashes", "@eaDir"} & {*path.parts}]
    unsaid = [path for path in files if path.suffix != ".NEF" and path.name not in used and path.name not in said]
    assert len(unsaid) <= more or "pictures without EXIF" in said, unsaid  # such folders are named as a whole


def test_90_shots_are_30_scenes(tmp_path):
    make("90 shots of 30 brackets, unmarked", tmp_path)
    scenes, notes, errors = find_scenes(tmp_path)
    assert len(scenes) == 30 and {len(scene.paths) for scene in scenes} == {3} and not (notes or errors)


@pytest.mark.parametrize(
    "name, expected",
    [
        (
            "Two metered singles of one view",
            r"kept apart: DSC_0001.JPG, DSC_0002.JPG: the camera metered each shot anew",
        ),
        (
            "The same up to 50 s between",
            r"kept apart: .*DSC_0006.JPG: one view and several exposures, but a pause of 5",
        ),
        ("A bracket set by hand", "one scene in spite of a pause of 4"),
        ("A shot of a bracket is nearly black", "too dark or too bright to compare in part, but the exposures fit"),
        (
            "The EXIF of the third shot is lost",
            "DSC_0003.JPG: has no EXIF capture time, but shows the same as DSC_0001",
        ),
        ("A folder without EXIF of unrelated", "4 pictures without EXIF capture times, which show different things"),
        ("Without EXIF, three shots per scene are asked for, and", "kept apart: DSC_0004.JPG: the next 2 shots do not"),
        ("The same shots in two folders", "left out: DSC_0001.JPG is the same shot as .*, and 2 more"),
        ("A bracket with the picture that was fused", r"left out: DSC_.* is the same shot as .*, and 1 more"),
        ("The same, but one of the three", "kept apart: DSC_0003.JPG: next to it is only a shot of another view$"),
        (
            "A burst of twelve",
            "kept apart: DSC_0001.JPG, .*, DSC_0012.JPG: next to it is only a shot of the same exposure$",
        ),
        (
            "Two singles of one view with different zoom",
            "kept apart: .*: next to it is only a shot of another focal length and flash",
        ),
        (
            "Two singles of one view with different zoom",
            "DSC_0001.JPG: next to it is only a shot of another focal length$",
        ),
        (
            "A bracket and a single of something else 5 s later, marked",
            "0004.JPG: .* only a shot of another exposure mode",
        ),
        (
            "A bracket, then a single of the same view and",
            "DSC_0004.JPG: next to it is only a bracket that it does not",
        ),
    ],
)
def test_what_a_person_may_doubt_is_one_line(tmp_path, name, expected):
    name = next(one for one in CASES if one.startswith(name))
    notes = find_scenes(tmp_path, make(name, tmp_path).shots_per_scene).notes
    assert any(re.search(expected, note) for note in notes), notes


def test_three_heics_of_a_phone_are_one_scene(tmp_path):
    heif = pytest.importorskip("pillow_heif", reason="needs pillow-heif")
    make(next(one for one in CASES if one.startswith("A phone's shots in their own folder")), tmp_path / "jpg")
    for path in (tmp_path / "jpg").rglob("*.JPG"):
        with Image.open(path) as shot:
            heif.from_pillow(shot).save(tmp_path / f"{path.stem}.HEIC", exif=shot.info["exif"], quality=90)
        path.unlink()
    [scene], notes, _ = find_scenes(tmp_path)
    assert [path.name for path in scene.paths] == ["DSC_0001.HEIC", "DSC_0002.HEIC", "DSC_0003.HEIC"]
    assert "the exposures fit" in notes[0]


def test_a_damaged_shot_joins_the_scene_that_lacks_it(tmp_path):
    make("A shot of the bracket cannot be read: it must not be fused without", tmp_path)
    scenes = find_scenes(tmp_path).scenes
    assert sorted([path.name for path in scene.paths] for scene in scenes) == [
        ["DSC_0001.JPG", "DSC_0002.JPG", "DSC_0003.JPG"],
        ["DSC_0004.JPG", "DSC_0005.JPG", "DSC_0006.JPG"],
    ]


@pytest.mark.parametrize(
    "files, joined",
    [
        ("aa?a", ["a"]),  # inside of it
        ("?aa", ["a"]),  # the only scene
        ("aa?", ["a"]),
        ("aaa?bbb", [""]),  # both are whole
        ("aabbb?ccc", [""]),
        ("aa?bbb", ["a"]),  # the other has three
        ("aaa?bb", ["b"]),
        ("aa??bbb", ["a", ""]),  # then it is whole
        ("aa?bb?ccc", ["ab", ""]),  # either may lack it
        ("?", [""]),
    ],
)
def test_a_damaged_shot_joins_scenes_beside_it_that_have_fewer_shots_than_most(files, joined):
    paths = [Path(f"{k}{letter}") for k, letter in enumerate(files)]
    damaged = [path for path in paths if "?" in path.name]
    stacks = [[path for path in paths if letter in path.name] for letter in sorted({*files} - {"?"})]
    left = _join_damaged(damaged, paths, stacks)
    assert left == [path for path, names in zip(damaged, joined, strict=True) if not names]
    for stack in stacks:
        assert [path for path in damaged if path in stack] == [
            path for path, names in zip(damaged, joined, strict=True) if stack[0].name[-1] in names
        ]


def test_names_of_scenes(tmp_path):
    make("Folders of scenes inside folders, two of them with two brackets", tmp_path)
    names = sorted(scene.name for scene in find_scenes(tmp_path).scenes)
    assert names == ["DSC_0001_fused", "DSC_0004_fused", "DSC_0007_fused", "DSC_0010_fused", "c"]


def test_a_link_that_leads_back_does_not_go_round(tmp_path):
    Card(tmp_path).bracket("city", marked=True)
    os.symlink(tmp_path, tmp_path / "DCIM" / "back")
    assert len(find_scenes(tmp_path).scenes) == 1


def test_a_camera_that_notes_nonsense_is_read(tmp_path):
    card = Card(tmp_path)
    path = tmp_path / card.folder / card.shot("city", 1, iso=200, aperture=4, base=1 / 50, mode=2, bias=-1.33)
    shot = read_shot(path, read_metadata(path))
    assert shot.level == pytest.approx(math.log2(2 / 50 * 100 / 64), abs=0.01)
    assert shot.marked and not shot.manual and shot.bias == pytest.approx(-4 / 3)
    bare = tmp_path / card.folder / card.shot("city", exif=False)
    assert math.isnan(read_shot(bare, read_metadata(bare)).level)


def shots(*levels, pause=1.0, **options):
    """Shots of one camera a second apart, with these exposures in stops."""
    return [Shot(Path(f"{k}.jpg"), k * pause, 0.01, level, **options) for k, level in enumerate(levels)]


def sizes(found):
    return [len(group) for group in found[0]]


def test_the_rules_alone():
    def same(a, b):
        return True

    assert sizes(find_brackets(shots(0, -2, 2, 0, -2, 2), same)) == [3, 3]
    assert sizes(find_brackets(shots(0, -2, 2, 0.1), same)) == [3, 1]  # nearly the same exposure again
    assert sizes(find_brackets(shots(0, 0.3, 0.6, 0.9), same)) == [1, 1, 1, 1]  # metering that drifts
    assert sizes(find_brackets(shots(0, 0.3, 0.6, marked=True), same)) == [3]
    assert sizes(find_brackets(shots(0, -2, 2, pause=11), same)) == [1, 1, 1]
    assert sizes(find_brackets(shots(0, -2, 2, pause=11), same, patient=True)) == [3]
    assert sizes(find_brackets(shots(0, -2, 2, pause=11, manual=True), same)) == [3]
    assert sizes(find_brackets(shots(0, -2, 2, pause=200, manual=True), same)) == [1, 1, 1]
    assert sizes(find_brackets(shots(*[math.nan] * 3), same)) == [1, 1, 1]  # unknown exposures are no bracket


def test_a_bracket_in_a_folder_of_its_own_is_one_scene_however_its_exposures_lie():
    """Two pairs of equal steps that have no exposure in common are no repetition; who sorts shots means a scene."""
    far = [
        replace(shot, captured=time, manual=True)
        for shot, time in zip(shots(-8, -6, 3, 5), (0, 12, 76, 95), strict=True)
    ]
    assert sizes(find_brackets(far, lambda a, b: True)) == [4]
    assert sizes(find_brackets(far, lambda a, b: None)) == [1, 1, 1, 1]
    assert sizes(find_brackets(far, lambda a, b: None, patient=True)) == [4]
    again = [replace(shot, level=level) for shot, level in zip(far, (0, 2, 0.5, 2.5), strict=True)]
    assert sizes(find_brackets(again, lambda a, b: True)) == [2, 2]


def test_where_the_pictures_cannot_tell_only_even_steps_and_marks_count():
    def unknown(a, b):
        return None

    assert sizes(find_brackets(shots(0, -2, 2), unknown)) == [3]
    assert sizes(find_brackets(shots(0, -2, 3), unknown)) == [1, 1, 1]
    assert sizes(find_brackets(shots(0, -2), unknown)) == [1, 1]
    assert sizes(find_brackets(shots(0, -2, 3, marked=True), unknown)) == [3]


def test_order_by_number_within_a_second():
    names = ["DSC_9998", "DSC_9999", "DSC_0001", "DSC_0002"]
    mixed = [Shot(Path(f"{name}.JPG"), 5) for name in sorted(names)] + [Shot(Path("x.JPG"), 4)]
    assert [shot.path.stem for shot in in_order(mixed)] == ["x", *names]


def looks(*arguments, **options):
    return view_of(cv2.cvtColor(expose(*arguments, **options), cv2.COLOR_RGB2BGR))


@pytest.mark.parametrize("scene", ["city", "courtyard", "forest", "interior", "sunrise", "sunset"])
def test_one_view_at_two_exposures_is_known_and_another_is_not(scene):
    dark, bright = looks(scene, -1.5), looks(scene, 1, seed=1)
    assert same_view(dark, bright, 2.5) and same_view(bright, dark, -2.5)
    moved = looks(scene, 1, view=(0.06, -0.04, 1, 0.5), seed=1)
    assert same_view(dark, moved, 2.5)
    assert not same_view(dark, looks(scene, 1, view=(0.3, 0, 1, 0)), 2.5)  # moved by more than a hand
    for other in {"city", "courtyard", "forest", "interior", "sunrise", "sunset"} - {scene}:
        assert not same_view(dark, looks(other, 1), 2.5)


def test_the_same_view_in_other_light_is_no_bracket():
    """The camera exposes two stops longer, and the picture is as bright as before."""
    assert not same_view(looks("courtyard", 0), looks("courtyard", 0, seed=1), 2)
    assert same_view(looks("courtyard", 0), looks("courtyard", 0, seed=1))


def test_black_and_white_shots_cannot_tell():
    for level in (0, 255):
        flat = view_of(np.full((120, 160, 3), level, np.uint8))
        assert same_view(flat, looks("city", 0)) is None if flat.light.shape == looks("city", 0).light.shape else True
        assert same_view(flat, flat) is None


def test_16_bits_look_as_8():
    image = expose("city", 0)
    assert same_view(view_of(image), view_of(image.astype(np.uint16) * 257))
    np.testing.assert_allclose(view_of(image).light, view_of(image.astype(np.uint16) * 257).light, atol=1e-4)


def test_a_scene_is_finished_by_a_picture_that_is_not_older_than_its_shots(tmp_path):
    paths = [tmp_path / name for name in ("a.png", "b.png", "out.png")]
    for path in paths:
        cv2.imwrite(str(path), np.zeros((4, 5, 3), np.uint8))
    scene, now = Scene("a", paths[:2], out=paths[2]), os.stat(paths[1]).st_ctime
    for age, finished in ((-1000, False), (1000, True)):
        os.utime(paths[2], (now + age,) * 2)
        assert is_finished(scene) == finished
    os.utime(paths[2], ns=(os.stat(paths[1]).st_ctime_ns,) * 2)
    assert is_finished(scene)
    for path in (paths[2], paths[0]):
        content = path.read_bytes()
        path.write_text("no picture")
        os.utime(paths[2], (now + 9000,) * 2)
        assert not is_finished(scene)
        path.write_bytes(content)
    paths[2].unlink()
    assert not is_finished(scene)


def test_pictures_are_named_by_the_pattern_and_by_the_first_shot(tmp_path):
    scenes = [Scene(name, [Path(f"{name}1.webp"), Path(f"{name}2.png")]) for name in ("a", "A", "b")]
    outs = [scene.out for scene in with_outputs(scenes, tmp_path)]
    assert outs == [tmp_path / name for name in ("a.webp", "A_2.webp", "b.webp")]
    outs = with_outputs(scenes, tmp_path, pattern="{number}-{first}-{last}-{name}")
    assert [scene.out.name for scene in outs] == ["1-a1-a2-a.webp", "2-A1-A2-A.webp", "3-b1-b2-b.webp"]
    assert [scene.out.suffix for scene in with_outputs(scenes, tmp_path, hdr=True)] == [".jpg"] * 3
    assert [scene.out.suffix for scene in with_outputs(scenes, tmp_path, suffix=".avif")] == [".avif"] * 3


def test_a_table_of_pairs_gives_their_scenes_with_all_shots(tmp_path):
    for name in ("2.jpg", "1.jpg", "note.txt", "0.jpg"):
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / "a" / name).touch()
    table = tmp_path / "pairs.csv"
    table.write_text("scene,under,over\na,2.jpg,0.jpg\nb,x.png,y.png\n")
    a, b = tmp_path / "a", tmp_path / "b"
    assert read_pairs(tmp_path, table) == [
        Scene("a", (a / "2.jpg", a / "0.jpg"), (a / "0.jpg", a / "1.jpg", a / "2.jpg")),
        Scene("b", (b / "x.png", b / "y.png"), (b / "x.png", b / "y.png")),  # reading it will say that it is missing
    ]
    table.write_text("scene,under,over\na,2.jpg,0.jpg\nA,2.jpg,1.jpg\n")
    with pytest.raises(UserError, match="one row per scene, got 2 rows for 1 scenes"):
        read_pairs(tmp_path, table)


@pytest.mark.parametrize("name", ["..", ".", "", "/tmp/scene", "../scene", "a/b"])
@pytest.mark.parametrize("column", [0, 1, 2])
def test_a_table_names_folders_and_files_inside_of_its_own(tmp_path, name, column):
    """Results are named after scenes: a path in their place would lead out of the folder of results."""
    row = ["scene", "0.jpg", "1.jpg"]
    row[column] = name
    (tmp_path / "pairs.csv").write_text(f"scene,under,over\n{','.join(row)}\n")
    with pytest.raises(UserError, match="pairs.csv"):
        read_pairs(tmp_path, tmp_path / "pairs.csv")
