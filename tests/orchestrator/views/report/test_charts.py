"""Charts against matplotlib's own."""

import io
import re

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation

from penstock.orchestrator.views.report.charts import chart, logarithmic, style, svg

WORDS = re.compile(r"<text[^>]*>([^<]*)</text>")


def test_a_logarithmic_axis_has_the_labels_that_matplotlib_gives_it():
    values = np.geomspace(3e-2, 2e2, 9)

    def draw(axis):
        axis.plot(values)
        logarithmic(axis)

    words = WORDS.findall(chart("k", "title", "caption", draw))
    assert {"10⁻¹", "10⁰", "10¹", "10²"} <= set(words)

    def draw_narrow(axis):
        axis.plot([1.5e-2, 6e-2])
        logarithmic(axis)

    words = WORDS.findall(chart("k", "title", "caption", draw_narrow))
    figure = Figure()
    axis = figure.subplots()
    axis.plot([1.5e-2, 6e-2])
    axis.set_yscale("log")
    axis.yaxis.set_minor_formatter(LogFormatterSciNotation(labelOnlyBase=False))
    figure.draw_without_rendering()
    theirs = [label.get_text() for label in axis.get_yticklabels(minor=True) if label.get_text()]
    assert theirs and len(theirs) == sum("×10⁻²" in word for word in words)


def test_a_chart_is_what_savefig_makes():
    def figure():
        made = Figure(figsize=(4, 3), layout="constrained")
        axis = made.subplots()
        axis.plot([0, 1, 4], [3, 1, 2])
        axis.imshow(np.eye(3))
        return made

    with style():
        ours, buffer = svg(figure(), "k", 90), io.StringIO()
        figure().savefig(buffer, format="svg", dpi=90)
    data = re.compile(r' d="([^"]*)"')
    assert sorted(data.findall(ours)) == sorted(data.findall(buffer.getvalue()))
    assert re.findall('base64,[^"]*', ours) == re.findall('base64,[^"]*', buffer.getvalue())
