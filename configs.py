"""The settings of every script: one function per script returns them."""

import argparse
import contextlib
import glob
import json
import math
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, NoReturn

from utils import __version__
from utils.errors import UserError, require
from utils.evaluation import MIN_SIDE
from utils.files import plain
from utils.pictures import QUALITY
from utils.stack import METHODS
from utils.training import CLIP_WEIGHT, LUM_WEIGHT, SCALE_WEIGHTS, SHOTS

ROOT = Path(__file__).resolve().parent
# What a resumed training does with a setting that changed:
FREE = "takes the new value"
APART = "takes the new value, which does not change the result"
SESSION = "takes the new value, and never the stored one: each session has its own"
NEW_RUN = "refuses: it would be another run"
NEW_BEST = "takes the new value, and best starts anew: losses no longer compare with earlier ones"

WRITTEN = (".jpg", ".png", ".tif", ".webp", ".avif", ".heic", ".bmp")
DEFAULT_OUTPUT, NAMES = "data_result/pair/fused_image.png", "{name}"
SAMPLE = [f"{ROOT}/data_test/courtyard/{name}" for name in ("0_ev-4.jpg", "2_ev+2.jpg")]
DEVICES = "cpu, cuda (gpu is the same), cuda:N or mps (Apple); auto: cuda if there is one"


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults of options, except "None": the text then says what happens by default."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


class Setting(NamedTuple):
    """What is true of an option besides what argparse knows."""

    resumed: str  # FREE, APART, SESSION, NEW_RUN or NEW_BEST: what a resumed training does where it changed
    low: float  # least value
    below: float  # what it must be less than


class Parser(argparse.ArgumentParser):
    """The parser of a script: a default tells an option's type, and numbers have bounds."""

    def __init__(self, description: str, **options):
        super().__init__(description=description, formatter_class=HelpFormatter, **options)
        self.add_argument("--version", action="version", version=f"DeepFuse {__version__}")
        self.settings: dict[str, Setting] = {}

    def group(self, title: str) -> Callable[..., argparse.Action]:
        """Returns a function that adds an option to a new group, and returns it: takes what `add_argument` does.

        A default tells the type: of a number its own, of True and False a switch with --no- before its name. `low` and
        `below` are bounds of a number, or of each of several.
        """
        group = self.add_argument_group(title)

        def add(*names: str, resumed: str = FREE, low: float = -math.inf, below: float = math.inf, **how):
            default = how.get("default")
            if isinstance(default, bool):
                how["action"] = argparse.BooleanOptionalAction
            elif isinstance(default, (int, float)):
                how["type"] = type(default)
            option = group.add_argument(*names, **how)
            self.settings[option.dest] = Setting(resumed, low, below)
            return option

        return add

    def error(self, message: str) -> NoReturn:
        """Ends the program with one line and status 2, without the usage, which would fill the screen."""
        self.exit(2, f"error: {message} (all options: {self.prog} --help)\n")

    @contextlib.contextmanager
    def files_of_options(self) -> Iterator[None]:
        """Ends the program with one line where an @FILE that is read meanwhile is no list of options."""
        try:
            yield
        except RecursionError:
            self.error("an @FILE names itself: leave that line out of it")
        except ValueError as error:
            self.error(f"an @FILE is no text in UTF-8, or has a quotation without an end: {error}")

    def check_bounds(self, args: argparse.Namespace) -> None:
        """Ends the program with an error if a number is out of its bounds, or is NaN."""
        for name, (_, low, below) in self.settings.items():
            value = getattr(args, name)
            for number in value if isinstance(value, list) else [value]:
                if isinstance(number, (int, float)) and not low <= number < below:
                    most = f"at most {below - 1}" if isinstance(number, int) else f"less than {below}"
                    self.error(f"--{name} must be at least {low}{f' and {most}' * (below < math.inf)}, got {number}")


def command(name: str) -> str:
    """Returns how to run a script: "python run_train.py" in the clone, "deepfuse train" in the installed package."""
    return f"python run_{name}.py" if Path(ROOT, "README.md").exists() else f"deepfuse {name}".removesuffix(" infer")


