# make demo    a text-to-video pipeline, unpatched and patched, into demo_out/
# make quality methods against each other on four videos of the demo model, into quality_out/
# make bench   each op against PyTorch, compiled PyTorch and its roof (the quick form), into bench_out/
# make test    every check: lint, the tests of csrc/, the tests of the package in JOBS=2 processes
# Both install the package the ordinary way into .venv, with the versions of constraints.txt.

PYTHON ?= python3
JOBS ?= 2
SHIFT ?= 8
BIN := .venv/bin
SOURCES := $(shell find adacache_kernels csrc python -type f ! -name '*.pyc' ! -name '*.so') \
           CMakeLists.txt MANIFEST.in constraints.txt pyproject.toml setup.py
PROMPTS := "a white two standing still" "a white nine moving slowly" "a white four moving fast" \
           "a white seven moving fast"
CPP := $(shell find csrc python tests -name '*.[ch]pp')
# Without optimization: it takes the compiler four times as long to optimize the kernels of a
# sanitizer.
CTEST_OPTIONS := -G Ninja -DADACACHE_BUILD_PYTHON=OFF -DADACACHE_BUILD_TESTS=ON \
                 -DADACACHE_CUDA=OFF -DCMAKE_CXX_FLAGS_RELEASE=-O0
OUTPUT_SYNC := $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)

.PHONY: demo quality bench test pytest ctest ctest-tsan lint clean

demo: .venv/demo
	$(BIN)/adacache demo --out demo_out

quality: .venv/demo
	$(BIN)/adacache bench quality --pipeline demo --out quality_out --prompts $(PROMPTS) --methods \
	  slow fast forecast even:25:forecast=1 even:17:forecast=1 profile:computed_steps=25 refined:25 \
	  profile:computed_steps=17 refined:17 steps:25:DPMSolverMultistepScheduler \
	  steps:17:DPMSolverMultistepScheduler pab:latte-slow t-gate:latte

bench: .venv/demo
	$(BIN)/python -m bench.ops.run --quick --out bench_out

# mypy has one thread, so the tests of csrc/ are compiled beside it. Without MAKEFLAGS, ninja does not
# look for the jobserver of make, which a plain recipe does not get.
test: .venv/dev
	$(MAKE) --jobs $(JOBS) $(OUTPUT_SYNC) lint ctest
	$(MAKE) pytest

# Every second model that a test builds lies SHIFT bytes further (tests/support/addresses.py). MKL
# sums products of matrices that do not begin at a multiple of 16 bytes in another order. A test that
# compares bits of different addresses fails then. It costs no time. SHIFT=0 moves nothing.
pytest: .venv/dev
	ADACACHE_TEST_SHIFT_BYTES=$(SHIFT) $(BIN)/pytest --numprocesses $(JOBS) --dist worksteal \
	  --durations=20

ctest: .venv/dev ctest-tsan
	$(BIN)/cmake -S . -B build/cpp $(CTEST_OPTIONS) \
	  -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) \
	  -DCMAKE_CXX_FLAGS="-fsanitize=address,undefined -fno-sanitize-recover=all" $(CMAKE_ARGS)
	MAKEFLAGS= $(BIN)/cmake --build build/cpp
	$(BIN)/ctest --test-dir build/cpp --output-on-failure --parallel $(JOBS)

# The tests with several threads. test_thread_pool forks and starts threads in the child, where the
# sanitizer gives up unless an option forbids it.
ctest-tsan: .venv/dev
	$(BIN)/cmake -S . -B build/tsan $(CTEST_OPTIONS) \
	  -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) \
	  -DCMAKE_CXX_FLAGS="-fsanitize=thread" $(CMAKE_ARGS)
	MAKEFLAGS= $(BIN)/cmake --build build/tsan --target thread_tests
	TSAN_OPTIONS=die_after_fork=0 $(BIN)/ctest --test-dir build/tsan --output-on-failure \
	  --parallel $(JOBS) -R '^(thread_pool|arena|cuda_arena|cuda_mailbox_threads)$$'

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(CPP)
	$(BIN)/mypy adacache_kernels
	$(BIN)/lint-imports

# The stamp of an extra: the package and what it needs are in .venv, and no older than the sources.
.venv/demo .venv/dev: .venv/%: $(SOURCES) | $(BIN)/python
	rm -rf build/lib.*
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt ".[$*]"
	touch $@

$(BIN)/python:
	$(PYTHON) -m venv .venv

clean:
	rm -rf .venv build demo_out quality_out bench_out
