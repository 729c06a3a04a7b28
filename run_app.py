"""A page in the browser that fuses the exposures dropped on it, on this machine alone: python run_app.py."""

import argparse
import functools
import os
import tempfile
from pathlib import Path

import cv2

from configs import get_app_args
from utils.errors import UserError, clear, exit_on_error
from utils.fusing.fusion import Fuser
from utils.pictures.image import IMAGE_SUFFIXES, read_photo, write_image

PREVIEW_SIDE = 2400  # pixels, longest side in the slider: browsers cannot show TIFF, and 20 MP are slow
FORMATS = (".jpg", ".png", ".tif", ".webp")
ALIGN = {"no": None, "shifts": "mtb", "shifts and turns": "homography"}  # label on the page -> argument of `Fuser`
load = functools.lru_cache(1)(Fuser.from_checkpoint)


def main(args: argparse.Namespace) -> None:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported: nothing is sent anywhere
    with tempfile.TemporaryDirectory(prefix="deepfuse-") as folder:  # uploads and results, deleted when the page ends
        os.environ["GRADIO_TEMP_DIR"] = folder
        print(f"The page is http://127.0.0.1:{args.port}, for this machine alone; Ctrl-C ends it")
        page, theme = build_page(args, Path(folder))
        page.launch(
            server_name="127.0.0.1",  # nobody else's machine can reach it
            server_port=args.port,
            inbrowser=args.browser,
            share=False,
            theme=theme,
            footer_links=[],
            quiet=True,
        )


def build_page(args: argparse.Namespace, folder: Path):
    """Returns the page (a gradio.Blocks that writes its files into `folder`) and its theme.

    Raises:
        ValueError: Gradio is not installed.
    """
    try:
        import gradio as gr
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed: pip install gradio") from error

    def fuse(files, weights, align, deghost, suffix, progress=gr.Progress()):  # noqa: B008  Gradio finds its bar by the default
        """Returns the page's new state: previews, radio of the shots' names, the slider's two pictures, download."""
        here = Path(tempfile.mkdtemp(dir=folder))
        out = here / f"fused{suffix}"
        try:
            progress(0.1, "loading the network")
            fuser = load(weights, args.device)
            progress(0.2, "fusing")
            fuser.fuse_files(files or [], out, align=ALIGN[align], deghost=deghost)
            progress(0.9, "preparing the view")
            shots = {Path(path).name: preview(path, here / f"{k}.jpg") for k, path in enumerate(files)}
            after = preview(out, here / "after.jpg")
        except Exception as error:
            raise gr.Error(str(clear(error)), duration=None) from error  # stays until it is closed
        first = next(iter(shots))
        choose = gr.Radio(choices=list(shots), value=first, visible=True)
        return (shots, after), choose, (shots[first], after), gr.DownloadButton(value=out, interactive=True)

    def pictures(paths):
        return [path for path in paths if Path(path).suffix.lower() in IMAGE_SUFFIXES]

    def compare(previews, name):
        shots, after = previews
        return shots[name], after

    every, age = 600, 3600  # seconds: while the page is open, files older than `age` are deleted every `every`
    with gr.Blocks(title="DeepFuse", analytics_enabled=False, delete_cache=(every, age)) as page:
        gr.Markdown(
            "# DeepFuse\nDrop two or more exposures of one scene, or choose their folder. Nothing leaves this machine."
        )
        previews = gr.State()
        with gr.Row():
            with gr.Column(scale=1):
                files = gr.File(label="Exposures", file_count="multiple", file_types=list(IMAGE_SUFFIXES), height=190)
                folder_button = gr.UploadButton("Choose a folder", file_count="directory", size="sm")
                align = gr.Radio(list(ALIGN), value="no", label="Align hand-held shots")
                deghost = gr.Checkbox(label="Take out what moved between the shots")
                weights = gr.Dropdown(known_weights(args.weights), value=args.weights, label="Weights")
                suffix = gr.Radio(FORMATS, value=".jpg", label="Format")
                button = gr.Button("Fuse", variant="primary")
                download = gr.DownloadButton("Download", interactive=False)
            with gr.Column(scale=3):
                slider = gr.ImageSlider(
                    label="An exposure, and the fused picture",
                    type="filepath",
                    height=640,
                    buttons=["fullscreen"],  # no download here: it would give the small preview
                )
                choose = gr.Radio(label="Compare with", visible=False)
        folder_button.upload(pictures, folder_button, files)
        button.click(fuse, [files, weights, align, deghost, suffix], [previews, choose, slider, download])
        choose.input(compare, [previews, choose], slider)
    return page, gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"])  # no fonts from the web


def known_weights(first: str) -> list[tuple[str, str]]:
    """Returns (name, path) of the weights to choose from: `first`, then the others in its folder."""
    beside = sorted(str(path) for path in Path(first).parent.glob("*") if path.suffix in (".pth", ".onnx"))
    return [(Path(path).name, path) for path in dict.fromkeys([first, *beside])]


def preview(path: str | os.PathLike, out: Path) -> str:
    """Writes a picture of any format to `out` as a JPEG that browsers can show; returns that path."""
    image, _ = read_photo(path)
    image = image[..., :3] if image.ndim == 3 else image
    scale = PREVIEW_SIDE / max(image.shape[:2])
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    write_image(out, image)
    return str(out)


if __name__ == "__main__":
    with exit_on_error():
        main(get_app_args())
