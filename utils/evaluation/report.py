"""Scores for people: the columns and their definitions, tables in Markdown and LaTeX, contact sheets."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from utils.pictures.pixels import captioned

Row = dict[str, Any]  # of one scene and method: texts "scene" and "method", and a number per column
RESAMPLES = 10_000  # bootstrap samples: enough to fix an interval's ends to about 2 % of its width


@dataclass(frozen=True)
class Column:
    """A score: key in a row, heading and number format in tables, definition, and which values are better."""

    key: str
    heading: str
    form: str
    definition: str
    better: str = ""  # "higher", "lower", or "" if it does not measure quality


@dataclass(frozen=True)
class Table:
    """A table of texts; the first column holds names, `best` the (line, cell) of the best value of each column."""

    caption: str
    heading: list[str]
    lines: list[list[str]]
    best: set[tuple[int, int]] = field(default_factory=set)


MEF_SSIM = Column("mef_ssim", "MEF-SSIM", ".4f", "Ma, Zeng and Wang, TIP 2015: structure, three scales", "higher")
MEF_SSIM_FUSED = Column(
    "mef_ssim_fused", "pair alone", ".4f", "MEF-SSIM against the two shots that were fused", "higher"
)
FIDELITY = (
    MEF_SSIM,
    Column(
        "mef_ssim_lum", "MEF-SSIM-lum", ".4f", "MEFNet's training metric, TIP 2020: structure and brightness", "higher"
    ),
    Column("q_abf", "Q_abf", ".4f", "Xydeas and Petrovic 2000: share of the shots' edges that is kept, 0..1", "higher"),
    Column("viff", "VIFF", ".4f", "Han et al. 2013: visual information kept; raised contrast gives more", "higher"),
)
COLOUR = (
    Column("colour_difference", "a, b difference", ".2f", "mean distance in a, b of CIELAB", "lower"),
    Column("hue_error", "hue error", ".2f", "mean error of hue in degrees, where there is colour", "lower"),
    Column("saturation", "saturation", ".3f", "share of the true chroma; 1 is best"),
)
PROFILE = tuple(
    Column(f"scale_{2**i}", f"1/{2**i}", ".3f", "mean of the MEF-SSIM map at this scale", "higher") for i in range(6)
)
LOOK = (
    Column("entropy", "entropy", ".3f", "bits of the gray histogram; noise raises it"),
    Column("average_gradient", "gradient", ".3f", "average gradient as in MEFB; noise and halos raise it"),
    Column("standard_deviation", "SD", ".2f", "standard deviation of gray"),
    Column("spatial_frequency", "SF", ".2f", "spatial frequency as in MEFB; noise and sharpening raise it"),
    Column("colourfulness", "colour", ".2f", "colourfulness of Hasler and Suesstrunk 2003, on RGB"),
    Column("mean_luma", "luma", ".1f", "mean gray, 0..255"),
    Column("clipped", "clipped %", ".2f", "pixels of gray 0 or 255, in percent"),
)
REFERENCE = (
    Column("psnr", "PSNR", ".2f", "dB against the reference picture, over R, G and B", "higher"),
    Column("ssim", "SSIM", ".4f", "Wang 2004 against the reference picture, Gaussian window, gray", "higher"),
)
LPIPS = (
    Column("lpips", "LPIPS", ".4f", "Zhang et al. 2018 (AlexNet) to the reference picture", "lower"),
    Column("ntire", "NTIRE 2026", ".2f", "30 PSNR/50 + 22.5 (SSIM - .5)/.5 + 30 (1 - LPIPS/.4)", "higher"),
)


def more_than_fused(rows: Sequence[Row]) -> bool:
    """Returns whether pictures are scored against more shots than were fused."""
    return any(row["exposures"] > row["fused"] for row in rows)


def fidelity_table(rows: Sequence[Row], caption: str = "") -> Table:
    """Returns the means of FIDELITY per method, with MEF-SSIM's 95 % interval, worst scene and wins; best mean first.

    A win is a scene in which no other method has a higher MEF-SSIM; equal methods share it. If pictures are scored
    against more shots than were fused, a column has MEF-SSIM against the fused shots alone.
    """
    fused_alone = [MEF_SSIM_FUSED] if more_than_fused(rows) else []
    table = mean_table(rows, [MEF_SSIM, *fused_alone, *FIDELITY[1:]], caption)
    best = {row["scene"]: max(r["mef_ssim"] for r in rows if r["scene"] == row["scene"]) for row in rows}
    for line, own in zip(table.lines, _by_method(rows).values(), strict=True):
        low, high = interval([row["mef_ssim"] for row in own])
        worst = min(own, key=lambda row: row["mef_ssim"])
        wins = sum(row["mef_ssim"] == best[row["scene"]] for row in own)
        line += [f"{low:.3f} to {high:.3f}", f"{worst['mef_ssim']:.4f} ({worst['scene']})", f"{wins}"]
    return Table(caption, [*table.heading, "95 % interval", "worst scene", "wins"], table.lines, table.best)


def mean_table(rows: Sequence[Row], columns: Sequence[Column], caption: str = "") -> Table:
    """Returns the means of these columns per method; "nan" where no scene has a value."""
    by_method = _by_method(rows)
    means = [[_mean(own, column) for column in columns] for own in by_method.values()]
    lines = [
        [name, *(format(x, column.form) for x, column in zip(values, columns, strict=True))]
        for name, values in zip(by_method, means, strict=True)
    ]
    return Table(caption, ["method", *(column.heading for column in columns)], lines, _best(lines, columns))


def scene_table(rows: Sequence[Row], column: Column = MEF_SSIM, caption: str = "") -> Table:
    """Returns one column's values, with a line per scene and a cell per method."""
    methods = list(_by_method(rows))
    values = {(row["scene"], row["method"]): format(row[column.key], column.form) for row in rows}
    scenes = dict.fromkeys(row["scene"] for row in rows)
    lines = [[scene, *(values[scene, method] for method in methods)] for scene in scenes]
    return Table(caption, ["scene", *methods], lines)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Returns the 95 % confidence interval of the mean of the scenes' scores (percentile bootstrap, fixed seed)."""
    values = np.asarray(values)
    drawn = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.quantile(values[drawn].mean(1), [0.025, 0.975])
    return float(low), float(high)


