/* The extension module: an empty one, because the kernels are called through ctypes (see __init__.py). */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "kernels.h"

Api api;

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_kernels", "Compiled loops.", -1, NULL};

PyMODINIT_FUNC PyInit__kernels(void) { return PyModule_Create(&definition); }
