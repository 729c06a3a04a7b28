"""run_infer.py and utils/pictures/scenes.py: pairs, folders, brackets, and every refusal in one line."""

import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from tqdm import tqdm

from configs import SAMPLE, get_infer_args
from run_infer import main, place_among_processes
from tests.cards import Card, expose
from utils.errors import UserError, exit_on_error
from utils.fusing.fusion import Fuser
from utils.fusing.tiles import SmallDecision
from utils.pictures.image import read_image, read_photo, write_image
from utils.pictures.scenes import Scene, with_outputs

ROOT = Path(__file__).parents[1]


@pytest.fixture
def weights(tiny_weights):
    return tiny_weights


def photo(path, value, second=None, exposure_time=None, shape=(20, 30, 3)):
    """Writes a picture of about this value, with EXIF capture data if given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if second is not None:
        shot = exif.get_ifd(0x8769)
        shot[33434], shot[36867] = exposure_time, f"2024:05:06 07:{second // 60:02}:{second % 60:02}"
        shot[0xA402] = 2  # automatic bracket
    pixels = np.random.default_rng(value).integers(value - 20, value + 20, shape).astype(np.uint8)
    Image.fromarray(pixels).save(path, exif=exif)
    return path


def run(*arguments):
    """Runs the script as from the command line."""
    with exit_on_error():
        main(get_infer_args(list(map(str, arguments))))


def refused(capsys, *arguments):
    """Returns the error line of a run that must fail."""
    with pytest.raises(SystemExit) as raised:
        run(*arguments)
    assert raised.value.code == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return lines[-1]


def test_a_pair_is_fused_in_any_order_and_the_place_is_said(tmp_path, weights, capsys):
    a, b = photo(tmp_path / "a.png", 60), photo(tmp_path / "b.png", 190)
    for name, pair in (("ab", (a, b)), ("ba", (b, a))):
        run(*pair, "-o", tmp_path / f"new/{name}.png", "--weights", weights, "--device", "cpu")
        assert str(tmp_path / f"new/{name}.png") in capsys.readouterr().out
    fused = read_image(tmp_path / "new/ab.png")
    np.testing.assert_array_equal(fused, read_image(tmp_path / "new/ba.png"))
    np.testing.assert_array_equal(fused, Fuser.from_checkpoint(weights).fuse([read_image(a), read_image(b)]))


def test_the_sample_is_the_default_and_is_there():
    args = get_infer_args([])
    assert len(args.images) == 2 and all(Path(path).is_file() for path in args.images)
    assert args.output == "data_result/pair/fused_image.png"


def test_the_command_line_itself(tmp_path, weights):
    command = [sys.executable, ROOT / "run_infer.py", "--weights", weights, "--device", "cpu", "-o"]
    done = subprocess.run([*command, tmp_path / "out.png"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "out.png" in done.stdout and (tmp_path / "out.png").is_file()
    done = subprocess.run([*command, "out.png", "no.jpg", "no.jpg"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == "error: no.jpg: no such file\n"


def test_the_reference_that_was_taken_is_said(tmp_path, weights, capsys, stack):
    shots = [str(tmp_path / f"{number}.png") for number in range(2)]
    for path, image in zip(shots, stack(2), strict=True):
        cv2.imwrite(path, image)
    for options, expected in (
        ([], r"out\.png$"),
        (["--deghost"], r"as in .*[01]\.png\)$"),
        (["--deghost", "--reference", "1.png"], r"as in .*1\.png\)$"),
    ):
        run(*shots, "-o", tmp_path / "out.png", "--weights", weights, *options)
        assert re.search(expected, capsys.readouterr().out.strip())


def test_bad_input_is_one_line_and_loses_nothing(tmp_path, weights, capsys):
    a, b = photo(tmp_path / "a.png", 60), photo(tmp_path / "b.png", 190)
    out = tmp_path / "out.png"
    out.write_text("before")
    (tmp_path / "text.jpg").write_text("words")
    (tmp_path / "half.png").write_bytes(b.read_bytes()[:500])
    small = photo(tmp_path / "small.png", 90, shape=(10, 30, 3))
    (tmp_path / "text.pth").write_text("words")
    (tmp_path / "half.pth").write_bytes(weights.read_bytes()[:3000])
    network = "--weights", weights, "--device", "cpu"
    for arguments, expected in (
        ((a, tmp_path / "none.jpg", *network), "none.jpg: no such file"),
        ((a, tmp_path / "text.jpg", *network), "text.jpg: damaged, or not a picture"),
        ((a, tmp_path / "half.png", *network), "half.png: damaged"),
        ((a, tmp_path, *network), f"{tmp_path} is a folder: give its pictures"),
        ((a, small, *network), f"small.png: size 30x10 in colour, but {a} has 30x20 in colour: exposures must agree"),
        ((a, b, tmp_path / "." / "a.png", *network), "a.png is given twice"),
        ((a, *network), "two or more exposures"),
        ((a, b, "--weights", tmp_path / "none.pth"), "none.pth"),
        ((a, b, "--weights", tmp_path / "text.pth"), "text.pth"),
        ((a, b, "--weights", tmp_path / "half.pth"), "half.pth"),
        ((a, b, "--weights", weights, "--model", "DeepFuse_bn"), "DeepFuse_bn"),
        ((a, b, "--weights", weights, "--device", "abacus"), "abacus"),
        ((a, b, *network, "--metadata_from", tmp_path / "none.jpg"), "none.jpg: no such file"),
        ((a, b, *network, "--align", "homography"), "cannot be aligned"),
    ):
        assert expected in refused(capsys, *arguments, "-o", out), arguments
    assert "overwritten" in refused(capsys, a, b, "-o", b, *network)
    assert "suffix" in refused(capsys, a, b, "-o", tmp_path / "out.gif", *network)
    if not torch.cuda.is_available():
        assert "cuda" in refused(capsys, a, b, "-o", out, "--weights", weights, "--device", "cuda").lower()
    assert out.read_text() == "before"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        ["a.png", "b.png", "out.png", "text.jpg", "half.png", "small.png", "text.pth", "half.pth"]
    )


def test_a_folder_of_scenes_goes_on_after_a_bad_one(tmp_path, weights, capsys):
    source, target = tmp_path / "in", tmp_path / "out"
    for scene in ("first", "ruined", "single", "third"):
        photo(source / scene / "0.jpg", 60)
        if scene != "single":
            photo(source / scene / "1.jpg", 190)
    (source / "ruined/1.jpg").write_text("words")
    folders = "--input_dir", source, "--output_dir", target
    with pytest.raises(SystemExit):
        run(*folders, "--weights", weights, "--device", "cpu")
    said = capsys.readouterr()
    assert sorted(p.name for p in target.iterdir()) == ["first.jpg", "third.jpg"]
    assert "Fused 2 scenes" in said.out
    assert "error: ruined: " in said.err and "1.jpg: damaged" in said.err and "1 of 3" in said.err
    assert f"kept apart: {source / 'single' / '0.jpg'}: there is no other shot beside it\n" in said.out
    old = (target / "first.jpg").stat().st_mtime_ns
    (target / "third.jpg").unlink()
    (source / "ruined/1.jpg").unlink()
    photo(source / "ruined/1.jpg", 190)
    photo(source / "single/1.jpg", 190)
    run(*folders, "--weights", weights, "--device", "cpu", "--skip_existing")
    assert len(list(target.iterdir())) == 4 and (target / "first.jpg").stat().st_mtime_ns == old
    run(*folders, "--weights", tmp_path / "none.pth", "--skip_existing")  # nothing is left to do: no network is needed
    assert "lies in --input_dir" in refused(capsys, "--input_dir", source, "--output_dir", source / "new")


def test_two_processes_share_a_folder_and_one_reports(tmp_path, weights):
    for i in range(5):
        photo(tmp_path / f"in/scene{i}/0.jpg", 50 + i)
        photo(tmp_path / f"in/scene{i}/1.jpg", 180 + i)
    (tmp_path / "in/scene1/1.jpg").write_text("words")
    photo(tmp_path / "out/scene2.jpg", 90)
    options = ["--input_dir", tmp_path / "in", "--weights", weights, "--device", "cpu", "--skip_existing"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*torchrun, ROOT / "run_infer.py", *options, "--output_dir", tmp_path / "out"],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout == f"Fused 3 scenes, 1 was there already: {tmp_path / 'out'}\n"
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2 and "scene1" in errors[0] and errors[1].startswith("error: 1 of 4 scenes")
    with pytest.raises(SystemExit):
        run(*options, "--output_dir", tmp_path / "alone")
    for name in ("scene0.jpg", "scene3.jpg", "scene4.jpg"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_the_scenes_of_a_folder_are_aligned_and_keep_their_metadata(tmp_path, weights, rng):
    """As each alone would be."""
    texture = cv2.resize(rng.random((40, 40, 3), np.float32), (180, 160))
    for maker in "ab":
        exif = Image.Exif()
        exif[271] = maker
        for k, (y, gain) in enumerate(((0, 0.5), (6, 0.9))):  # hand-held: the second shot is 6 pixels lower
            (tmp_path / "in" / maker).mkdir(parents=True, exist_ok=True)
            shot = Image.fromarray((255 * gain * texture[y : y + 120, y : y + 140]).astype(np.uint8))
            shot.save(tmp_path / "in" / maker / f"{k}.png", exif=exif)
    run("--input_dir", tmp_path / "in", "--output_dir", tmp_path / "out", "--weights", weights, "--align", "--deghost")
    for maker in "ab":
        shots, alone = sorted((tmp_path / "in" / maker).iterdir()), tmp_path / "alone.png"
        Fuser.from_checkpoint(weights).fuse_files(shots, alone, align="mtb", deghost=True)
        fused, metadata = read_photo(tmp_path / "out" / f"{maker}.png")
        np.testing.assert_array_equal(fused, read_image(alone))
        assert metadata.exif[0][271] == maker and fused.shape == (114, 134, 3)


def test_a_folder_goes_on_where_the_network_fails(tmp_path, weights, capsys, monkeypatch):
    """As on a GPU whose memory another program takes for a while."""
    for scene in ("first", "second", "third"):
        pair = photo(tmp_path / "in" / scene / "0.jpg", 60), photo(tmp_path / "in" / scene / "1.jpg", 190)
    decide, full = SmallDecision.decide, torch.cuda.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")
    calls = iter([None, full, None, full])

    def fail(network, exposures):
        if error := next(calls):
            raise error
        return decide(network, exposures)

    monkeypatch.setattr(SmallDecision, "decide", fail)
    folders = "--input_dir", tmp_path / "in", "--output_dir", tmp_path / "out"
    with pytest.raises(SystemExit) as raised:
        run(*folders, "--weights", weights, "--device", "cpu")
    assert raised.value.code == 1
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["first.jpg", "third.jpg"]
    assert "error: second: CUDA out of memory. Tried to allocate 2 GiB\n" in capsys.readouterr().err
    alone = refused(capsys, *pair, "-o", tmp_path / "out.jpg", "--weights", weights, "--device", "cpu")
    assert alone == "error: CUDA out of memory. Tried to allocate 2 GiB"


def test_a_card_is_sorted_fused_and_what_is_left_over_is_said(tmp_path, weights, capsys):
    card = Card(tmp_path / "card")
    card.bracket("courtyard", marked=True)
    card.bracket("forest", (0, -2), marked=True)
    card.shot("city", 0, 9, mode=0, bias=0)
    folders = "--input_dir", tmp_path / "card", "--output_dir", tmp_path / "out"
    run(*folders, "--weights", weights, "--device", "cpu", "--align")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["DSC_0001_fused.jpg", "DSC_0004_fused.jpg"]
    said = capsys.readouterr().out
    why = "next to it is only a shot of another exposure mode"
    assert said == f"kept apart: DSC_0006.JPG: {why}\nFused 2 scenes: {tmp_path / 'out'}\n"


def test_a_scene_with_a_damaged_shot_is_an_error_and_never_kept(tmp_path, weights, capsys):
    card = Card(tmp_path / "card")
    for scene in ("courtyard", "forest"):
        names = card.bracket(scene, marked=True)
    damaged = tmp_path / "card" / card.folder / names[2]
    whole = damaged.read_bytes()
    damaged.write_text("words")
    folders = (
        "--input_dir",
        tmp_path / "card",
        "--output_dir",
        tmp_path / "out",
        "--weights",
        weights,
        "--skip_existing",
    )
    photo(tmp_path / "out/DSC_0004_fused.jpg", 90)  # as an earlier version made it of two shots
    assert refused(capsys, *folders) == "error: 1 of 2 scenes could not be fused, see above"
    damaged.write_bytes(whole)
    run(*folders)
    said = capsys.readouterr().out
    assert "Fused 1 scene, 1 was there already" in said
    assert read_image(tmp_path / "out/DSC_0004_fused.jpg").shape == read_image(damaged).shape
    run(*folders)
    assert "Fused 0 scenes, 2 were there already" in capsys.readouterr().out


def test_a_folder_that_cannot_be_read_is_an_error_and_the_others_are_fused(tmp_path, weights, capsys, monkeypatch):
    for name in ("a", "b"):
        photo(tmp_path / "in" / name / "0.jpg", 60), photo(tmp_path / "in" / name / "1.jpg", 190)
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "a":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    folders = "--input_dir", tmp_path / "in", "--output_dir", tmp_path / "out", "--weights", weights, "--device", "cpu"
    with pytest.raises(SystemExit):
        run(*folders)
    said = capsys.readouterr()
    assert (
        f"error: {tmp_path / 'in/a'}: cannot be read (Permission denied)\n" in said.err and "Fused 1 scene" in said.out
    )


def test_names_that_collide_get_numbers(tmp_path, weights):
    source = tmp_path / "card"
    for name, second in (
        ("a.jpg", 0),
        ("b.jpg", 1),
        ("a.JPG", 100),
        ("c.jpg", 101),
        ("a_fused.jpg", 200),
        ("d.jpg", 201),
    ):
        photo(source / name, 100 + second % 99, second, 0.01 if second % 2 else 0.04)
    run("--input_dir", source, "--output_dir", tmp_path / "out", "--weights", weights, "--device", "cpu")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a_fused.jpg", "a_fused_2.jpg", "a_fused_fused.jpg"]

    scenes = [Scene(name, [Path(f"x{suffix}")]) for name, suffix in (
        ("Wald", ".jpg"), ("wald", ".JPG"), ("wald_2", ".jpg"), ("wald", ".tif"), ("é", ".png"), ("e\u0301", ".png"),
    )]  # fmt: skip
    assert [scene.out.name for scene in with_outputs(scenes, tmp_path)] == [
        "Wald.jpg", "wald_2.jpg", "wald_2_2.jpg", "wald.tif", "é.png", "e\u0301_2.png",
    ]  # fmt: skip


def test_what_is_no_picture_is_not_there_already(tmp_path, weights, capsys):
    for scene in ("empty", "folder", "whole"):
        photo(tmp_path / "in" / scene / "0.jpg", 60)
        photo(tmp_path / "in" / scene / "1.jpg", 190)
    photo(tmp_path / "out/whole.jpg", 90)
    (tmp_path / "out/empty.jpg").touch()
    (tmp_path / "out/folder.jpg").mkdir()
    folders = "--input_dir", tmp_path / "in", "--output_dir", tmp_path / "out", "--skip_existing"
    assert "1 of 2 scenes could not" in refused(capsys, *folders, "--weights", weights, "--device", "cpu")
    assert read_image(tmp_path / "out/empty.jpg").shape == (20, 30, 3)


def test_the_file_that_gives_the_metadata_is_not_overwritten(tmp_path, weights, capsys):
    a, b, c = (photo(tmp_path / f"{name}.jpg", value) for name, value in (("a", 60), ("b", 190), ("c", 120)))
    before = c.read_bytes()
    said = refused(capsys, a, b, "--metadata_from", c, "-o", c, "--weights", weights, "--device", "cpu")
    assert "would be overwritten" in said and c.read_bytes() == before


def test_folders_that_cannot_be_understood_are_refused(tmp_path, capsys):
    def folder(path):
        return refused(capsys, "--input_dir", path, "--output_dir", tmp_path / "out")

    assert "no such folder" in folder(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "no pictures" in folder(tmp_path / "empty")


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ("--input_dir x", "--input_dir needs --output_dir too"),
        ("--output_dir y", "--input_dir needs --output_dir too"),
        ("a b --input_dir x --output_dir y", "takes no exposures"),
        ("--input_dir x --output_dir y -o z.jpg", "leave out -o"),
        ("a b --shots 3", "are for a folder of scenes"),
        ("a b --dry_run", "are for a folder of scenes"),
        ("--input_dir x --output_dir y --shots 1", "--shots must be at least 2, got 1"),
        ("a b --quality 0", "--quality must be at least 1 and at most 100, got 0"),
        ("a b --quality 101", "--quality must be at least 1 and at most 100, got 101"),
        ("a b --names {nobody}", "--names is {nobody}: expected a file's name with {name}"),
        ("a b --names ../{name}", "--names is ../{name}: expected a file's name with {name}"),
        ("a b --reference a", "add --deghost"),
        ("a b --one_look", "are for a folder of scenes"),
        ("--input_dir x --output_dir y --one_look --skip_existing", "leave out --skip_existing"),
    ],
)
def test_options_that_contradict_each_other_are_refused_with_the_way_out(arguments, expected, capsys):
    with pytest.raises(SystemExit) as raised:
        get_infer_args(arguments.split())
    assert raised.value.code == 2 and expected in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, align, deghost, images",
    [
        ("--align a b", "mtb", False, 2),
        ("a b --align", "mtb", False, 2),
        ("--align homography a b", "homography", False, 2),
        ("a --align=mtb b", "mtb", False, 2),
        ("--handheld a b", "homography", True, 2),
        ("--handheld --align a b c", "mtb", True, 3),
        ("a b", None, False, 2),
    ],
)
def test_align_may_stand_before_the_exposures(arguments, align, deghost, images):
    args = get_infer_args(arguments.split())
    assert (args.align, args.deghost, len(args.images)) == (align, deghost, images)


def test_patterns_and_lists_name_files(tmp_path, monkeypatch, capsys):
    """As a Windows console passes them."""
    monkeypatch.chdir(tmp_path)
    for name in ("b.jpg", "a.jpg", "c d.jpg", "e.png", "[f].jpg"):
        (tmp_path / name).touch()
    assert get_infer_args(["*.jpg"]).images == ["[f].jpg", "a.jpg", "b.jpg", "c d.jpg"]
    assert get_infer_args(["[f].jpg", "?.png"]).images == ["[f].jpg", "e.png"]
    (tmp_path / "list.txt").write_text("a.jpg\nc d.jpg\n--align\n")
    args = get_infer_args(["@list.txt"])
    assert args.images == ["a.jpg", "c d.jpg"] and args.align == "mtb"
    assert refused(capsys, "*.tif", "a.jpg") == "error: *.tif: no such file"


def test_a_folder_alone_is_fused(tmp_path, weights, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    card = Card(tmp_path / "card")
    card.bracket("courtyard", marked=True)
    run("card", "--dry_run")
    shots = [str(Path("DCIM/100NIKON", f"DSC_000{k}.JPG")) for k in (1, 2, 3)]
    assert capsys.readouterr().out == f"DSC_0001_fused: {', '.join(shots)}\n1 scenes, none of them fused\n"
    assert not Path("data_result").exists()
    run("card", "--weights", weights, "--device", "cpu")
    assert read_image("data_result/card/DSC_0001_fused.jpg").shape == (163, 512, 3)
    options = "--format", "png", "--names", "{number}-{first}-{last}", "-q"
    capsys.readouterr()
    run("card", "-o", "new/", "--weights", weights, "--device", "cpu", *options)
    assert [path.name for path in Path("new").iterdir()] == ["1-DSC_0001-DSC_0003.png"]
    assert capsys.readouterr() == ("", "")


def test_shots_per_scene_may_be_told(tmp_path, weights, capsys):
    card = Card(tmp_path / "in", folder="")
    for scene in ("courtyard", "forest"):
        card.bracket(scene, exif=False)
    run("--input_dir", tmp_path / "in", "--dry_run")
    assert "show different things" in capsys.readouterr().out
    run(tmp_path / "in", "-o", tmp_path / "out", "--shots", "3", "--weights", weights, "--device", "cpu")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["DSC_0001_fused.jpg", "DSC_0004_fused.jpg"]


def test_one_look_for_the_views_of_a_panorama(tmp_path, weights, capsys):
    shots = [read_image(path) for path in SAMPLE]
    for name, columns in (("left", slice(0, 330)), ("right", slice(182, 512))):
        (tmp_path / "in" / name).mkdir(parents=True)
        for k, shot in enumerate(shots):
            write_image(tmp_path / "in" / name / f"{k}.png", np.ascontiguousarray(shot[:163, columns]))
    shipped = "--weights", str(ROOT / "runs" / "pretrained" / "deepfuse.pth"), "--device", "cpu"
    (tmp_path / "in" / "broken").mkdir()
    photo(tmp_path / "in" / "broken" / "a.png", 60)
    (tmp_path / "in" / "broken" / "b.png").write_bytes(b"no picture")
    with pytest.raises(SystemExit):
        run(tmp_path / "in", "-o", tmp_path / "one", "--one_look", *shipped)
    with pytest.raises(SystemExit):
        run(tmp_path / "in", "-o", tmp_path / "each", *shipped)
    left, right = (
        [read_image(tmp_path / out / f"{name}.png").astype(int) for out in ("one", "each")]
        for name in ("left", "right")
    )
    one, each = (np.abs(a[:, 182:] - b[:, :148]).mean() for a, b in zip(left, right, strict=True))
    assert one < each
    capsys.readouterr()
    with pytest.raises(SystemExit):
        weights = ROOT / "runs/pretrained/deepfuse_paper.pth"
        run(tmp_path / "in", "-o", tmp_path / "no", "--one_look", "--weights", weights, "--device", "cpu")
    assert "error: one look for many scenes needs weights of DeepFuse_pyramid" in capsys.readouterr().err


def test_the_name_of_a_picture_is_for_a_folder_of_one_scene(tmp_path, weights, capsys):
    for value in (50, 150):
        photo(tmp_path / "a" / "scene" / f"{value}.png", value)
    run(tmp_path / "a", "-o", tmp_path / "mine.png", "--weights", weights)
    assert read_image(tmp_path / "mine.png").shape == (20, 30, 3)
    for value in (50, 150):
        photo(tmp_path / "a" / "other" / f"{value}.png", value)
    line = refused(capsys, tmp_path / "a", "-o", tmp_path / "both.png", "--weights", weights)
    assert line.endswith("both.png is the name of one picture, but 2 scenes were found: name a folder")


def test_one_scene_into_a_folder(tmp_path, weights):
    pair = photo(tmp_path / "a.webp", 60), photo(tmp_path / "b.webp", 190)
    network = "--weights", weights, "--device", "cpu"
    run(*pair, "-o", f"{tmp_path}/new/", *network)
    run(*pair, "-o", tmp_path / "new", "--format", "tif", *network)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a_fused.tif", "a_fused.webp"]
    run(*pair, "-o", f"{tmp_path}/new.png/", *network)  # a slash means a folder, whatever its name
    assert (tmp_path / "new.png" / "a_fused.webp").is_file()


def test_the_default_output_is_never_lost(tmp_path, weights, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "data_result/pair/fused_image.png"
    network = "--weights", weights, "--device", "cpu"
    run(*network)
    first = out.read_bytes()
    a, b = photo(tmp_path / "a.png", 60), photo(tmp_path / "b.png", 190)
    run(a, b, *network)
    assert out.with_name("fused_image_1.png").read_bytes() == first != out.read_bytes()
    assert "the picture that was there is now data_result/pair/fused_image_1.png" in capsys.readouterr().out
    second = out.read_bytes()
    assert "no such file" in refused(capsys, a, "none.jpg", *network)
    assert out.read_bytes() == second and len(list(out.parent.iterdir())) == 2
    run(b, a, *network)
    assert out.with_name("fused_image_2.png").read_bytes() == second and len(list(out.parent.iterdir())) == 3


def test_quality_and_chroma(tmp_path, weights):
    pair = [tmp_path / f"{ev}.png" for ev in (-2, 2)]
    for path, ev in zip(pair, (-2, 2), strict=True):
        Image.fromarray(expose("forest", ev)).save(path)
    sizes, samplings = [], []
    for quality in ("95", None, "90", "89", "60"):
        options = ("--quality", quality) if quality else ()
        run(*pair, "-o", tmp_path / "out.jpg", "--weights", weights, "--device", "cpu", *options)
        sizes.append((tmp_path / "out.jpg").stat().st_size)
        with Image.open(tmp_path / "out.jpg") as picture:
            samplings.append(picture.layer[0][1:3])  # of luminance, relative to the chroma's
    assert sizes == sorted(sizes, reverse=True) and sizes[1] < 0.9 * sizes[0]
    assert samplings == [(1, 1)] * 3 + [(2, 2)] * 2


def test_one_long_scene_shows_how_far_it_is(tmp_path, weights, monkeypatch):
    seen = []

    class Bar(tqdm):
        def set_description(self, desc=None, refresh=True):
            seen.append((desc, self.n, self.total))

    monkeypatch.setattr("tqdm.tqdm", Bar)
    monkeypatch.setattr("run_infer.LATE", 0)
    pair = photo(tmp_path / "a.png", 60), photo(tmp_path / "b.png", 190)
    run(*pair, "-o", tmp_path / "out.png", "--weights", weights, "--device", "cpu", "--deghost")
    assert {"looking for what moved", "blending"} <= {what for what, _, _ in seen}
    assert all(0 <= done < of for _, done, of in seen)


def test_help_shows_the_defaults_that_say_something(capsys):
    with pytest.raises(SystemExit):
        get_infer_args(["--help"])
    shown = capsys.readouterr().out
    assert "(default: None)" not in shown and "(default: data_result/pair/fused_image.png)" in " ".join(shown.split())


def test_output_of_16_bits_and_metadata(tmp_path, weights):
    shape, pairs = (40, 50, 3), []
    for value in (9000, 40000):
        image = np.random.default_rng(value).integers(value, value + 20000, shape).astype(np.uint16)
        pairs.append(tmp_path / f"{value}.tif")
        write_image(pairs[-1], image)
    run(*pairs, "-o", tmp_path / "out.tif", "--weights", weights, "--device", "cpu")
    fused = read_image(tmp_path / "out.tif")
    assert fused.dtype == np.uint16 and len(np.unique(fused)) > 256 and len(np.unique(fused % 257)) > 200


@pytest.mark.parametrize(
    "size, rank, place",
    [
        (None, "1", (0, 1)),
        ("1", "1", (0, 1)),
        ("3", "2", (2, 3)),
        ("3", "3", None),
        ("x", "0", None),
        ("2", "-1", None),
    ],
)
def test_no_scene_is_left_to_a_process_that_does_not_exist(monkeypatch, size, rank, place):
    for name, value in (("WORLD_SIZE", size), ("RANK", rank)):
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    if place:
        assert place_among_processes() == place
        return
    with pytest.raises(UserError, match=f"RANK is '{rank}' and WORLD_SIZE '{size}': unset both"):
        place_among_processes()


@pytest.mark.parametrize("option", [("--format", "jpg"), ("--names", "{first}")])
def test_options_for_folders_are_refused_where_a_picture_is_named(tmp_path, weights, capsys, option):
    shots = [photo(tmp_path / "scene" / f"{value}.png", value) for value in (50, 150)]
    for given in (shots, [tmp_path / "scene"]):
        line = refused(capsys, *given, "-o", tmp_path / "mine.png", "--weights", weights, *option)
        assert line.endswith("mine.png names a picture: name a folder with -o")
        assert not (tmp_path / "mine.png").exists()