def markdown(table: Table) -> str:
    """Returns a table in Markdown: names aligned left, numbers aligned right."""
    widths = [max(map(len, cells)) for cells in zip(table.heading, *table.lines, strict=True)]
    pad = [str.ljust] + [str.rjust] * (len(widths) - 1)
    rule = ["-" * widths[0]] + ["-" * (width - 1) + ":" for width in widths[1:]]
    texts = (table.heading, *table.lines)
    rows = [[f(cell, width) for f, cell, width in zip(pad, line, widths, strict=True)] for line in texts]
    lines = ["| " + " | ".join(cells) + " |" for cells in (rows[0], rule, *rows[1:])]
    return "\n".join([f"{table.caption}:", "", *lines, ""])


def latex(table: Table) -> str:
    """Returns a table in LaTeX (package booktabs), the best mean of each column in bold."""
    lines = [
        [f"\\textbf{{{_escaped(cell)}}}" if (i, j) in table.best else _escaped(cell) for j, cell in enumerate(line)]
        for i, line in enumerate(table.lines)
    ]
    heading, *body = (" & ".join(cells) + r" \\" for cells in ([*map(_escaped, table.heading)], *lines))
    tabular = [
        rf"\begin{{tabular}}{{l{'r' * (len(table.heading) - 1)}}}",
        *(r"\toprule", heading, r"\midrule", *body, r"\bottomrule"),
        r"\end{tabular}",
    ]
    return "\n".join([f"% {table.caption}; needs \\usepackage{{booktabs}}", *tabular, ""])


def contact_sheet(pictures: dict[str, np.ndarray], width: int = 480) -> np.ndarray:
    """Returns one picture that shows all pictures (H, W, 3) BGR uint8 labelled, `width` wide, in up to four columns."""
    height = round(width * max(image.shape[0] / image.shape[1] for image in pictures.values()))
    columns = min(4, len(pictures), max(1, round(1.4 * np.sqrt(len(pictures) * height / width))))
    tiles = []
    for label, image in pictures.items():
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        tiles.append(captioned(cv2.copyMakeBorder(small, 0, 0, 4, 4, cv2.BORDER_CONSTANT, value=(32,) * 3), label))
    tiles += [np.full_like(tiles[0], 32)] * (-len(tiles) % columns)
    return np.vstack([np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)])


def _by_method(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Returns each method's rows, the best mean of MEF-SSIM first."""
    names = dict.fromkeys(row["method"] for row in rows)
    own = {name: [row for row in rows if row["method"] == name] for name in names}
    return dict(sorted(own.items(), key=lambda item: -np.mean([row["mef_ssim"] for row in item[1]])))


def _mean(rows: Iterable[Row], column: Column) -> float:
    """Returns the mean over the scenes that have this score; NaN where none has."""
    values = [row[column.key] for row in rows if not np.isnan(row[column.key])]
    return float(np.mean(values)) if values else float("nan")


def _best(lines: Sequence[Sequence[str]], columns: Sequence[Column]) -> set[tuple[int, int]]:
    """Returns the (line, cell) of the best values, compared as printed, of each column that measures quality."""
    best = set()
    for j, column in enumerate(columns, start=1):
        values = [float(line[j]) for line in lines]
        if column.better and not np.isnan(values).all():
            limit = np.nanmax(values) if column.better == "higher" else np.nanmin(values)
            best |= {(i, j) for i, value in enumerate(values) if value == limit}
    return best


def _escaped(text: str) -> str:
    marks = {mark: rf"\{mark}" for mark in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\~{}", "^": r"\^{}"}
    return "".join(marks.get(mark, mark) for mark in text)
