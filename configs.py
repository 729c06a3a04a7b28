"""The settings of every script: one function per script returns them."""

import argparse
import functools
import glob
import json
import math
import os
import shlex
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from utils import __version__
from utils.errors import UserError, require
from utils.evaluation import MIN_SIDE
from utils.pictures import QUALITY
from utils.stack import METHODS
from utils.training import CLIP_WEIGHT, LIGHT_WEIGHT, LUM_WEIGHT, SCALE_WEIGHTS, SHOTS

ROOT = Path(__file__).resolve().parent
# What a resumed training does with a setting that changed:
FREE = "takes the new value"
APART = "takes the new value, which does not change the result"
SESSION = "takes the new value, and never the stored one: each session has its own"
NEW_RUN = "refuses: it would be another run"
NEW_BEST = "takes the new value, and best starts anew: losses no longer compare with earlier ones"

WRITTEN = (".jpg", ".png", ".tif", ".webp", ".avif", ".heic", ".bmp")
DEFAULT_OUTPUT = "data_result/pair/fused_image.png"
DEVICES = "cpu, cuda (gpu is the same), cuda:N or mps (Apple); auto: cuda if there is one"


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults of options, except "None": the text then says what happens by default."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def _parser(description: str, **options) -> argparse.ArgumentParser:
    """Returns the parser of a script, or of the command that runs it: both are called as `sys.argv` says."""
    parser = argparse.ArgumentParser(description=description, formatter_class=HelpFormatter, **options)
    parser.add_argument("--version", action="version", version=f"DeepFuse {__version__}")
    return parser


def command(name: str) -> str:
    """Returns how to run a script: "python run_train.py" in the clone, "deepfuse train" in the installed package."""
    return f"python run_{name}.py" if Path(ROOT, "README.md").exists() else f"deepfuse {name}".removesuffix(" infer")


def shipped_weights(device: str = "auto") -> str:
    """Returns the path of the shipped DeepFuse_pyramid: .onnx where ONNX Runtime can run it, otherwise .pth.

    On a CPU, ONNX Runtime starts at once and needs half of PyTorch's time and memory; other devices need PyTorch.
    """
    onnx = find_spec("onnxruntime") and device in ("auto", "cpu") or not find_spec("torch")
    return f"{ROOT}/runs/pretrained/deepfuse.{'onnx' if onnx else 'pth'}"


