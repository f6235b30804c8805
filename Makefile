# distill. Two commands on a fresh Debian or Ubuntu, as root or with sudo:
#
#   make quickstart     build, then distil the shipped teacher into a student and print what came of it
#   make test           build, run all suites and the command-line tests
#
# Others: deps, install (PREFIX=/usr/local), bench, asan, check-layers, check-headers, check-format, format, clean.
# gpu-bundle: what goes to a machine with a GPU, whose script tests/gpu-check is (docs/gpu.md); gpu-check-dry tries it here.
# make fuzz: every parser fuzzed for FUZZ_SECONDS=60; make fuzz TARGET=template FUZZ_SECONDS=600: one of them. With clang and libFuzzer.
# A part of the house alone, say while another part does not compile: make suites B=build/mine ROOMS="kernels/base datasets" TESTS=tests/datasets
# Settings: CC=clang, DNNL=0 (without oneDNN: products by plain loops, for a reference that needs no library), DEBUG=1 (allocation guard on, little optimisation), WERROR=1, SAN=address,undefined, B=folder of the build, JOBS=N.
# A changed setting rebuilds what it touches. Sources are found by wildcard: a new file needs no line here. Everything under build/ may be deleted.

B ?= build
PREFIX ?= /usr/local
JOBS ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(JOBS)
endif
ifeq ($(CI),true)
WERROR ?= 1
endif

# ---- what is built ----

