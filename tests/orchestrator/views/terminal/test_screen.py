"""What commands print for people, for scripts, and not at all; bars on terminals of any kind."""

import io
import json
import os

import pytest
from rich.console import Console
from rich.table import Column, Table

from penstock.orchestrator.views.terminal import screen as screens
from penstock.orchestrator.views.terminal.progress import Bar, Pairs
from penstock.orchestrator.views.terminal.screen import Form, Screen


@pytest.fixture
def clock(monkeypatch):
    """The monotonic time of progress, as a list of one number."""
    now = [1000.0]
    monkeypatch.setattr(screens.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def terminal(monkeypatch):
    """A function from a value of TERM to what was written to such a terminal, after a progress of 2 of 8 draws."""

    def write(kind):
        monkeypatch.setenv("TERM", kind)
        master, slave = os.openpty()
        with os.fdopen(slave, "w") as file:
            monkeypatch.setattr("sys.stdout", file)
            screen = Screen()
            with screen.progress("draws") as progress:
                progress.show(2, 8)
            screen.say("a line")
            screen.drain()
            text = ""
            while not text.endswith("a line\r\n"):  # it comes in parts
                text += os.read(master, 100_000).decode()
            return text

    return write


def printed(capfd, form, clock):
    screen = Screen(form)
    screen.tell("odd")
    with screen.progress("draws") as progress:
        for second in range(25):
            clock[0] += 1.0
            progress.show(second, 100, "3 samples/s")
    screen.say("8 samples")
    screen.give("result", {"samples": 8})
    screen.drain()
    return capfd.readouterr().out.splitlines()


def test_people_have_a_line_every_10_s_without_a_terminal(capfd, clock):
    lines = ["9 of 100 draws, 1:31 left, 3 samples/s", "19 of 100 draws, 1:21 left, 3 samples/s"]
    assert printed(capfd, Form.PEOPLE, clock) == ["odd", *lines, "8 samples"]


def test_scripts_have_an_object_per_line_and_nothing_else(capfd, clock):
    lines = [json.loads(line) for line in printed(capfd, Form.JSON, clock)]
    assert lines == [{"kind": "note", "text": "odd"}, {"kind": "result", "samples": 8}]


def test_quiet_is_quiet(capfd, clock):
    assert printed(capfd, Form.QUIET, clock) == []


def test_stages_that_take_different_times_predict_none(capfd, clock):
    screen = Screen()
    with screen.progress("stages", is_even=False) as progress:
        for stage in range(3):
            clock[0] += 20.0
            progress.show(stage, 3, "tracing")
    screen.drain()
    assert capfd.readouterr().out == "".join(f"{stage} of 3 stages, tracing\n" for stage in range(3))


def test_a_terminal_has_a_bar_that_goes_and_keeps_its_cursor_whatever_ends_the_process(terminal):
    text = terminal("xterm-256color")
    assert "━" in text and "2 of 8 draws, time left -" in text
    assert "\x1b[?25l" not in text  # the cursor is never hidden, so nobody has to bring it back
    assert text.endswith("\x1b[2Ka line\r\n")


def test_colours_are_left_out_where_nobody_wants_them(terminal, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[9" not in terminal("xterm-256color") and "\x1b[38" not in terminal("xterm-256color")


def test_a_terminal_that_can_not_replace_lines_has_plain_ones(terminal):
    assert terminal("dumb") == "a line\r\n"


@pytest.mark.parametrize(("width", "of_bar"), [(12, 12), (39, 39), (40, 10), (80, 40)])
def test_the_words_of_a_bar_are_whole_beside_or_below_it(width, of_bar):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    words = "35 % of 2000 steps, 2:10 left"
    console.print(Bar(7, 20, words))
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert text.replace("━", "").replace("╸", "").split() == words.split()
    bar = max(text.splitlines(), key=lambda line: line.count("━"))
    assert (bar.count("━") + bar.count("╸") / 2) / of_bar == pytest.approx(0.35, abs=0.1)


PAIRS = [("step", "771"), ("", "0.0456 p99, 0.0706 max"), ("validation error", "0.0166 mean, of a surface 表面")]


@pytest.mark.parametrize("width", [100, 44, 30])
def test_labels_with_values_look_as_in_a_table_of_rich(width):
    table = Table.grid(Column(width=16), Column(width=width - 18), padding=(0, 2))
    for pair in PAIRS:
        table.add_row(*pair)
    shown = []
    for what in (Pairs(PAIRS), table):
        console = Console(file=io.StringIO(), width=width)
        console.print(what)
        shown.append([line.rstrip() for line in console.file.getvalue().splitlines()])
    assert shown[0] == shown[1]


def test_no_value_can_steer_the_terminal():
    console = Console(file=io.StringIO(), width=40, force_terminal=True, no_color=True)
    console.print(Pairs([("constant", "\x07a\x1b[2J\b")]))
    assert not {"\x07", "\b"} & set(console.file.getvalue())
