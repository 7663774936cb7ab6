# Everything a newcomer needs: `make demo` and `make test`. Both make the environment on their first call,
# `make demo` a smaller one.
PYTHON ?= python3
BIN := .venv/bin
# Without it, idle threads spin: on a busy machine small networks take several times as long.
export OMP_WAIT_POLICY ?= passive
# Where it is set, as in many containers, each start compiles the libraries anew, for up to ten seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo demo-text test test-slow bench docs lint wheel lock clean

# A shorter training than the recipe's 8,000 iterations, and pictures of the shipped students: under 2.5 minutes.
demo: .venv/text
	$(BIN)/simdistill sample fashion-mnist --out runs/clothes.png
	$(BIN)/simdistill sample faces --prompts faces --out runs/faces.png
	$(BIN)/simdistill distill digits --iterations 3000 --overwrite
	@echo "Open runs/digits/report.html, and see the shipped students' runs/clothes.png and runs/faces.png"

# Text to image by the shipped student: faces for 20 captions, in seconds.
demo-text: .venv/text
	$(BIN)/simdistill sample faces --prompts faces --out runs/faces.png
	@echo "Open runs/faces.png; \`$(BIN)/simdistill demo faces\` opens a page to type prompts into"

test: .venv/ready
	$(BIN)/pytest -n 2 -m "not slow"

# The end-to-end runs, minutes each; pages need Chromium (`playwright install chromium`), new faces Node.js.
test-slow: .venv/ready
	$(BIN)/pytest -n 2 --dist worksteal -m slow --timeout 900

# Speed, memory and time to quality against a plain loop: renews benchmarks/results.json and docs/speed.md.
bench: .venv/ready
	$(BIN)/python -m benchmarks

# The site of docs/ into site/, with warnings as errors; needs Python 3.11.
docs: .venv/ready
	$(BIN)/python -m docs.site

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

wheel: .venv/ready
	$(BIN)/python -m build --wheel --no-isolation

# uv is fast; UV_FIND_LINKS hands it the places that pip is told to look in, if any.
INSTALL := UV_FIND_LINKS="$$PIP_FIND_LINKS" VIRTUAL_ENV="$(CURDIR)/.venv" $(BIN)/uv pip install --quiet -c constraints.txt

# What the demo needs, without the tools of `make test`.
.venv/text: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(INSTALL) -e ".[text]"
	touch $@

.venv/ready: .venv/text
	$(INSTALL) -e ".[dev]"
	touch $@

# Renew the exact pins after a change of pyproject.toml, for every Python that it allows.
lock:
	UV_FIND_LINKS="$$PIP_FIND_LINKS" $(BIN)/uv pip compile --universal --python-version 3.10 --all-extras --no-header \
		--no-annotate pyproject.toml -o constraints.txt
	# what torch itself needs on a GPU follows from its own pins
	sed -i -E "/^(nvidia|cuda|triton)/d" constraints.txt

clean:
	rm -rf .venv dist runs site
