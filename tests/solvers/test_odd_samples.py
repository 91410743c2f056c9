"""Sixty odd samples as users bring them, packed exactly or refused by name.

Packed values are compared with NumPy's in float64.
"""

import decimal
import fractions
import warnings

import numpy as np
import pytest

from penstock.arrays.conversion import as_numbers
from penstock.errors import Refused
from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout, Sample
from penstock.solvers.parameters.space import ParameterSpace
from penstock.solvers.problem import Problem

SHAPE = (3, 4)
RANDOM = np.random.default_rng(0)
PLAIN = RANDOM.normal(size=SHAPE)
RAMP = np.arange(12.0).reshape(SHAPE)
LAYOUT = Layout((FieldSpec(name="k"),), (FieldSpec(name="u", on=Grid(SHAPE)),))


class Lazy:
    """An array of another library."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        if self.values is None:
            raise RuntimeError("the tensor is on a GPU\nand two lines are too many")
        return np.asarray(self.values)


PACKED = {  # the value, and what it is in float64
    "float64": (PLAIN, PLAIN),
    "float32": (PLAIN.astype("f4"), PLAIN.astype("f4")),
    "float16": (PLAIN.astype("f2"), PLAIN.astype("f2")),
    "long double": (PLAIN.astype(np.longdouble), PLAIN),
    "big-endian": (PLAIN.astype(">f8"), PLAIN),
    "Fortran's order": (np.asfortranarray(PLAIN), PLAIN),
    "a view from behind": (PLAIN[::-1, ::-1], PLAIN[::-1, ::-1]),
    "a broadcast view": (np.broadcast_to(PLAIN[0], SHAPE), np.tile(PLAIN[0], (3, 1))),
    "read-only": (np.frombuffer(PLAIN.tobytes()).reshape(SHAPE), PLAIN),
    "lists": (PLAIN.tolist(), PLAIN),
    "a tuple of arrays": (tuple(PLAIN), PLAIN),
    "a record array's column": (np.rec.array([(1, PLAIN)], dtype=[("i", int), ("u", float, SHAPE)]).u[0], PLAIN),
    "another library's array": (Lazy(PLAIN), PLAIN),
    "memory": (memoryview(np.ascontiguousarray(PLAIN)), PLAIN),
    "no mask": (np.ma.masked_array(PLAIN), PLAIN),
    "a mask of nothing": (np.ma.masked_greater(PLAIN, 1e9), PLAIN),
    "truth": (PLAIN > 0, (PLAIN > 0).astype(float)),
    "bytes": (RAMP.astype("u1"), RAMP),
    "integers": (RAMP.astype("i8") - 6, RAMP - 6),
    "the largest exact integers": (2**24 - RAMP.astype("i8"), 2.0**24 - RAMP),
    "a large even integer": (np.full(SHAPE, 2**40), np.full(SHAPE, 2.0**40)),
    "zeros": (np.zeros(SHAPE), np.zeros(SHAPE)),
    "minus zero": (np.full(SHAPE, -0.0), np.full(SHAPE, -0.0)),
    "a constant": (np.full(SHAPE, 101325.0), np.full(SHAPE, 101325.0)),
    "a constant up to a solver's rounding": (300 * (1 + 1e-13 * PLAIN), np.full(SHAPE, 300.0)),
    "one that float32 rounds": (np.full(SHAPE, 0.1), np.full(SHAPE, 0.1)),
    "near float32's end": (3e38 * np.tanh(PLAIN), 3e38 * np.tanh(PLAIN)),
    "small": (1e-30 * PLAIN, 1e-30 * PLAIN),
    "one small value among others": (np.where(RAMP == 3, 1e-50, PLAIN), np.where(RAMP == 3, 0, PLAIN)),
    "a jump of 1e12": (np.where(RAMP > 5, 1e12, 1.0), np.where(RAMP > 5, 1e12, 1.0)),
    "an offset that float32 holds": (300 + 0.05 * PLAIN, 300 + 0.05 * PLAIN),
    "noise that is meant, in float32": ((1e9 + RAMP).astype("f4"), np.full(SHAPE, 1e9)),
}

REFUSED = {
    "complex": (PLAIN + 1j * RAMP, "is complex: give its real and its imaginary part"),
    "complex without an imaginary part": (PLAIN + 0j, "is complex"),
    "a list of complex numbers": ((PLAIN + 2j).tolist(), "is complex"),
    "masked": (np.ma.masked_less(PLAIN, 0), r"is masked at \d+ of 12 points: fill them"),
    "masked everywhere": (np.ma.masked_all(SHAPE), "is masked at 12 of 12 points"),
    "a list of masked rows": ([np.ma.masked_less(row, 0) for row in PLAIN], "is masked at"),
    "dates": (np.datetime64("2026-11-29") + RAMP.astype("m8[D]"), "holds dates: give a number, such as seconds"),
    "durations": (RAMP.astype("m8[s]"), "holds durations"),
    "text": (PLAIN.astype(str), "is text: give numbers"),
    "bytes of text": (PLAIN.astype("S5"), "is text"),
    "text of any length": (PLAIN.astype(str).astype(np.dtypes.StringDType()), "is text"),
    "objects": (PLAIN.astype(object), "has dtype object: give an array of numbers"),
    "fractions": ([[fractions.Fraction(1, 3)] * 4] * 3, "has dtype object"),
    "decimals": ([[decimal.Decimal("0.1")] * 4] * 3, "has dtype object"),
    "integers beyond 64 bits": ([[2**70] * 4] * 3, "has dtype object"),
    "a gap": ([[1.0, None, 2.0, 3.0]] * 3, "has dtype object"),
    "a ragged list": ([[1.0, 2.0], [3.0]], "can't be read as an array: setting an array element"),
    "a structure": (np.zeros(SHAPE, [("x", float), ("y", float)]), r"has dtype \[\('x', '<f8'\), \('y', '<f8'\)\]"),
    "nothing": (None, "is None: give an array of numbers"),
    "a mapping": ({"values": PLAIN}, "is a dict: give"),
    "a generator": ((row for row in PLAIN), "is a generator: give"),
    "a function": (np.sin, "is a ufunc: give"),
    "an array elsewhere": (Lazy(None), "can't be read as an array: the tensor is on a GPU$"),
    "flat": (PLAIN.ravel(), r"has shape \(12,\), its FieldSpec says \(3, 4\)"),
    "turned": (PLAIN.T, r"has shape \(4, 3\)"),
    "a column": (PLAIN[..., None], r"has shape \(3, 4, 1\)"),
    "a number for a field": (1.0, r"has shape \(\), its FieldSpec says \(3, 4\)"),
    "not a number": (np.where(RAMP == 7, np.nan, PLAIN), "holds values that are not finite"),
    "infinity": (np.where(RAMP == 7, np.inf, PLAIN), "not finite"),
    "minus infinity": (np.full(SHAPE, -np.inf), "not finite"),
    "beyond float32": (1e39 * PLAIN, r"reaches 1\.\d+e\+39, beyond float32's 3\.4e\+38: give it in another unit or"),
    "one value beyond float32": (np.where(RAMP == 7, -1e39, PLAIN), r"reaches 1e\+39, beyond"),
    "below float32": (np.full(SHAPE, 1e-46), r"is 1e-46 at most, below float32's 1\.2e-38: give it in another unit"),
    "below float32's full precision": (1e-40 * PLAIN, "e-40 at most, below"),
    "integers that float32 rounds": (2**24 + RAMP.astype("i8"), "holds the integer 16777217, which float32 rounds"),
    "unsigned integers": (np.full(SHAPE, 2**64 - 1, "u8"), "holds the integer 18446744073709551615"),
    "mPa on an atmosphere": (101325 + 1e-3 * RAMP, "varies by 0.0035 about 101325, where float32 has steps of 0.0078"),
    "units on 1e9": (1e9 + RAMP, "varies by 3.5 about 1e.09, where float32 has steps of 64: give it less its offset"),
}


def pack(u, k=1.0):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # NumPy's warnings, such as that of a lost imaginary part, fail the test
        return LAYOUT.pack([Sample(inputs={"k": k}, outputs={"u": u})])


@pytest.mark.parametrize(("value", "expected"), PACKED.values(), ids=PACKED)
def test_a_sample_is_packed_as_it_is(value, expected):
    packed = pack(value)["targets"][0, 0]
    assert packed.dtype == np.float32
    np.testing.assert_array_equal(packed, np.asarray(expected, np.float64).astype(np.float32))


@pytest.mark.parametrize(("value", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_sample_is_refused_by_name_in_one_line(value, reason):
    with pytest.raises(Refused, match=f"^'u' .*{reason}") as refusal:
        pack(value)
    assert "\n" not in str(refusal.value)


def test_scalars_are_numbers_too():
    for k in (2, 2.5, True, np.float32(2.5), np.int8(3), np.array(2.5), 1e-30, 0, -3e38):
        assert pack(PLAIN, k)["scalars"][0, 0] == np.float32(k)
    for k, reason in (
        (2j, "complex"),
        ("2.5", "text"),
        (None, "None"),
        ([2.5], r"shape \(1,\)"),
        (1e-40, "below float32's"),
        (1e39, "beyond float32's"),
        (2**24 + 1, "16777217"),
        (np.datetime64("2026-11-29"), "dates"),
        (np.ma.masked, "masked at 1 of 1"),
        (np.nan, "not finite"),
    ):
        with pytest.raises(Refused, match=f"'k' .*{reason}"):
            pack(PLAIN, k)


@pytest.mark.parametrize("seed", range(30))
def test_what_is_packed_keeps_its_variation(seed):
    """A field of any offset and variation is kept by float32, or refused.

    Kept means that float32's rounding is below half of the variation, or that this is no more than rounding.
    """
    random = np.random.default_rng(seed)
    offset, scale = 10 ** random.uniform(-12, 12, 2)
    values = offset + scale * random.normal(size=SHAPE)
    deviation = values.std()
    try:
        packed = pack(values)["targets"][0, 0].astype(np.float64)
    except Refused:
        assert deviation < 6e-8 * np.abs(values).max()
    else:
        rounding = np.sqrt(np.mean((packed - values) ** 2))
        assert rounding <= deviation / 2 or deviation <= 1e-10 * np.abs(values).max()


@pytest.mark.parametrize("step", [0.0, 0.1, 1.0, np.float64(2), "1", None, -1, 2**63, 1j, (1,)])
def test_a_step_is_a_number_of_a_sample_and_no_time(step):
    with pytest.raises(ValueError, match="must be an integer from 0 on: number the samples"):
        Sample(inputs={}, outputs={}, step=step)


def test_steps_of_any_integer_type_are_taken():
    for step in (3, np.int32(3), np.uint8(3), np.array(3)):
        assert type(Sample(inputs={}, outputs={}, step=step).step) is int


@pytest.mark.parametrize("shape", [[64, 64], (np.int64(64), 64), np.array([64, 64])])
def test_a_shape_may_be_any_sequence_of_integers(shape):
    assert FieldSpec(name="u", on=Grid(shape)).shape == (64, 64)


@pytest.mark.parametrize("shape", [64, (64.0, 64.0), (64 / 2,), "64", ("64",), (0, 4), (-1,), None, ((64, 64),)])
def test_a_shape_that_is_none_is_refused_with_one_that_would_do(shape):
    with pytest.raises(ValueError, match=r"shape=.* must be whole numbers of points, .*\(64,\) on one axis"):
        FieldSpec(name="u", on=Grid(shape))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("lambda", "no keyword of Python"),
        ("class", "no keyword of Python"),
        ("pore pressure", "it must be an identifier"),
        ("", "it must be an identifier"),
        (3, "it must be an identifier"),
        (None, "it must be an identifier"),
        ("relative_l2", "none of"),
        ("\u00b5", "Python reads it as '\u03bc'; call it that"),  # the keyboard's micro sign, and Greek mu
    ],
)
def test_a_name_can_be_an_argument_of_the_exported_file(name, reason):
    with pytest.raises(ValueError, match=f"can't name a quantity: .*{reason}"):
        Layout((FieldSpec(name=name),), (FieldSpec(name="u", on=Grid((4,))),))


@pytest.mark.parametrize("inputs", [FieldSpec(name="k"), None, "k", ["k"], {"k": FieldSpec(name="k")}])
def test_inputs_that_are_no_tuple_of_specs_are_refused(inputs):
    class Own(Problem):
        simulate = None
        space = ParameterSpace()
        outputs = (FieldSpec(name="u", on=Grid((4,))),)

    Own.inputs, Own.__abstractmethods__ = inputs, frozenset()
    with pytest.raises(ValueError, match="inputs must be a tuple of FieldSpecs: "):
        assert Own().layout


def test_numbers_are_not_copied():
    assert as_numbers("u", PLAIN) is PLAIN


def test_a_problem_that_forgets_an_attribute_is_told_which():
    class Forgetful(Problem):
        def __init__(self):
            self.space = ParameterSpace()
            self.inputs = ()

        def simulate(self, parameters, solve):
            raise NotImplementedError

    with pytest.raises(ValueError, match=r"^self\.outputs must be set by __init__"):
        Forgetful().layout  # noqa: B018
