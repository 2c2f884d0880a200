# Needs make and Python >= 3.11. Everything it makes stays in this directory.
#   make test PYTHON=python3.12                       chooses the interpreter
#   make test PYTHON=python3.12 VENV=.venv/python3.12 keeps it beside another one

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: demo test apart check docs bench dist clean help chosen

VENV := .venv
python := $(VENV)/bin/python
candidates := $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11)

# What a shell has set for other projects must not reach into this one, nor this one out of .venv.
unexport PYTHONHOME PYTHONPATH PYTHONDONTWRITEBYTECODE
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_REQUIRE_VIRTUALENV := 1
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
export NO_MKDOCS_2_WARNING := 1

demo: $(VENV)/.demo  ## serve example_app.py at http://127.0.0.1:8000
	$(python) example_app.py

# Coverage is measured where it is judged, with all servers: it makes the tests half as slow again.
coverage := $(if $(TEST_SERVERS),--cov --cov-report= --cov-fail-under=0)
more_coverage := $(if $(coverage),$(coverage) --cov-append)

test: $(VENV)/.tests$(if $(TEST_DATABASE_URLS)$(TEST_SERVERS),-servers)  ## run the test suite on SQLite, and on each of TEST_DATABASE_URLS
	@# In their order: files of few tests, some of which take longest, would come last, one processor idle.
	$(python) -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not waits and not alone" $(coverage)
	@# Three, however few processors there are, as they wait: the groups of tests/conftest.py, and the
	@# rest. Only where they are is named: to look through the others takes each process seconds.
	$(python) -m pytest -n 3 --dist loadgroup -m waits $(more_coverage) tests/browser tests/clients tests/cluster tests/libraries/test_providers.py tests/servers
	@# When nothing runs beside (.ci/run waits here). 5: none was chosen, as PYTEST_ADDOPTS may have it.
	$(BEFORE_ALONE)
	$(python) -m pytest -m alone $(more_coverage) tests/servers || [ $$? = 5 ]
	$(if $(coverage),$(python) -m coverage report)

# Each file has a process of its own, since FastHTML changes Starlette for all.
apart:  ## run the tests of libraries that are large, or change others by being installed
	$(MAKE) --no-print-directory VENV=$(VENV)/apart $(VENV)/apart/.libraries-apart
	for file in tests/libraries/apart/test_*.py; do \
	  TEST_APART=1 $(VENV)/apart/bin/python -m pytest $$file || exit 1; \
	done

check: $(VENV)/.dev  ## style, types, and the types that users see, on the pages too
	$(python) -m ruff check
	$(python) -m ruff format --check
	$(VENV)/bin/lint-imports
	$(python) -m mypy
	$(python) -m pyright
	$(python) .ci/page_types.py
	@# It looks for the package where the first python of the PATH would.
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" pyright --verifytypes asgi_sessions --ignoreexternal

docs: $(VENV)/.docs  ## build the documentation as a site, in build/site; a broken link is an error
	@# Not with --quiet: then it would overlook warnings.
	$(python) -m mkdocs build

bench:  ## measure it beside its peers; make bench ARGS=--quick takes less than two minutes
	@# A directory of their own: they hold SQLAlchemy back.
	$(MAKE) --no-print-directory VENV=$(VENV)/peers $(VENV)/peers/.bench
	$(VENV)/peers/bin/python -m benchmarks $(ARGS)

dist: $(VENV)/.release  ## build the release into dist/, try its wheel, list what it depends on in build/
	rm -rf dist $(VENV)/wheel
	mkdir -p build
	$(python) -m build
	@# An environment with the wheel, what it asks for and nothing else, not even pip.
	$(python) -m venv --without-pip $(VENV)/wheel
	$(python) -m pip --python $(VENV)/wheel/bin/python install --quiet dist/*.whl
	$(python) -m pip --python $(VENV)/wheel/bin/python check
	cd $(VENV)/wheel && bin/python -I $(CURDIR)/.ci/try_wheel.py
	$(VENV)/bin/cyclonedx-py environment $(VENV)/wheel/bin/python --pyproject pyproject.toml \
	  --output-reproducible --output-file build/sbom.cdx.json

clean:  ## remove what the other targets have made, the demo's people and sessions too
	rm -rf .demo-secret demo.db* starlette-demo.db* fastapi-demo.db* litestar-demo.db* sso-demo.db*
	rm -rf $(VENV) build dist benchmarks/out .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*  ## \(.*\)/make \1	\2/p' $(firstword $(MAKEFILE_LIST))

# The package, editable, with a dependency group; again when pyproject.toml has changed.
$(VENV)/.%: pyproject.toml | $(VENV)/.ready chosen
	$(python) -m pip install --quiet --group $* --editable .
	@touch $@

$(VENV)/.ready:
	@found=; for candidate in $(candidates); do \
	  if "$$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
	      >/dev/null 2>&1; then found=$$candidate; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo 'No Python >= 3.11 with venv found; tried: $(candidates).' >&2; \
	  echo 'Install one (on Debian: apt install python3 python3-venv), or name it: make PYTHON=...' >&2; \
	  exit 1; \
	fi; \
	echo "$$found -m venv $(VENV)"; "$$found" -m venv $(VENV)
	@# Groups (PEP 735) need pip 25.1; Python brings an older one.
	@$(python) -m pip install --help | grep -q -e --group || \
	  $(python) -m pip install --quiet --upgrade 'pip>=25.1'
	@touch $@

# A PYTHON that is named has to be the one that $(VENV) was made with.
chosen: $(VENV)/.ready
	@version='import sys; print(sys.version)'; \
	for candidate in $(or $(PYTHON),$(python)); do \
	  if [ "$$("$$candidate" -c "$$version" 2>&1)" = "$$($(python) -c "$$version")" ]; then exit; fi; \
	done; \
	echo '$(VENV) was made with another Python than $(PYTHON).' >&2; \
	echo 'Run make clean first, or name another directory: VENV=$(VENV)/other' >&2; \
	exit 1