def shipped_weights(device: str = "auto") -> str:
    """Returns the path of the shipped DeepFuse_pyramid: .onnx where ONNX Runtime can run it, otherwise .pth.

    On a CPU, ONNX Runtime starts at once and needs half of PyTorch's time and memory; other devices need PyTorch.
    """
    onnx = find_spec("onnxruntime") and device in ("auto", "cpu") or not find_spec("torch")
    return f"{ROOT}/runs/pretrained/deepfuse.{'onnx' if onnx else 'pth'}"


def infer_parser() -> Parser:
    """Returns the parser of run_infer.py."""
    parser = Parser(
        "Fuses exposures of one scene into one picture, or every scene of a folder. Reads and writes "
        f"{' '.join(WRITTEN)}; reads camera raw (.dng .nef .cr3 .arw and others), and .exr, .hdr and float .tif, each "
        "of which is a scene. @FILE reads arguments from a file, one per line.",
        fromfile_prefix_chars="@",
    )
    add = parser.group("one scene")
    option = add("images", default=SAMPLE, nargs="*")
    option.help = "two or more exposures, in any order; or one radiance map; or one folder of scenes"
    option = add("-o", "--output", default=DEFAULT_OUTPUT, metavar="FILE|FOLDER/")
    option.help = "picture to write, or a folder for it; an earlier picture at the default place is kept, with a number"
    option = add("--hdr", default=False)
    option.help = (
        "brighter than white where the scene was, on screens that can: JPEG becomes Ultra HDR (on others it looks "
        "as ever), AVIF and HEIC are coded as PQ, TIFF gets the radiance, as .exr and .hdr always; folders become .jpg"
    )
    add("--metadata_from", metavar="FILE", help="file whose EXIF to keep; by default the first input")
    add = parser.group("many scenes")
    option = add("--input_dir", metavar="FOLDER")
    option.help = (
        "folder with photographs in it or in its folders: a card, or one folder per scene; brackets are found by "
        "what the camera noted and what the pictures show; the option's name may be left out"
    )
    option = add("--output_dir", metavar="FOLDER")
    option.help = "folder for the fused pictures, outside --input_dir (as -o FOLDER/); by default data_result/NAME"
    add("--shots", type=int, metavar="N", low=2, help="each scene has N shots: for photographs without EXIF")
    add("--dry_run", default=False, help="list the scenes and their shots, and fuse none")
    option = add("--skip_existing", default=False)
    option.help = "skip scenes whose fused picture is no older than their shots; otherwise it is written again"
    option = add("--one_look", default=False)
    option.help = "decide once for all scenes, as for the views of a panorama: brightness and contrast agree"
    option = add("--names", default=NAMES, metavar="PATTERN")
    option.help = "names of the fused pictures: {name} of the scene, {first} and {last} shot, {number} from 1"
    add = parser.group("files")
    option = add("--format", choices=[suffix[1:] for suffix in WRITTEN])
    option.help = "format in folders; by default that of the shots, or tif where it cannot be written"
    option = add("--quality", default=QUALITY, low=1, below=101)
    option.help = "of JPEG, WebP, AVIF and HEIC, 1 to 100; a JPEG below 90 has colours at half the resolution"
    option = add("--max_pixels", type=int, low=1)
    option.help = "largest picture to read; by default 134 MB, and 128 times its file, up to 268 million"
    add("-q", "--quiet", action="store_true", help="print errors and warnings only")
    add = parser.group("network")
    option = add("--weights")
    option.help = "checkpoint (.pth, .onnx, the authors' .npz); by default deepfuse.onnx on a CPU, else deepfuse.pth"
    add("--model", help="name that the network in the weights must have")
    add("--device", default="auto", help=DEVICES)
    add = parser.group("hand-held shots and moving things")
    option = add("--handheld", default=False)
    option.help = "for shots out of the hand: --align homography --deghost; what did not move stays as it is"
    option = add("--align", nargs="?", const="mtb", choices=METHODS)
    option.help = "align the shots first: mtb (shifts; the default method) or homography (rotation too)"
    option = add("--deghost", default=False)
    option.help = "show what moved only once, as in the reference; shots that --align cannot align are left out"
    option = add("--reference", metavar="FILE")
    option.help = "with --deghost: the exposure that shows moving things as they shall be; by default the best exposed"
    return parser