def get_infer_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Returns the settings of run_infer.py from a command line (sys.argv where None).

    `input_dir` and `output_dir` are set for a folder of scenes, also one that is given as the only exposure; otherwise
    `images` are the files of one scene.

    Raises:
        UserError: No file has a name such as *.jpg.
    """
    sample = [f"{ROOT}/data_test/courtyard/{name}" for name in ("0_ev-4.jpg", "2_ev+2.jpg")]
    parser = _parser(
        "Fuses exposures of one scene into one picture, or every scene of a folder. Reads and writes "
        f"{' '.join(WRITTEN)}; reads camera raw (.dng .nef .cr3 .arw and others), and .exr, .hdr and float .tif, each "
        "of which is a scene. @FILE reads arguments from a file, one per line.",
        fromfile_prefix_chars="@",
    )
    on_off = argparse.BooleanOptionalAction
    group = parser.add_argument_group("one scene")
    group.add_argument(
        "images",
        nargs="*",
        default=sample,
        help="two or more exposures, in any order; or one radiance map; or one folder of scenes",
    )
    group.add_argument(
        "-o",
        "--output",
        metavar="FILE|FOLDER/",
        default=DEFAULT_OUTPUT,
        help="picture to write, or a folder for it; an earlier picture at the default place is kept, with a number",
    )
    group.add_argument(
        "--hdr",
        action=on_off,
        default=False,
        help="brighter than white where the scene was, on screens that can: JPEG becomes Ultra HDR (on others it looks "
        "as ever), AVIF and HEIC are coded as PQ, TIFF gets the radiance, as .exr and .hdr always; folders become .jpg",
    )
    group.add_argument("--metadata_from", metavar="FILE", help="file whose EXIF to keep; by default the first input")
    group = parser.add_argument_group("many scenes")
    group.add_argument(
        "--input_dir",
        metavar="FOLDER",
        help="folder with photographs in it or in its folders: a card, or one folder per scene; brackets are found by "
        "what the camera noted and what the pictures show; the option's name may be left out",
    )
    group.add_argument(
        "--output_dir",
        metavar="FOLDER",
        help="folder for the fused pictures, outside --input_dir (as -o FOLDER/); by default data_result/NAME",
    )
    group.add_argument("--shots", type=int, metavar="N", help="each scene has N shots: for photographs without EXIF")
    group.add_argument("--dry_run", action=on_off, default=False, help="list the scenes and their shots, and fuse none")
    group.add_argument(
        "--skip_existing",
        action=on_off,
        default=False,
        help="skip the scenes whose fused picture is there and no older than its shots; otherwise it is written again",
    )
    group.add_argument(
        "--names",
        metavar="PATTERN",
        default="{name}",
        help="names of the fused pictures: {name} of the scene, {first} and {last} shot, {number} from 1",
    )
    group = parser.add_argument_group("files")
    group.add_argument(
        "--format",
        choices=[suffix[1:] for suffix in WRITTEN],
        help="format in folders; by default that of the shots, or tif where it cannot be written",
    )
    group.add_argument(
        "--quality",
        type=int,
        default=QUALITY,
        help="of JPEG, WebP, AVIF and HEIC, 1 to 100; a JPEG below 90 has colours at half the resolution",
    )
    group.add_argument(
        "--max_pixels",
        type=int,
        help="largest picture to read; by default 134 MB, and 128 times its file, up to 268 million",
    )
    group.add_argument("-q", "--quiet", action="store_true", help="print errors and warnings only")
    group = parser.add_argument_group("network")
    group.add_argument(
        "--weights",
        help="checkpoint of this project, its .onnx, the authors' .npz or the predecessor's .pth; by default the "
        "shipped deepfuse.onnx on a CPU, deepfuse.pth on other devices",
    )
    group.add_argument("--model", help="name that the network in the weights must have")
    group.add_argument("--device", default="auto", help=DEVICES)
    group = parser.add_argument_group("hand-held shots and moving things")
    group.add_argument(
        "--handheld",
        action=on_off,
        default=False,
        help="what is right for shots out of the hand: --align homography --deghost; what did not move stays as it is",
    )
    group.add_argument(
        "--align",
        nargs="?",
        const="mtb",
        choices=METHODS,
        help="align the shots first: mtb (shifts; the default method) or homography (rotation too)",
    )
    group.add_argument(
        "--deghost",
        action=on_off,
        default=False,
        help="show what moved between the shots only once, as in one of them, the reference; shots that --align cannot "
        "align are left out",
    )
    group.add_argument(
        "--reference",
        metavar="FILE",
        help="with --deghost: the exposure that shows moving things as they shall be; by default the best exposed one",
    )
    argv = sys.argv[1:] if argv is None else argv
    following = [*argv[1:], ""][: len(argv)]
    argv = [  # --align may stand before the exposures
        "--align=mtb" if one == "--align" and after not in METHODS else one
        for one, after in zip(argv, following, strict=True)
    ]
    args = parser.parse_intermixed_args(argv)
    for name, low, high in (("max_pixels", 1, None), ("shots", 2, None), ("quality", 1, 100)):
        value = getattr(args, name)
        if value is not None and not (low <= value <= (high or value)):
            parser.error(f"--{name} must be at least {low}{f' and at most {high}' if high else ''}, got {value}")
    if args.handheld:
        args.align, args.deghost = args.align or "homography", True
    if args.reference and not args.deghost:
        parser.error("--reference works only together with --deghost: add --deghost")
    try:
        name = args.names.format(name="a", first="b", last="c", number=1)
    except (KeyError, IndexError, ValueError, AttributeError):
        name = "/"
    if name != Path(name).name:
        parser.error(f"--names is {args.names}: expected a file's name with {{name}}, {{first}}, {{last}}, {{number}}")
    args.images = args.images if args.images is sample else _expanded(args.images)
    if not args.input_dir and len(args.images) == 1 and Path(args.images[0]).is_dir():
        args.input_dir, args.images = args.images[0], sample
        named = args.output != DEFAULT_OUTPUT
        folder = args.output if named else str(Path("data_result", Path(args.input_dir).resolve().name))
        args.output_dir, args.output = args.output_dir or folder, DEFAULT_OUTPUT
    if bool(args.input_dir) != bool(args.output_dir) and not (args.input_dir and args.dry_run):
        parser.error("--input_dir needs --output_dir too, and the other way round")
    if args.input_dir and (args.images is not sample or args.metadata_from or args.reference):
        parser.error("--input_dir takes no exposures, no --metadata_from and no --reference beside it")
    if args.input_dir and args.output != DEFAULT_OUTPUT:
        parser.error("--input_dir writes into --output_dir: leave out -o, which names the picture of one scene")
    if not args.input_dir and (args.shots or args.dry_run):
        parser.error("--shots and --dry_run are for a folder of scenes: give a folder")
    args.weights = args.weights or shipped_weights(args.device)
    return args


def _expanded(names: list[str]) -> list[str]:
    """Returns names in which patterns such as *.jpg are replaced by the files of such names: some shells do not.

    Raises:
        UserError: A pattern fits no file.
    """
    files: list[str] = []
    for name in names:
        found = [name] if os.path.exists(name) or not glob.has_magic(name) else sorted(glob.glob(name))
        if not found:
            raise UserError(f"{name}: no such file")
        files += found
    return files


def get_export_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Returns the settings of run_export.py from a command line (sys.argv where None)."""
    parser = _parser("Writes a DeepFuse_pyramid as ONNX, which fuses any number and size of exposures without PyTorch.")
    parser.add_argument("--weights", default=f"{ROOT}/runs/pretrained/deepfuse.pth", help="checkpoint to export")
    parser.add_argument("-o", "--output", help="file to write; by default that of --weights, with the suffix .onnx")
    args = parser.parse_args(argv)
    args.output = args.output or str(Path(args.weights).with_suffix(".onnx"))
    require("torch", "onnx", "onnxscript")
    return args