ROOMS ?= distill teacher student kernels datasets
TESTS ?= tests
DNNL ?= 1
DNNL_ON := $(filter-out 0,$(DNNL))
SRC := $(shell find $(ROOMS) -name '*.c' -not -path 'kernels/cpu/isa/*' -not -path 'kernels/cuda/*' -not -path kernels/cpu/$(if $(DNNL_ON),plain,dnnl).c | LC_ALL=C sort)
ISA_SRC := $(if $(filter kernels kernels/cpu,$(ROOMS)),$(sort $(wildcard kernels/cpu/isa/*.c)))
# A suite a file: tests/ROOM/test_NAME.c defines `Suite *suite_NAME(void)`. Other .c files under tests/ are helpers of the suites.
TEST_SRC := $(shell find tests/main.c tests/paths.c $(TESTS) -name '*.c' -not -path tests/all.c -not -path 'tests/bench/*' -not -path 'tests/golden/*' -not -path 'tests/fuzz/*' -not -path 'tests/simt/*' | LC_ALL=C sort -u)
BENCH_SRC := $(sort $(wildcard tests/bench/*.c))
SUITES := $(patsubst test_%.c,%,$(notdir $(filter %.c,$(foreach f,$(TEST_SRC),$(if $(filter test_%,$(notdir $f)),$f)))))

# kernels/cpu/isa is compiled once for each instruction set; which copy runs is chosen at run time. Elsewhere: portable x86-64.
ISAS := generic
ifneq ($(filter x86_64% amd64%,$(shell $(CC) -dumpmachine 2>/dev/null)),)
ISAS := generic avx2 avx512 avx512bf16
endif
ISA_FLAGS_generic :=
ISA_FLAGS_avx2 := -mavx2 -mfma -mf16c
ISA_FLAGS_avx512 := $(ISA_FLAGS_avx2) -mavx512f -mavx512bw -mavx512dq -mavx512vl
ISA_FLAGS_avx512bf16 := $(ISA_FLAGS_avx512) -mavx512bf16

# kernels/cuda is compiled twice: by nvcc into the program, where the CUDA Toolkit is (CUDA=0: not), and by g++ into the tests, where
# tests/simt runs each of its threads.
NVCC ?= $(firstword $(shell command -v nvcc 2>/dev/null) $(wildcard /usr/local/cuda/bin/nvcc))
CUDA ?= $(if $(NVCC),1,0)
CUDA_ON := $(filter-out 0,$(CUDA))
CU_SRC := $(if $(filter kernels,$(ROOMS)),$(sort $(wildcard kernels/cuda/*.cu)))
CU_TABLE := $(if $(CU_SRC),$B/obj/kernels/cuda/table.o)
CU_OBJ := $(if $(CUDA_ON),$(CU_SRC:%.cu=$B/obj/%.cu.o) $(CU_TABLE))
SIMT_OBJ := $(if $(CU_SRC),$(patsubst %.cu,$B/obj/simt/%.o,$(filter-out %/library.cu,$(CU_SRC))) $(patsubst %,$B/obj/%.o,$(filter-out %/absent.c,$(wildcard tests/simt/*.cc tests/simt/*.c))) $(CU_TABLE))

OBJ := $(SRC:%.c=$B/obj/%.o) $(foreach isa,$(ISAS),$(ISA_SRC:%.c=$B/obj/%.$(isa).o))
LIB_OBJ := $(filter-out $B/obj/distill/main.o,$(OBJ))
TEST_OBJ := $(TEST_SRC:%.c=$B/obj/%.o) $B/obj/tests/suites.o
BENCH_OBJ := $(BENCH_SRC:%.c=$B/obj/%.o)

# ---- flags ----

ifdef DEBUG
CFLAGS ?= -Og -g
else
CFLAGS ?= -O2 -g
endif
# Products are not fused into sums behind our back: results must not depend on the compiler's mood. The isa files fuse where they mean to.
FLAGS := -std=gnu11 -fopenmp -ffp-contract=off -Wall -Wextra -Wshadow
FLAGS += $(if $(findstring fuzzer,$(SAN)),-DFUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION -Wno-pass-failed) $(if $(WERROR),-Werror) $(if $(DEBUG),-DDISTILL_DEBUG) $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer)
ISA_COMMON := -O3 -ffp-contract=fast -fno-math-errno -fno-trapping-math
INCLUDES := -I. -D_GNU_SOURCE
ifdef STATIC # all but the C library in the file itself: for a machine that has nothing else (make gpu-bundle)
LIBS := -l:libjansson.a -l:libpcre2-8.a -l:libutf8proc.a -l:libcrypto.a -l:libgomp.a -static-libgcc -lm -ldl -pthread
CHECK_LIBS := -l:libcheck.a -l:libsubunit.a -lrt -lm -pthread
LIBSTDCXX := -l:libstdc++.a
else
LIBS := $(if $(DNNL_ON),-ldnnl) -ljansson -lpcre2-8 -lutf8proc -lcrypto -lm
CHECK_LIBS := $(shell pkg-config --libs check 2>/dev/null || echo -lcheck -lsubunit -lrt -lm) -pthread
LIBSTDCXX := -lstdc++
endif
# Machine code for A100, L40 and H100, PTX for what is newer. CUDA_ARCHS=90a builds for one only.
CUDA_ARCHS ?= 90a 80 89 100
CUDA_HOME = $(patsubst %/bin/nvcc,%,$(NVCC))
CUDA_GENCODE = $(foreach a,$(CUDA_ARCHS),$(if $(filter 100 120,$a),-gencode=arch=compute_$a$(comma)code=compute_$a,-gencode=arch=compute_$a$(comma)code=sm_$a))
CUDA_FLAGS = -std=c++17 -O3 -lineinfo $(CUDA_GENCODE) $(if $(filter 90a,$(CUDA_ARCHS)),-DCUDA_SM_90A) -Xcompiler=-Wall,-Wextra,-Wno-unused-function -Wno-deprecated-gpu-targets $(if $(WERROR),-Werror=all-warnings)
# Where it must travel it is packed as well as nvcc can (12.8 and newer).
CUDA_FLAGS += $(if $(STATIC),$(shell $(NVCC) --help 2>/dev/null | grep -q -e --compress-mode && echo --compress-mode=size))
# cuDNN's headers, 9.21 and newer: where the toolkit's are, or in CUDNN_HOME/include, or in python3's wheel. Without them it is left out.
ifndef CUDNN_HOME
CUDNN_HOME := $(if $(CUDA_ON),$(shell python3 -c 'import nvidia.cudnn as c; print(list(c.__path__)[0])' 2>/dev/null))
endif
CUDNN_FLAGS = $(if $(wildcard $(CUDNN_HOME)/include/cudnn.h),-I$(CUDNN_HOME)/include)
CUDA_LIBS = -L$(CUDA_HOME)/lib64 -lcudart_static -ldl -lrt $(LIBSTDCXX) -pthread
NVCOMPILE = $(NVCC) $(CUDA_FLAGS) $(INCLUDES) $(CUDNN_FLAGS)
comma := ,
SIMT_COMPILE = $(CXX) -x c++ -std=gnu++17 -ffp-contract=off -Wall -Wextra -Wno-unused-function -Wno-unknown-pragmas $(if $(WERROR),-Werror) $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer) $(CFLAGS) $(INCLUDES) -Itests/simt/include $(CPPFLAGS)
COMPILE = $(CC) $(FLAGS) $(CFLAGS) $(INCLUDES) $(CPPFLAGS)
LINK = $(if $(STATIC),$(filter-out -fopenmp,$(COMPILE)) -no-pie,$(COMPILE)) $(LDFLAGS)
DEPGEN = -MMD -MP

.PHONY: cuda-check gpu-bundle gpu-check-dry all deps quickstart test suites bench install asan fuzz check-layers check-headers check-format format clean FORCE
.DELETE_ON_ERROR:
all: $B/distill

# Files that change only when what they record changes: the flags, and the lists of sources (so that a deleted file relinks).
define stamp
@mkdir -p $(@D); printf '%s\n' '$(subst ','\'',$(1))' | cmp -s - $@ || printf '%s\n' '$(subst ','\'',$(1))' > $@
endef
$B/flags: FORCE
	$(call stamp,$(COMPILE) $(ISA_COMMON) $(LDFLAGS) $(LIBS))
$B/cuda-flags: FORCE
	$(call stamp,$(NVCOMPILE))
$B/simt-flags: FORCE
	$(call stamp,$(SIMT_COMPILE))
$B/sources: FORCE
	$(call stamp,$(OBJ) $(CU_OBJ))
$B/test-sources: FORCE
	$(call stamp,$(TEST_SRC))
# Headers and libraries, looked for before the first file is compiled: a missing one is named with its package.
$B/deps.ok: $B/flags .ci/deps
	@DNNL='$(DNNL)' CC='$(CC)' CPPFLAGS='$(CPPFLAGS)' LDFLAGS='$(LDFLAGS)' sh .ci/deps check build && touch $@

$B/distill: $(OBJ) $(CU_OBJ) $B/sources
	$(LINK) -o $@ $(OBJ) $(CU_OBJ) $(LIBS) $(if $(CU_OBJ),$(CUDA_LIBS))
$B/obj/kernels/cuda/%.cu.o: kernels/cuda/%.cu $B/cuda-flags
	@mkdir -p $(@D)
	$(NVCOMPILE) -MD -MP -MF $(@:.o=.d) -c -o $@ $<
$B/obj/simt/%.o: %.cu $B/simt-flags
	@mkdir -p $(@D)
	$(SIMT_COMPILE) $(DEPGEN) -c -o $@ $<
$B/obj/tests/simt/%.cc.o: tests/simt/%.cc $B/simt-flags
	@mkdir -p $(@D)
	$(SIMT_COMPILE) $(DEPGEN) -c -o $@ $<
$B/obj/tests/simt/%.c.o: tests/simt/%.c $B/flags
	@mkdir -p $(@D)
	$(COMPILE) $(DEPGEN) -c -o $@ $<
$B/obj/%.o: %.c $B/flags $B/deps.ok
	@mkdir -p $(@D)
	$(COMPILE) $(DEPGEN) -c -o $@ $<
define isa_rule
$B/obj/kernels/cpu/isa/%.$(1).o: kernels/cpu/isa/%.c $B/flags $B/deps.ok
	@mkdir -p $$(@D)
	$$(COMPILE) $$(ISA_COMMON) $(ISA_FLAGS_$(1)) -DISA=$(1) $$(DEPGEN) -c -o $$@ $$<
endef
$(foreach isa,$(ISAS),$(eval $(call isa_rule,$(isa))))

# What ptxas says of each kernel: registers, shared memory, spills. Any warning fails, and any spill but in the kernels that the
# script excuses; all targets are compiled.
cuda-check:
	@NVCC='$(NVCC)' CUDA_ARCHS='$(CUDA_ARCHS)' sh .ci/cuda-check

# What travels to a machine that has a GPU, its driver and python3, and nothing else: build/gpu-bundle. Then tests/gpu-check there.
gpu-bundle:
	@[ -n '$(NVCC)' ] || { echo 'nvcc was not found, and the bundle holds GPU code: install the CUDA Toolkit, or say make gpu-bundle NVCC=/path/to/nvcc' >&2; exit 1; }
	@$(MAKE) --no-print-directory B=build/gpu DNNL=0 STATIC=1 CUDA=1 CUDA_ARCHS=90a build/gpu/tests/all
	@sh .ci/gpu-bundle build/gpu build/gpu-bundle

# tests/gpu-check itself, on the emulated GPU and tiny shapes: what a lease will do works before there is one.
gpu-check-dry: $B/tests/distill-simt $B/tests/run-all $B/tests/bench-simt
	tests/gpu-check check --dry-run --out $B/gpu-check.md
	tests/gpu-check bench --dry-run --out $B/gpu-bench.md

# ---- tests ----

$B/tests/run-all: $(LIB_OBJ) $(TEST_OBJ) $(SIMT_OBJ) $B/sources $B/test-sources
	@mkdir -p $(@D)
	$(LINK) -o $@ $(LIB_OBJ) $(TEST_OBJ) $(SIMT_OBJ) $(LIBS) $(CHECK_LIBS) $(if $(SIMT_OBJ),-lstdc++)
# The program with the emulated GPU: what tests/cli runs with --device cuda. DISTILL_SIMT=1 gives it one.
$B/tests/distill-simt: $(OBJ) $(SIMT_OBJ) $B/sources
	@mkdir -p $(@D)
	$(LINK) -o $@ $(OBJ) $(SIMT_OBJ) $(LIBS) -lstdc++
# The suites over the CUDA backend itself: they want a GPU.
$B/tests/run-gpu: $(LIB_OBJ) $(TEST_OBJ) $(CU_OBJ) $B/obj/tests/simt/absent.o $B/sources $B/test-sources
	@mkdir -p $(@D)
	$(LINK) -o $@ $(LIB_OBJ) $(TEST_OBJ) $(CU_OBJ) $B/obj/tests/simt/absent.o $(LIBS) $(CHECK_LIBS) $(CUDA_LIBS)
# Program, suites and benchmarks in one file: tests/all.c. Each part is one object whose only name is its main.
$B/tests/part-distill.o: $B/obj/distill/main.o
$B/tests/part-suites.o: $(TEST_OBJ) $B/obj/tests/simt/absent.o
$B/tests/part-bench.o: $(BENCH_OBJ)
$B/tests/part-%.o: $B/sources $B/test-sources
	@mkdir -p $(@D)
	$(LD) -r -o $@ $(filter %.o,$^)
	objcopy --redefine-sym main=$*_main --keep-global-symbol=$*_main $@
$B/tests/all: $(LIB_OBJ) $(CU_OBJ) $B/tests/part-distill.o $B/tests/part-suites.o $B/tests/part-bench.o $B/obj/tests/all.o
	$(LINK) -o $@ $(filter %.o,$^) $(LIBS) $(CHECK_LIBS) $(CUDA_LIBS)
$B/tests/suites.c: $B/test-sources
	@mkdir -p $(@D)
	@{ echo '#include "tests/test.h"'; for s in $(SUITES); do echo "Suite *suite_$$s(void);"; done; echo 'const struct suite_entry all_suites[] = {'; \
	for s in $(SUITES); do echo "    {\"$$s\", suite_$$s},"; done; echo '    {0},'; echo '};'; } > $@
$B/obj/tests/suites.o: $B/tests/suites.c
	@mkdir -p $(@D)
	$(COMPILE) -c -o $@ $<
# Where they find their files, unless $DISTILL_TEST_ROOT says.
$B/obj/tests/paths.o $B/obj/tests/bench/main.o: INCLUDES += -DTEST_ROOT='"$(CURDIR)"'

deps:
	@sh .ci/deps install build test

# Only the suites, or some of them: make suites SUITE="base options".
suites: $(if $(filter distill,$(ROOMS)),$B/distill) $B/tests/run-all
	$B/tests/run-all $(SUITE)

test:
	@DNNL='$(DNNL)' sh .ci/deps install build test
	@$(MAKE) --no-print-directory $B/distill $B/tests/run-all $(if $(SIMT_OBJ),$B/tests/distill-simt)
	@sh .ci/test $B

quickstart:
	@sh .ci/deps install build
	@$(MAKE) --no-print-directory $B/distill CUDA=$(if $(wildcard /dev/nvidia[0-9]*),$(CUDA),0)
	@sh teacher/tiny/quickstart.sh

asan:
	@ASAN_OPTIONS=detect_stack_use_after_return=0 CK_TIMEOUT_MULTIPLIER=5 $(MAKE) --no-print-directory B=build/asan SAN=address,undefined DEBUG=1 suites

# A target a file, tests/fuzz/NAME.c (fuzz.[ch] is what they share). Built in a folder of its own from the rooms that parse, as an archive,
# so that a target links what it needs. The corpus grows in build/fuzz/corpus; what was found lies in build/fuzz/findings.
FUZZ_CC ?= clang
FUZZ_SECONDS ?= 60
FUZZ_JOBS ?= 1
FUZZ_TARGETS := $(filter-out fuzz,$(patsubst tests/fuzz/%.c,%,$(sort $(wildcard tests/fuzz/*.c))))
FUZZ_ROOMS := $(foreach room,kernels/base kernels/model kernels/tensor datasets teacher/arch student/arch distill/options,$(filter $(room)%,$(SRC)))
FUZZ_ARCHS := $(foreach arch,$(notdir $(basename $(wildcard teacher/arch/*.c student/arch/*.c))),X($(arch)))
fuzz:
	@CC='$(FUZZ_CC)' sh .ci/deps install build fuzz
	@$(MAKE) --no-print-directory B=build/fuzz CC='$(FUZZ_CC)' SAN=fuzzer-no-link,address,undefined \
	    $(foreach t,$(or $(TARGET),$(FUZZ_TARGETS)),build/fuzz/fuzz-$t)
	@sh .ci/fuzz build/fuzz $(FUZZ_SECONDS) $(FUZZ_JOBS) $(or $(TARGET),$(FUZZ_TARGETS))
$B/parsers.a: $(FUZZ_ROOMS:%.c=$B/obj/%.o) $B/obj/tests/fuzz/fuzz.o $B/sources
	rm -f $@ && ar rcs $@ $(filter %.o,$^)
$B/fuzz-%: $B/obj/tests/fuzz/%.o $B/parsers.a
	$(COMPILE) -fsanitize=fuzzer $(LDFLAGS) -o $@ $< $B/parsers.a $(filter-out -ldnnl,$(LIBS))
$B/obj/tests/fuzz/config.o: private CPPFLAGS += '-DARCHS=$(FUZZ_ARCHS)'

$B/bench: $(LIB_OBJ) $(BENCH_OBJ) $(CU_OBJ) $B/sources
	$(LINK) -o $@ $(LIB_OBJ) $(BENCH_OBJ) $(CU_OBJ) $(LIBS) $(if $(CU_OBJ),$(CUDA_LIBS))
$B/tests/bench-simt: $(LIB_OBJ) $(BENCH_OBJ) $(SIMT_OBJ) $B/sources
	$(LINK) -o $@ $(LIB_OBJ) $(BENCH_OBJ) $(SIMT_OBJ) $(LIBS) -lstdc++
bench: $(if $(BENCH_SRC),$B/bench) $B/distill
	@if [ -f tests/bench/run.sh ]; then sh tests/bench/run.sh $B; elif [ -x $B/bench ]; then $B/bench | tee $B/bench.txt; else echo "no benchmarks yet: tests/bench is empty"; fi

# ---- the rest ----

install: $B/distill
	install -d '$(DESTDIR)$(PREFIX)/bin' '$(DESTDIR)$(PREFIX)/share/bash-completion/completions'
	install -m 755 $B/distill '$(DESTDIR)$(PREFIX)/bin/distill'
	$B/distill completion bash > '$(DESTDIR)$(PREFIX)/share/bash-completion/completions/distill'

check-layers:
	@sh .ci/check-layers

HEADERS = $(shell find distill teacher student kernels datasets tests -name '*.h' -not -path 'tests/simt/include/*' -not -path tests/simt/simt.h | LC_ALL=C sort)
check-headers: # each header compiles alone
	@for h in $(HEADERS); do echo "#include \"$$h\"" | $(COMPILE) -DISA=generic -fsyntax-only -x c - || { echo "$$h does not compile alone"; exit 1; }; done

CLANG_FORMAT ?= $(shell command -v clang-format-14 || echo clang-format)
FORMATTED = $(shell find distill teacher student kernels datasets tests -name '*.[ch]' -o -name '*.cc' -o -name '*.cu' -o -name '*.cuh' | LC_ALL=C sort)
format:
	$(CLANG_FORMAT) -i $(FORMATTED)
check-format:
	@$(CLANG_FORMAT) --dry-run -Werror $(FORMATTED)

clean:
	rm -rf build

-include $(OBJ:.o=.d) $(CU_OBJ:.o=.d) $(SIMT_OBJ:.o=.d) $(TEST_OBJ:.o=.d) $(BENCH_OBJ:.o=.d) $(FUZZ_TARGETS:%=$B/obj/tests/fuzz/%.d)