def get_infer_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Returns the settings of run_infer.py from a command line (sys.argv where None).

    `input_dir` and `output_dir` are set for a folder of scenes, also one that is given as the only exposure; otherwise
    `images` are the files of one scene.
    """
    parser = infer_parser()
    argv = sys.argv[1:] if argv is None else argv
    argv = [  # --align may stand before the exposures
        "--align=mtb" if one == "--align" and after not in METHODS else one
        for one, after in zip(argv, [*argv[1:], ""], strict=False)
    ]
    with parser.files_of_options():
        args = parser.parse_intermixed_args(argv)
    parser.check_bounds(args)
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
    args.images = args.images if args.images is SAMPLE else _expanded(args.images)
    if not args.input_dir and len(args.images) == 1 and Path(args.images[0]).is_dir():
        args.input_dir, args.images = args.images[0], SAMPLE
        named = args.output != DEFAULT_OUTPUT
        folder = args.output if named else str(Path("data_result", Path(args.input_dir).resolve().name))
        args.output_dir, args.output = args.output_dir or folder, DEFAULT_OUTPUT
    if bool(args.input_dir) != bool(args.output_dir) and not (args.input_dir and args.dry_run):
        parser.error("--input_dir needs --output_dir too, and the other way round")
    if args.input_dir and (args.images is not SAMPLE or args.metadata_from or args.reference):
        parser.error("--input_dir takes no exposures, no --metadata_from and no --reference beside it")
    if args.input_dir and args.output != DEFAULT_OUTPUT:
        parser.error("--input_dir writes into --output_dir: leave out -o, which names the picture of one scene")
    if not args.input_dir and (args.shots or args.dry_run or args.one_look):
        parser.error("--shots, --dry_run and --one_look are for a folder of scenes: give a folder")
    if args.one_look and args.skip_existing:
        parser.error("--one_look decides anew for all scenes together: leave out --skip_existing")
    args.weights = args.weights or shipped_weights(args.device)
    return args


def _expanded(names: list[str]) -> list[str]:
    """Returns names in which patterns such as *.jpg are replaced by the files of such names: some shells do not."""
    files: list[str] = []
    for name in names:
        found = [name] if os.path.exists(name) or not glob.has_magic(name) else sorted(glob.glob(name))
        if not found:
            raise UserError(f"{name}: no such file")
        files += found
    return files


def get_export_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Returns the settings of run_export.py from a command line (sys.argv where None)."""
    parser = Parser("Writes a DeepFuse_pyramid as ONNX, which fuses any number and size of exposures without PyTorch.")
    parser.add_argument("--weights", default=f"{ROOT}/runs/pretrained/deepfuse.pth", help="checkpoint to export")
    parser.add_argument("-o", "--output", help="file to write; by default that of --weights, with the suffix .onnx")
    args = parser.parse_args(argv)
    args.output = args.output or str(Path(args.weights).with_suffix(".onnx"))
    require("torch", "onnx", "onnxscript")
    return args