def get_app_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Returns the settings of run_app.py from a command line (sys.argv where None)."""
    parser = _parser("Opens a page in the browser that fuses the exposures dropped on it; nothing leaves this machine.")
    parser.add_argument("--weights", default=shipped_weights(), help="first choice; the page offers all in its folder")
    parser.add_argument("--device", default="auto", help=DEVICES)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at; 0.0.0.0 serves also the phone in the same network, which opens the page by the "
        "address that is printed",
    )
    parser.add_argument("--port", type=int, default=7860, help="the page is http://127.0.0.1:PORT")
    parser.add_argument("--browser", action=argparse.BooleanOptionalAction, default=True, help="open the browser")
    return parser.parse_args(argv)


class Setting(NamedTuple):
    """What is true of a setting of run_train.py besides what argparse knows."""

    resumed: str  # FREE, APART, SESSION, NEW_RUN or NEW_BEST: what a resumed training does where it changed
    low: float  # least value
    below: float  # what it must be less than


def train_parser() -> tuple[argparse.ArgumentParser, dict[str, Setting]]:
    """Returns the parser of run_train.py, and its settings by name."""
    parser = _parser(
        "Trains DeepFuse on photographs or on exposure brackets. @FILE reads options from a file, such as "
        "@runs/pretrained/photo.args, a recipe for photographs; later options override them.",
        fromfile_prefix_chars="@",
    )
    parser.convert_arg_line_to_args = lambda line: shlex.split(line, comments=True)  # type: ignore
    settings: dict[str, Setting] = {}

    def add(group, *names: str, resumed: str = FREE, low: float = -math.inf, below: float = math.inf, **how) -> None:
        default = how.get("default")
        if isinstance(default, bool):
            how["action"] = argparse.BooleanOptionalAction
        elif isinstance(default, (int, float)):
            how["type"] = type(default)
        settings[group.add_argument(*names, **how).dest] = Setting(resumed, low, below)

    for options in (_data_settings, _network_settings, _training_settings, _run_settings):
        group = parser.add_argument_group(options.__name__.split("_")[1])
        options(functools.partial(add, group))
    return parser, settings


def settings_with(*resumed: str) -> set[str]:
    """Returns the names of the settings of run_train.py that do this when it is resumed."""
    return {name for name, setting in train_parser()[1].items() if setting.resumed in resumed}


def _data_settings(add: Callable) -> None:
    add(
        "--image_path",
        resumed=NEW_BEST,
        nargs="+",
        default=["data_train"],
        help="folders of photographs, searched recursively; objective mef: folders with one folder per scene",
    )
    add(
        "--photo_path",
        resumed=NEW_BEST,
        nargs="*",
        default=[],
        help="objective mef: folders of photographs, from which some of the samples are simulated",
    )
    add(
        "--train_num",
        resumed=NEW_RUN,
        low=0,
        default=200,
        help="samples per epoch, in whole batches, every photograph or scene equally likely; 0: one of each",
    )
    add(
        "--crop_size",
        resumed=NEW_RUN,
        low=16,
        default=256,
        help="side of the training squares in pixels; for objectives mef and exposure of the square that has as many "
        "pixels as the largest windows, which have the proportions of the pictures",
    )
    add(
        "--patches",
        resumed=NEW_RUN,
        default=False,
        help="mef, exposure: squares of --crop_size of the pictures' own pixels, as the paper has; otherwise windows "
        "at any scale, most of them of the whole scene",
    )
    add(
        "--shots",
        resumed=NEW_RUN,
        low=2,
        below=33,
        nargs="+",
        default=list(SHOTS),
        type=int,
        help="mef, exposure: numbers of shots to fuse, each as likely as the others; 2 for the paper's pairs",
    )
    add(
        "--val_fraction",
        resumed=NEW_BEST,
        low=0,
        below=1,
        default=0.1,
        help="share held out for validation: of the scenes; for photographs, a share of the samples per epoch",
    )
    add("--val_every", resumed=APART, low=1, default=1, help="epochs between validations")
    add("--val_path", resumed=NEW_BEST, help="objective mef: folder of scenes to validate on instead")
    add("--val_pairs", resumed=NEW_BEST, help="CSV table of pairs in --val_path: columns scene,under,over")
    add("--cache_mb", resumed=APART, default=512, help="objective mef: luminance kept in memory, in MB")
    add("--num_workers", resumed=APART, low=0, default=0, help="processes that prepare samples")


def _network_settings(add: Callable) -> None:
    add(
        "--model",
        default="auto",
        help="network to train; auto: that of --weights; without, DeepFuse (recon) or DeepFuse_pyramid (mef, exposure)",
    )
    add("--gray", resumed=NEW_RUN, default=True, help="train on luminance (1 channel), otherwise RGB")
    add("--weights", resumed=NEW_RUN, help="start a new run from these weights (not .onnx)")


def _training_settings(add: Callable) -> None:
    add(
        "--objective",
        resumed=NEW_RUN,
        default="recon",
        help="recon: reconstruct photographs; mef: fuse brackets; exposure: fuse shots simulated from photographs",
    )
    add(
        "--hidden",
        resumed=NEW_RUN,
        default=True,
        help="mef, exposure: judge the picture by all of its scene's shots, also those that the network is not shown; "
        "otherwise by those that it is shown",
    )
    add(
        "--lum_weight",
        resumed=NEW_BEST,
        low=0,
        default=LUM_WEIGHT,
        help="mef, exposure: weight of MEF-SSIM-lum, which fixes brightness",
    )
    add(
        "--light_weight",
        resumed=NEW_BEST,
        low=0,
        default=LIGHT_WEIGHT,
        help="mef, exposure: weight of lights that are brighter than the well exposed shots show them",
    )
    add(
        "--clip_weight",
        resumed=NEW_BEST,
        low=0,
        default=CLIP_WEIGHT,
        help="mef, exposure: weight of values beyond black and white; with 0 they are judged without being clipped",
    )
    add(
        "--scale_weights",
        resumed=NEW_BEST,
        low=0,
        nargs="+",
        default=list(SCALE_WEIGHTS),
        type=float,
        help="mef, exposure: weights of MEF-SSIM at full size, half, a quarter, ...",
    )
    add("--batch_size", resumed=NEW_RUN, low=1, default=4, help="samples per step")
    add("--num_epochs", low=1, default=100, help="epochs in total, those before a resume included")
    add("--lr", low=0, default=1e-4, help="learning rate at the start")
    add(
        "--lr_schedule",
        choices=["constant", "exponential", "cosine"],
        default="exponential",
        help="of Adam; exponential: times 0.9 per epoch; cosine: a short rise, then down to 0 at the end",
    )
    add("--clip_grad", low=0, default=0.0, help="largest norm of the gradient; 0: no limit")
    add(
        "--ema",
        resumed=NEW_RUN,
        low=0,
        below=1,
        default=0.0,
        help="decay per step of the average of weights; 0: no average",
    )
    add("--amp", default=False, help="run the network in bfloat16: faster")
    add("--seed", resumed=NEW_RUN, low=0, default=0, help="seed of everything random")
    add("--save_every", resumed=APART, low=0, default=5.0, help="minutes between checkpoints within an epoch")


def _run_settings(add: Callable) -> None:
    add("--device", resumed=SESSION, default="auto", help=DEVICES)
    add("--runs_path", resumed=APART, default="runs", help="folder of all runs; each gets a folder in it")
    add("--run_name", resumed=APART, help="name of the run's folder; by default train_MM-DD_HH-MM")
    add("--resume_path", resumed=SESSION, help="run folder to continue, or a checkpoint in it")
    add(
        "--verbose",
        "--output",  # as the predecessor called it
        resumed=SESSION,
        default=True,
        help="show settings, progress and results",
    )


def get_train_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Returns the settings of run_train.py from a command line (sys.argv where None); @FILE reads options from a file.

    A resumed run uses the settings stored in its run folder, except those given on the command line; `resume_path` is
    then the path of its checkpoint.

    Raises:
        ValueError: A setting of NEW_RUN differs from the resumed run's, or its stored settings are missing or damaged.
    """
    parser, settings = train_parser()
    try:
        resumed, stored = parser.parse_args(argv).resume_path, {}
    except RecursionError:
        parser.error("an @FILE names itself: leave that line out of it")
    except ValueError as error:
        parser.error(f"an @FILE is no text in UTF-8, or has a quotation without an end: {error}")
    if resumed:
        if Path(resumed).is_dir():
            resumed = str(Path(resumed, "checkpoints", "last.pth"))
        defaults = {name: value for name, value in vars(parser.parse_args([])).items() if name in settings}
        defaults = {name: value for name, value in defaults.items() if settings[name].resumed != SESSION}
        stored = stored_settings(Path(resumed).absolute().parent.parent / "settings.json", defaults)
        parser.set_defaults(**stored)
    args = parser.parse_args(argv)
    args.resume_path = resumed
    require("torch", "tensorboard")
    for name, setting in settings.items():
        value = getattr(args, name)
        if setting.resumed == NEW_RUN and value != stored.get(name, value):
            raise UserError(
                f"--{name} of the run is {stored[name]}, not {value}: "
                "keep it, or start a new run with --weights best.pth of this one"
            )
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, (int, float)) and not setting.low <= number < setting.below:  # also for NaN
                less = f", and less than {setting.below}" if setting.below < math.inf else ""
                parser.error(f"--{name} is {number}: expected at least {setting.low}{less}")
    if not sum(args.scale_weights) > 0:
        parser.error(f"--scale_weights are {args.scale_weights}: expected one above 0")
    if args.val_pairs and not args.val_path:
        parser.error("--val_pairs names scenes in --val_path: give that too")
    return args


