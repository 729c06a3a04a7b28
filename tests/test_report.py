"""Tables and contact sheets: what they say and how they are laid out."""

import numpy as np
import pytest

from utils.evaluation import report
from utils.evaluation.report import FIDELITY, MEF_SSIM, Column, Table

VALUES = {"a": (0.9, 0.8, 0.7), "b": (0.9, 0.85, 0.6)}


@pytest.fixture
def rows():
    """Two methods on three scenes: MEF-SSIM from VALUES, the other columns the scene's number."""
    return [
        {"scene": f"s{i}", "method": name, "mef_ssim": value, "mef_ssim_fused": 1 - value, "fused": 3, "exposures": 3}
        | {column.key: i for column in FIDELITY[1:]}
        for name, scores in VALUES.items()
        for i, value in enumerate(scores)
    ]


def cells(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "|" in line]


def test_fidelity_has_means_worst_scenes_and_wins(rows):
    rows[0]["viff"] = float("nan")
    text = report.markdown(report.fidelity_table(rows, "Fidelity"))
    assert text.startswith("Fidelity:\n\n| method")
    heading, _, a, b = cells(text)
    assert heading == ["method", *(c.heading for c in FIDELITY), "95 % interval", "worst scene", "wins"]
    means = ["1.0000", "1.0000"]
    assert a == ["a", "0.8000", *means, "1.5000", "0.700 to 0.900", "0.7000 (s2)", "2"]  # the tie in s0 counts for both
    assert b == ["b", "0.7833", *means, "1.0000", "0.600 to 0.900", "0.6000 (s2)", "2"]
    assert len({len(line) for line in text.splitlines() if "|" in line}) == 1


def test_the_fused_shots_have_a_column_where_more_were_scored(rows):
    rows[-1]["exposures"] = 5
    heading, _, a, b = cells(report.markdown(report.fidelity_table(rows)))
    assert heading[1:4] == ["MEF-SSIM", "pair alone", "MEF-SSIM-lum"]
    assert (a[2], b[2]) == ("0.2000", "0.2167")


def test_the_best_is_bold_in_latex(rows):
    columns = [MEF_SSIM, Column("mef_ssim_fused", "less & less", ".2f", "", "lower"), Column("viff", "v_1", ".1f", "")]
    lines = report.latex(report.mean_table(rows, columns, "Means")).splitlines()
    assert lines[0] == "% Means; needs \\usepackage{booktabs}"
    assert lines[1:4] == [r"\begin{tabular}{lrrr}", r"\toprule", r"method & MEF-SSIM & less \& less & v\_1 \\"]
    assert lines[5] == r"a & \textbf{0.8000} & \textbf{0.20} & 1.0 \\"
    assert lines[6] == r"b & 0.7833 & 0.22 & 1.0 \\"
    odd = report.latex(Table("", ["a{b}"], [[r"50 % \ #1"]]))
    assert r"a\{b\} \\" in odd and r"50 \% \textbackslash{} \#1 \\" in odd


def test_scenes_have_a_line_each(rows):
    heading, _, *lines = cells(report.markdown(report.scene_table(rows)))
    assert heading == ["scene", "a", "b"]
    assert lines == [["s0", "0.9000", "0.9000"], ["s1", "0.8000", "0.8500"], ["s2", "0.7000", "0.6000"]]


def test_the_interval_is_the_normal_one_for_many_scenes():
    values = np.random.default_rng(0).normal(0.9, 0.05, 400)
    half = 1.96 * values.std() / 20
    assert report.interval(values) == pytest.approx((values.mean() - half, values.mean() + half), abs=half / 10)
    assert report.interval(values) == report.interval(values)
    assert report.interval([0.7]) == (0.7, 0.7)


def test_sheets_hold_every_picture():
    grays = {f"{level}": np.full((30, 60, 3), level, np.uint8) for level in (60, 120, 180, 240)}
    sheet = report.contact_sheet(grays, width=120)
    assert sheet.shape == (2 * 88, 2 * 128, 3)
    middles = [sheet[28 + 30 + y, 64 + x, 0] for y in (0, 88) for x in (0, 128)]
    assert middles == [60, 120, 180, 240]