def get_app_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Returns the settings of run_app.py from a command line (sys.argv where None)."""
    parser = Parser("Opens a page in the browser that fuses the exposures dropped on it; nothing leaves this machine.")
    parser.add_argument("--weights", default=shipped_weights(), help="first choice; the page offers all in its folder")
    parser.add_argument("--device", default="auto", help=DEVICES)
    option = parser.add_argument("--host", default="127.0.0.1")
    option.help = "address to listen at; 0.0.0.0 serves the phone in the same network, too, by the printed address"
    parser.add_argument("--port", default=7860, type=int, help="the page is http://127.0.0.1:PORT")
    parser.add_argument("--browser", default=True, action=argparse.BooleanOptionalAction, help="open the browser")
    return parser.parse_args(argv)


def train_parser() -> Parser:
    """Returns the parser of run_train.py."""
    parser = Parser(
        "Trains DeepFuse on photographs or on exposure brackets. @FILE reads options from a file, such as "
        "@runs/pretrained/photo.args, a recipe for photographs; later options override them.",
        fromfile_prefix_chars="@",
    )
    parser.convert_arg_line_to_args = lambda line: shlex.split(line, comments=True)  # type: ignore
    add = parser.group("data")
    option = add("--image_path", default=["data_train"], nargs="+", resumed=NEW_BEST)
    option.help = "folders of photographs, searched recursively; objective mef: folders with one folder per scene"
    option = add("--photo_path", default=[], nargs="*", resumed=NEW_BEST)
    option.help = "objective mef: folders of photographs, from which some of the samples are simulated"
    option = add("--train_num", default=200, low=0, resumed=NEW_RUN)
    option.help = "samples per epoch, in whole batches, every photograph or scene equally likely; 0: one of each"
    option = add("--crop_size", default=256, low=16, resumed=NEW_RUN)
    option.help = "side of the training squares in pixels; mef, exposure: of one as large as the largest window"
    option = add("--patches", default=False, resumed=NEW_RUN)
    option.help = "mef, exposure: squares of the pictures' own pixels, as in the paper; else windows at any scale"
    option = add("--shots", default=list(SHOTS), type=int, nargs="+", low=2, below=33, resumed=NEW_RUN)
    option.help = "mef, exposure: numbers of shots to fuse, each as likely as the others; 2 for the paper's pairs"
    option = add("--val_fraction", default=0.1, low=0, below=1, resumed=NEW_BEST)
    option.help = "share held out for validation: of the scenes; for photographs, a share of the samples per epoch"
    add("--val_every", default=1, low=1, resumed=APART, help="epochs between validations")
    add("--val_path", resumed=NEW_BEST, help="objective mef: folder of scenes to validate on instead")
    add("--val_pairs", resumed=NEW_BEST, help="CSV table of pairs in --val_path: columns scene,under,over")
    add("--cache_mb", default=512, resumed=APART, help="objective mef: luminance kept in memory, in MB")
    add("--num_workers", default=0, low=0, resumed=APART, help="processes that prepare samples")
    add = parser.group("network")
    option = add("--model", default="auto")
    option.help = "network to train; auto: that of --weights, or DeepFuse (recon) or DeepFuse_pyramid (mef, exposure)"
    add("--gray", default=True, resumed=NEW_RUN, help="train on luminance (1 channel), otherwise RGB")
    add("--weights", resumed=NEW_RUN, help="start a new run from these weights (not .onnx)")
    add = parser.group("training")
    option = add("--objective", default="recon", resumed=NEW_RUN)
    option.help = "recon: reconstruct photographs; mef: fuse brackets; exposure: fuse shots simulated from photographs"
    option = add("--hidden", default=True, resumed=NEW_RUN)
    option.help = "mef, exposure: judge by all of the scene's shots, not only by those that the network is shown"
    option = add("--lum_weight", default=LUM_WEIGHT, low=0, resumed=NEW_BEST)
    option.help = "mef, exposure: weight of MEF-SSIM-lum, which fixes brightness"
    option = add("--clip_weight", default=CLIP_WEIGHT, low=0, resumed=NEW_BEST)
    option.help = "mef, exposure: weight of values beyond black and white; with 0 they are judged without being clipped"
    option = add("--scale_weights", default=list(SCALE_WEIGHTS), type=float, nargs="+", low=0, resumed=NEW_BEST)
    option.help = "mef, exposure: weights of MEF-SSIM at full size, half, a quarter, ..."
    add("--batch_size", default=4, low=1, resumed=NEW_RUN, help="samples per step")
    add("--num_epochs", default=100, low=1, help="epochs in total, those before a resume included")
    add("--lr", default=1e-4, low=0, help="learning rate at the start")
    option = add("--lr_schedule", default="exponential", choices=["constant", "exponential", "cosine"])
    option.help = "of Adam; exponential: times 0.9 per epoch; cosine: a short rise, then down to 0 at the end"
    add("--clip_grad", default=0.0, low=0, help="largest norm of the gradient; 0: no limit")
    option = add("--ema", default=0.0, low=0, below=1, resumed=NEW_RUN)
    option.help = "decay per step of the average of weights; 0: no average"
    add("--amp", default=False, help="run the network in bfloat16: faster")
    add("--seed", default=0, low=0, resumed=NEW_RUN, help="seed of everything random")
    add("--save_every", default=5.0, low=0, resumed=APART, help="minutes between checkpoints within an epoch")
    add = parser.group("run")
    add("--device", default="auto", resumed=SESSION, help=DEVICES)
    add("--runs_path", default="runs", resumed=APART, help="folder of all runs; each gets a folder in it")
    add("--run_name", resumed=APART, help="name of the run's folder; by default train_MM-DD_HH-MM")
    add("--resume_path", resumed=SESSION, help="run folder to continue, or a checkpoint in it")
    add("--verbose", "--output", default=True, resumed=SESSION, help="show settings, progress and results")
    return parser


def settings_with(*resumed: str) -> set[str]:
    """Returns the names of the settings of run_train.py that a resumed training treats in one of these ways."""
    return {name for name, setting in train_parser().settings.items() if setting.resumed in resumed}


def get_train_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Returns the settings of run_train.py from a command line (sys.argv where None); @FILE reads options from a file.

    A resumed run uses the settings stored in its run folder, except those given on the command line; `resume_path` is
    then the path of its checkpoint.

    Raises:
        ValueError: A setting of NEW_RUN differs from the resumed run's, or its stored settings are missing or damaged.
    """
    parser = train_parser()
    with parser.files_of_options():
        resumed, stored = parser.parse_args(argv).resume_path, {}
    if resumed:
        if Path(resumed).is_dir():
            resumed = str(Path(resumed, "checkpoints", "last.pth"))
        defaults = vars(parser.parse_args([]))
        defaults = {name: defaults[name] for name, one in parser.settings.items() if one.resumed != SESSION}
        stored = stored_settings(Path(resumed).absolute().parent.parent / "settings.json", defaults)
        parser.set_defaults(**stored)
    args = parser.parse_args(argv)
    args.resume_path = resumed
    require("torch", "tensorboard")
    for name, setting in parser.settings.items():
        value = getattr(args, name)
        if setting.resumed == NEW_RUN and value != stored.get(name, value):
            raise UserError(
                f"--{name} of the run is {stored[name]}, not {value}: "
                "keep it, or start a new run with --weights best.pth of this one"
            )
    parser.check_bounds(args)
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
    parser = Parser("Fuses scenes with several methods and scores the saved pictures.")
    add = parser.group("scenes")
    add("--data", default=f"{ROOT}/data_test", help="folder of scenes: one folder of shots per scene")
    add("--pairs", metavar="CSV", help="fuse two shots per scene: a table with the columns scene, under and over")
    add("--max_width", type=int, metavar="PIXELS", low=MIN_SIDE, help="shrink wider pictures to this width first")
    add("--reference", metavar="DIR", help="ground truth DIR/<scene>.png, for PSNR and SSIM")
    add = parser.group("methods")
    option = add("--weights", default=[f"{ROOT}/runs/pretrained/deepfuse.pth"], nargs="*", metavar="[NAME=]FILE")
    option.help = "checkpoints that run_infer.py loads"
    add("--device", default="auto", help=f"where checkpoints run: {DEVICES}")
    methods = ["average", "mertens", "enfuse"]
    option = add("--methods", default=methods, nargs="*", choices=methods)
    option.help = "other methods: the plain average, OpenCV's MergeMertens, and enfuse where it is installed"
    add("--results", default=[], nargs="*", metavar="NAME=DIR", help="pictures of other programs: DIR/<scene>.png")
    add = parser.group("scores")
    option = add("--full_stack", "--full-stack", default=True)
    option.help = "with --pairs: score against all shots of the scene, otherwise against the two that were fused"
    add("--lpips", default=False, help="with --reference: LPIPS and the NTIRE 2026 score (package lpips)")
    option = add("--iqa", default=[], nargs="*", metavar="NAME")
    option.help = "measures without a reference: brisque, musiq and others of the package pyiqa"
    add = parser.group("run")
    add("-o", "--output", default="data_result/eval", help="folder to write; an earlier evaluation in it is replaced")
    add("--jobs", default=1, low=1, help="processes; each scores one scene at a time")
    args = parser.parse_args(argv)
    parser.check_bounds(args)
    if args.lpips and args.reference is None:
        parser.error("--lpips compares with a reference picture: give --reference DIR too")
    name_methods(args, parser)
    require("torch", "scikit-image")
    return args


def name_methods(args: argparse.Namespace, parser: Parser) -> None:
    """Replaces --weights and --results by dicts from a method's name to its file or folder; refuses two of one name."""
    names = set(args.methods)
    for option in ("weights", "results"):
        found = {}
        for text in getattr(args, option):
            name, path = _named_path(text)
            if not path or option == "results" and "=" not in text:
                parser.error(f"--{option} must be {'NAME=DIR' if option == 'results' else '[NAME=]FILE'}, got {text!r}")
            if plain(name) in names:  # their pictures would share a folder
                parser.error(f"two methods are called {name}: give NAME={path} with another name")
            if not name or name != Path(name).name:
                parser.error(f"a method's name must be that of a folder, got {name!r} in {text}")
            names.add(plain(name))
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