def stored_settings(path: Path, defaults: dict) -> dict:
    """Returns the settings in a run folder's settings.json that are also in `defaults`.

    Raises:
        ValueError: there is no such file, it is damaged, or a setting has another type than its default.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing: expected a run folder to resume, or a file in its folder checkpoints")
    try:
        content = dict(json.loads(path.read_text(encoding="utf-8")).items())
    except (ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is damaged, the settings of the run to resume: {error}") from error
    stored = {name: content[name] for name in defaults if name in content}
    for name, value in stored.items():
        default, values = defaults[name], [value]
        if isinstance(default, list) and isinstance(value, list):
            default, values = (default or [""])[0], value
        kinds = {type(None): (str, type(None)), float: (int, float)}.get(type(default), (type(default),))
        if not all(type(one) in kinds for one in values):
            raise UserError(f"{path} is damaged: {name} is {str(value)[:40]!r}, expected {kinds[0].__name__}")
    return stored


def get_eval_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Returns the settings of run_eval.py from a command line (sys.argv where None).

    `weights` and `results` are dicts: method's name -> its file or folder.
    """
    parser = eval_parser()
    args = parser.parse_args(argv)
    if args.jobs < 1:
        parser.error(f"--jobs must be at least 1, got {args.jobs}")
    if args.max_width is not None and args.max_width < MIN_SIDE:
        parser.error(f"--max_width must be at least {MIN_SIDE}, got {args.max_width}")
    if args.lpips and args.reference is None:
        parser.error("--lpips compares with a reference picture: give --reference DIR too")
    name_methods(args, parser)
    require("torch", "scikit-image")
    return args


