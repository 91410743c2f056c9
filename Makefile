# Each target makes .venv when it is missing; nothing else needs to be installed but Python, make and a C compiler.
PYTHON_VERSIONS := 3.13 3.12
# The newest of them that runs, from the path or from pyenv (whose shims stand on the path but may not run).
PYTHON := $(firstword $(foreach version,$(PYTHON_VERSIONS),$(shell \
	for python in python$(version) $$(ls -d $(HOME)/.pyenv/versions/$(version).*/bin/python 2>/dev/null | sort -rV) python3; do \
		"$$python" -c 'import sys, venv, ensurepip; sys.exit("%d.%d" % sys.version_info[:2] != "$(version)")' 2>/dev/null \
			&& command -v "$$python" && break; done)))

.PHONY: demo test test-fast lint docs clean

demo: .venv/installed
	.venv/bin/penstock train examples/darcy.yaml

# Runs from end to end have processes of their own, with as many threads as a user's. They wait for much: three at once.
test: .venv/installed-test
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2 --ignore=tests/end_to_end
	.venv/bin/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder tests/end_to_end

# While you work: what needs neither Ray nor patience.
test-fast: .venv/installed-test
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2 --ignore=tests/end_to_end -m "not slow"

lint: .venv/installed-test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

# What is written by programs: the tree of the files, the configuration with all of its keys, the gallery, and the
# pictures of the models.
docs: .venv/installed
	.venv/bin/python docs/tree.py
	.venv/bin/python docs/configuration.py
	.venv/bin/python docs/gallery.py
	.venv/bin/python docs/models.py

clean:
	rm -rf .venv build *.egg-info

.venv/bin/python:
	@if [ -z "$(PYTHON)" ]; then \
		echo "penstock needs Python $(lastword $(PYTHON_VERSIONS)) to $(firstword $(PYTHON_VERSIONS)): none runs from the path or ~/.pyenv/versions." >&2; \
		echo "Install one (apt install python3.12 python3.12-venv, conda, or pyenv install 3.12), then call make again." >&2; \
		exit 1; fi
	"$(PYTHON)" -m venv .venv

.venv/installed: pyproject.toml $(wildcard solvers/linear/kernels/*.[ch]) | .venv/bin/python
	@echo "installing penstock with PyTorch, Ray, DOLFINx and PETSc into .venv: about two minutes and 6 GB"
	.venv/bin/pip install --quiet --disable-pip-version-check -e '.[fenics]'
	@touch $@

.venv/installed-test: pyproject.toml $(wildcard solvers/linear/kernels/*.[ch]) | .venv/installed
	.venv/bin/pip install --quiet --disable-pip-version-check -e '.[fenics,geometry,test]'
	@touch $@
