"""Errors of a user's code as lines, and signals distinguished from them."""

import os
import pickle
import signal
from functools import lru_cache, partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import MAX_CHARACTERS, PenstockError, describe, file_of, raised_by_signal, shortened, text_of


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


class Hostile(Exception):
    def __init__(self, text):
        self.text = text

    def __str__(self):
        if isinstance(self.text, BaseException):
            raise self.text
        return self.text


class Text(str):
    """An error with a text that can't be pickled."""

    def __reduce__(self):
        raise TypeError("not to be pickled")


@given(st.text(st.characters(exclude_categories=()), max_size=50))
def test_any_text_becomes_one_line_that_a_terminal_takes(text):
    for line in (describe(raised(ValueError(text))), str(PenstockError(text))):
        assert line.isprintable() and line.encode("utf-8").decode() == line
    assert "test_errors.py, line" in describe(raised(ValueError(text)))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError(os.fsdecode(b"mesh_\xff.msh")), r"ValueError: mesh_\udcff.msh ("),
        (ValueError(b"\xff\n"), r"ValueError: b'\xff\n' ("),
        (ValueError("a\n  b\r\n"), "ValueError: a b ("),
        (ValueError("\x1b[2Jgone\x00"), r"ValueError: \x1b[2Jgone\x00 ("),
        (ValueError(), "ValueError: no message ("),
        (Hostile(7), "Hostile: its text can't be read: that raises TypeError ("),
        (Hostile(RecursionError()), "Hostile: its text can't be read: that raises RecursionError ("),
        (Hostile(KeyboardInterrupt()), "Hostile: its text can't be read: that raises KeyboardInterrupt ("),
        (SystemExit("no licence"), "SystemExit: no licence ("),
        (KeyError("x"), "KeyError: 'x' ("),
        (BaseExceptionGroup("two", [ValueError(1), KeyboardInterrupt()]), "BaseExceptionGroup: two (2 sub-exceptions)"),
    ],
)
def test_errors_as_users_raise_them(error, expected):
    assert describe(raised(error)).startswith(expected)


def test_a_long_text_keeps_its_two_ends():
    text = text_of(ValueError("begin " + 1_000_000 * "x" + " end"))
    assert text.startswith("begin xxx") and text.endswith("xxx end") and len(text) < MAX_CHARACTERS + 10


def test_an_error_that_was_never_raised_has_no_place():
    assert describe(ValueError("bare")) == "ValueError: bare"
    assert not raised_by_signal(KeyboardInterrupt())


def test_a_line_travels_whatever_it_was_made_of():
    assert pickle.loads(pickle.dumps(text_of(Hostile(Text("text"))))) == "text"


def signalled(number: signal.Signals) -> BaseException:
    try:
        signal.raise_signal(number)
        raise AssertionError("no handler raised")
    except BaseException as error:
        return error


def test_signals_are_told_from_the_same_error_of_a_users_code(monkeypatch):
    def leave(number, frame):
        raise SystemExit(128 + number)

    assert raised_by_signal(signalled(signal.SIGINT))  # the handler of Python itself
    before = signal.signal(signal.SIGTERM, leave)
    try:
        assert raised_by_signal(signalled(signal.SIGTERM))
    finally:
        signal.signal(signal.SIGTERM, before)
    for error in (KeyboardInterrupt(), SystemExit(143), GeneratorExit(), ValueError("SIGINT")):
        assert not raised_by_signal(raised(error))


def test_the_place_is_in_the_file_of_the_function_that_was_given():
    """The error is raised in a library that it calls, as by a mesh generator."""

    def build(num):
        return np.zeros(num)

    own = partial(lru_cache(build), -1)
    with pytest.raises(ValueError, match="negative dimensions") as caught:
        own()
    assert file_of(own) == file_of(Hostile) == __file__ and file_of(Hostile(7)) == __file__
    assert file_of(7) is None
    assert f"({__file__}, line " in describe(caught.value, file_of(own))


def test_a_line_that_is_repeated_keeps_its_beginning_and_what_to_do():
    remedy = "is_spd=True is wrong for this matrix, which is not symmetric: leave it out"
    text = f"family 'pressure': cg + gamg: {'; '.join(['PETSc: diverged_breakdown'] * 7)}; {remedy}"
    line = shortened(text)
    assert (
        line.startswith("family 'pressure': cg + gamg: PETSc: ") and line.endswith(f"; {remedy}") and len(line) <= 205
    )
    assert shortened(line[:200]) == line[:200]
    assert shortened("x" * 300) == f"{'x' * 100} ... {'x' * 100}"
