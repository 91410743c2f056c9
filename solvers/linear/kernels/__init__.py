"""The compiled loops, and the way they reach PETSc and BLAS.

The C files beside this one build into `_kernels` without PETSc's headers: they call `MatMult`, `PCApply` and BLAS
through the addresses that `library` hands them, on handles such as `PETSc.Mat.handle`.
"""

from __future__ import annotations

import ctypes
from functools import cache

from penstock.errors import PenstockError


class _Api(ctypes.Structure):
    """The struct `Api` of kernels.h."""

    _fields_ = [
        (name, ctypes.c_void_p)
        for name in (
            "MatMult",
            "PCApply",
            "KSPGetAndClearConvergenceTest",
            "KSPSetConvergenceTest",
            "VecPlaceArray",
            "VecResetArray",
            "MatNullSpaceRemove",
            "MatSeqAIJGetArrayRead",
            "MatSeqAIJRestoreArrayRead",
            "MatSeqAIJGetCSRAndMemType",
            "VecGetArrayRead",
            "VecRestoreArrayRead",
            "VecGetArrayWrite",
            "VecRestoreArrayWrite",
            "dgemv",
            "dgemm",
        )
    ]


@cache
def library() -> ctypes.PyDLL:
    """The kernels, ready to be called.

    Calls hold the GIL, because preconditioners may be written in Python. Raises PenstockError where the kernels were
    not built.
    """
    try:
        from penstock.solvers.linear.kernels import _kernels
    except ImportError as error:
        raise PenstockError(
            f"penstock's compiled kernels are missing ({error}): install a C compiler, then penstock again"
        ) from error
    from petsc4py import PETSc
    from scipy.linalg import cython_blas

    petsc = ctypes.CDLL(PETSc.__file__)  # it also finds the symbols of its libraries
    kernels = ctypes.PyDLL(_kernels.__file__)
    api = _Api.in_dll(kernels, "api")
    for name, _ in _Api._fields_:
        if name.startswith("d"):
            address = _pointer_in(cython_blas.__pyx_capi__[name])
        else:
            address = ctypes.cast(getattr(petsc, name), ctypes.c_void_p).value
        setattr(api, name, address)
    return kernels


def _pointer_in(capsule) -> int:
    name_of, pointer_in = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
    pointer_in.restype, pointer_in.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return pointer_in(capsule, name_of(capsule))