def eval_parser() -> argparse.ArgumentParser:
    """Returns the parser of run_eval.py."""
    on_off = argparse.BooleanOptionalAction
    parser = _parser("Fuses scenes with several methods and scores the saved pictures.")
    group = parser.add_argument_group("scenes")
    group.add_argument("--data", default=f"{ROOT}/data_test", help="folder of scenes: one folder of shots per scene")
    group.add_argument(
        "--pairs", metavar="CSV", help="fuse two shots per scene: a table with the columns scene, under and over"
    )
    group.add_argument("--max_width", type=int, metavar="PIXELS", help="shrink wider pictures to this width first")
    group.add_argument("--reference", metavar="DIR", help="ground truth DIR/<scene>.png, for PSNR and SSIM")
    group = parser.add_argument_group("methods")
    group.add_argument(
        "--weights",
        nargs="*",
        metavar="[NAME=]FILE",
        default=[f"{ROOT}/runs/pretrained/deepfuse.pth"],
        help="checkpoints that run_infer.py loads",
    )
    group.add_argument("--device", default="auto", help=f"where checkpoints run: {DEVICES}")
    group.add_argument(
        "--methods",
        nargs="*",
        choices=("average", "mertens", "enfuse"),
        default=["average", "mertens", "enfuse"],
        help="other methods: the plain average, OpenCV's MergeMertens, and enfuse where it is installed",
    )
    group.add_argument(
        "--results", nargs="*", metavar="NAME=DIR", default=[], help="pictures of other programs: DIR/<scene>.png"
    )
    group = parser.add_argument_group("scores")
    group.add_argument(
        "--full_stack",
        "--full-stack",
        action=on_off,
        default=True,
        help="with --pairs: score against all shots of the scene, otherwise against the two that were fused",
    )
    group.add_argument(
        "--lpips", action=on_off, default=False, help="with --reference: LPIPS and the NTIRE 2026 score (package lpips)"
    )
    group.add_argument(
        "--iqa",
        nargs="*",
        metavar="NAME",
        default=[],
        help="measures without a reference: brisque, musiq and others of the package pyiqa",
    )
    group = parser.add_argument_group("run")
    group.add_argument(
        "-o", "--output", default="data_result/eval", help="folder to write; an earlier evaluation in it is replaced"
    )
    group.add_argument("--jobs", type=int, default=1, help="processes; each scores one scene at a time")
    return parser


def name_methods(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Makes --weights and --results dicts, from a method's name to its file or folder; no two have one name."""
    for text in args.results:
        if "=" not in text:
            parser.error(f"--results must be NAME=DIR, got {text}")
    names = set(args.methods)
    for option in ("weights", "results"):
        found = {}
        for text in getattr(args, option):
            name, path = _named_path(text)
            if name in names:
                parser.error(f"two methods are called {name}: give NAME={path} with another name")
            if not name or name != Path(name).name:
                parser.error(f"a method's name must be that of a folder, got {name!r} in {text}")
            names.add(name)
            found[name] = path
        setattr(args, option, found)
    if not names:
        parser.error("there is no method to score: give --methods, --weights or --results")


def _named_path(text: str) -> tuple[str, str]:
    """Returns (name, path) from "NAME=PATH" or "PATH"; the latter is named [RUN_]FILE after its run folder and file."""
    name, equals, path = text.partition("=")
    if equals:
        return name, path
    path = Path(text)
    in_run = path.parent.name == "checkpoints"
    return f"{path.absolute().parent.parent.name}_{path.stem}" if in_run else path.stem, text
