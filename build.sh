#!/usr/bin/env bash
# The one way in: builds, tests, runs. `./build.sh` alone says how.
set -euo pipefail
caller=$PWD
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$root"
# No telemetry, no greetings; the SDK runs without the ICU libraries, which a small machine may lack.
export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1 DOTNET_SYSTEM_GLOBALIZATION_INVARIANT=1

usage() {
    cat <<'TXT'
usage: ./build.sh VERB [ARGS]
  build            compiles everything, optimised; native parts through CMake where there are any
  demo             streams text from models/shakespeare-2m, then compares one token at a time with the tree
  test             builds, then runs the quick tier of the tests (under 5 minutes)
  test full        builds, then runs everything: all tests, the kernels on narrower vectors, formatting,
                   the packages; prints the time of each part
  treeline ARGS…   runs the command line tool, building it first where it is out of date
  bench            prints ratios against the machine's own limits (under a minute); `bench memory` follows one
                   sequence to its 50,000th token, `bench device opencl:0` compares a device with the CPU backend,
                   `bench compile opencl:0` tells what the model's kernels take until they are ready;
                   any other arguments go to BenchmarkDotNet (`bench --list flat`)
  pack             makes the packages in artifacts/packages and looks into them
  gpu-check        packs artifacts/treeline-gpu-check.tar.xz, which checks a GPU on a machine without .NET (docs/gpu-check.md)
  ptx-report       writes docs/ptx-report.md: what NVIDIA's assembler makes of every kernel
  format           formats the sources
  clean            removes what was built
TXT
}

say() { printf '%s\n' "$*"; }

compile() { dotnet build "$1" -c Release -v quiet --nologo -tl:off -clp:ErrorsOnly </dev/null; }

build() {
    say 'build: compiles Treeline.slnx, Release'
    compile Treeline.slnx
    if [[ ! -f CMakeLists.txt ]]; then
        say 'build: native parts skipped, this version has none (no CMakeLists.txt)'
    elif ! command -v cmake >/dev/null; then
        say 'build: native parts skipped, cmake is not installed'
    else
        say 'build: compiles the native parts'
        cmake -S . -B artifacts/native -DCMAKE_BUILD_TYPE=Release && cmake --build artifacts/native --parallel
    fi
}

# The packages, with symbols beside them, the README and the documentation inside; a zip file lists its names in the clear.
pack() {
    say 'pack: makes artifacts/packages'
    rm -rf artifacts/packages
    dotnet pack Treeline.slnx -c Release -o artifacts/packages -v quiet --nologo -tl:off -clp:ErrorsOnly
    local package name version
    for name in Treeline.Kernels Treeline.Kernels.ILGPU Treeline; do
        version=$(sed -n 's:.*<Version>\(.*\)</Version>.*:\1:p' Directory.Build.props)
        package=artifacts/packages/$name.$version
        grep -aq 'README.md' "$package.nupkg" && grep -aq "lib/net10.0/$name.xml" "$package.nupkg" && grep -aq "lib/net10.0/$name.pdb" "$package.snupkg" ||
            { say "pack: $package lacks its README, documentation or symbols"; return 1; }
        say "pack: $package.nupkg: README, documentation, symbols"
    done
}

# What is carried to a machine with a GPU: this tree, by which the tests find recordings and models, and in artifacts/gpu-check
# the programs with the runtime. They are built apart, so that other builds do not meet their settings.
gpu_check() {
    local name=treeline-gpu-check bytes
    say 'gpu-check: builds the suite and the check for linux-x64, runtime included'
    rm -rf artifacts/gpu-build artifacts/gpu-check
    dotnet publish tests -c Release -r linux-x64 --self-contained --artifacts-path artifacts/gpu-build -o artifacts/gpu-check \
        -p:CustomAfterMicrosoftCommonTargets="$root/gpu-check/Carried.targets" -v quiet --nologo -tl:off -clp:ErrorsOnly
    say "gpu-check: packs artifacts/$name.tar.xz"
    {
        find . \( -name .git -o -name bin -o -name obj -o -path ./artifacts \) -prune -o -type f -print
        find ./artifacts/gpu-check -type f ! -name '*.xml'
    } | sort | tar -cJf "artifacts/$name.tar.xz" --transform "s,^\./gpu-check/gpu-check\.sh,./gpu-check.sh,;s,^\.,$name," -T -
    bytes=$(stat -c %s "artifacts/$name.tar.xz")
    say "gpu-check: $bytes bytes; there: tar -xf $name.tar.xz && $name/gpu-check.sh"
    ((bytes < 50000000)) || { say 'gpu-check: 50 MB are too many to carry'; return 1; }
}

# program PROJECT ASSEMBLY ARGS…: runs a program of ours from the caller's folder, so that paths mean what the caller means.
# Where a source is newer than its last build it is built first; that chatter goes to stderr, stdout is the program's own.
# `folder`, where set, is where it runs instead.
program() {
    local project=$1 assembly=$2 stamp=artifacts/built/${1//\//-}
    shift 2
    if [[ ! -f $stamp || ! -f $project/bin/Release/net10.0/$assembly.dll ||
        -n $(find Kernels Kernels.ILGPU Managed "$project" Directory.* global.json \( -name bin -o -name obj \) -prune -o -newer "$stamp" -print -quit) ]]; then
        say "build: compiles $project, Release" >&2
        mkdir -p artifacts/built
        touch "$stamp.begun"                                # a source saved during the build is newer than this
        compile "$project" >&2
        mv "$stamp.begun" "$stamp"
    fi
    cd "${folder:-$caller}"
    exec dotnet "$root/$project/bin/Release/net10.0/$assembly.dll" "$@"
}

# ---- tests: every part has a time limit, is counted, and says how long it took ----

passed=0 failed=0 skipped=0

begin() {
    say "---- $1"
    began=$SECONDS
}

end() {
    say "---- $1: $((SECONDS - began)) s (limit $2 s), $3"
}

# check SECONDS NAME COMMAND…: one thing that must end well.
check() {
    local limit=$1 name=$2 code=0
    shift 2
    begin "$name"
    timeout "$limit" "$@" </dev/null || code=$?
    if ((code == 0)); then passed=$((passed + 1)); else failed=$((failed + 1)); fi
    end "$name" "$limit" "$( ((code == 0)) && say passed || say "FAILED with code $code")"
}

# suite SECONDS NAME SWITCHES FILTER…: the tests that a filter picks, under switches of the environment (A=1 B=2, or '').
# They are counted from the runner's report: a runner that crashes or is stopped leaves none, and no test at all is a failure.
suite() {
    local limit=$1 name=$2 report code=0 counts good bad left switches
    read -ra switches <<<"$3"
    shift 3
    report=artifacts/test-results/${name//[^a-zA-Z0-9]/-}.xml
    mkdir -p artifacts/test-results
    rm -f "$report"
    begin "$name"
    timeout "$limit" env "${switches[@]}" dotnet tests/bin/Release/net10.0/Treeline.Tests.dll \
        -noColor -noLogo -noAutoReporters -result-xml "$report" "$@" </dev/null || code=$?
    counts=$(grep -o '<assembly [^>]*>' "$report" 2>/dev/null || true)
    good=$(count passed "$counts")
    bad=$(($(count failed "$counts") + $(count errors "$counts")))
    if ((bad == 0 && (code != 0 || good == 0))); then
        say "the runner ended with code $code; $good tests passed, none failed: this counts as a failure"
        bad=1
    fi
    left=$(count skipped "$counts")                          # each says why in the lines above
    passed=$((passed + good))
    failed=$((failed + bad))
    skipped=$((skipped + left))
    end "$name" "$limit" "$good passed, $bad failed$( ((left == 0)) || say ", $left SKIPPED")"
}

# An attribute of the report's first element, 0 where there is none.
count() {
    local number
    number=$(sed -n "s/.* $1=\"\([0-9]*\)\".*/\1/p" <<<"$2")
    say "${number:-0}"
}

finish() {
    ((skipped == 0)) || say "$skipped tests were skipped: what they need is not here"
    say "$passed passed, $failed failed"
    ((failed == 0))
}

test_quick() {
    check 600 'build' ./build.sh build
    ((failed > 0)) || suite 300 'tests, quick tier' '' -trait- tier=full
}

# The kernels on ILGPU's own accelerator, small shapes only, and on OpenCL, where there is a device (PoCL makes one of the CPU).
test_ilgpu() {
    suite 900 'attention on ilgpu-cpu' TREELINE_TEST_BACKENDS=ilgpu-cpu -class '*.GoldenAttentionTests' -class '*.ExactnessTests' \
        -method- '*.Trees_are_exact_at_every_place_in_a_block' -method- '*.The_other_entries_*' -method- '*.Fork_rewind_*' -method- '*.Advance_does_not_*' -trait- tier=full
    # Every index of the kernels that GPUs run is looked at; those above take addresses.
    suite 600 'kernels on ilgpu-cpu, as on a GPU' TREELINE_TEST_BACKENDS=ilgpu-cpu/gpu -method '*.GoldenAttentionTests.*' -method '*.A_backend_stores_what_the_rule_says' -trait- tier=full
    if [[ -z ${TREELINE_REQUIRE_OPENCL:-} ]] && ! ls /etc/OpenCL/vendors/*.icd >/dev/null 2>&1; then
        say '---- opencl:0: skipped, no OpenCL here (on Debian: apt-get install pocl-opencl-icd ocl-icd-libopencl1)'
    else
        local accept=TREELINE_ACCEPT_WITHOUT_GENERIC_ADDRESS_SPACE=1
        suite 1800 'kernels, models and decoding on opencl:0' "TREELINE_TEST_BACKENDS=opencl:0 $accept" \
            -class 'Treeline.Tests.Kernels.*' -class 'Treeline.Tests.Managed.Models.*' -class 'Treeline.Tests.Managed.Decoding.*' -class Treeline.Tests.Cli.RunTests -class- '*.SwapTests' -class- '*.Ilgpu*' -class- '*.PtxTests' -trait- tier=full
        suite 900 'kernels and models on opencl:0, as on a GPU' "TREELINE_TEST_BACKENDS=opencl:0/gpu $accept" \
            -class '*.GoldenAttentionTests' -class '*.ExactnessTests' -class '*.AgreementTests' -class '*.LimitTests' -class '*.DeviceCommitTests' \
            -class '*.LinearTests' -class '*.WeightBlocksTests' -class '*.SelectTests' -class '*.SampleTests' -class '*.GoldenModelTests' -trait- tier=full
        suite 600 'sequences that move between cpu and opencl:0, compare' "TREELINE_TEST_BACKENDS=cpu,opencl:0 $accept" -class '*.SwapTests' -class '*.SnapshotTests' -class '*.CompareTests'
    fi
}

test_full() {
    test_quick
    ((failed > 0)) && return
    suite 900 'tests, full tier' '' -trait tier=full
    # What a lesser machine would run; the switches are the runtime's own.
    local narrow=(-class 'Treeline.Tests.Kernels.*' -class Treeline.Tests.Managed.Models.GoldenModelTests -class- '*.Ilgpu*' -class- '*.PtxTests' -trait- tier=full)
    suite 300 'kernels and a model, AVX-512 off' DOTNET_EnableAVX512=0 "${narrow[@]}"
    suite 300 'kernels and a model, AVX2 off' DOTNET_EnableAVX2=0 "${narrow[@]}"
    suite 600 'kernels and a model, hardware intrinsics off' DOTNET_EnableHWIntrinsic=0 "${narrow[@]}"
    test_ilgpu
    check 120 'demo' ./build.sh demo
    check 60 'sample TextGeneration' dotnet samples/TextGeneration/bin/Release/net10.0/TextGeneration.dll
    check 60 'sample EngineLoop, cpu' dotnet samples/EngineLoop/bin/Release/net10.0/EngineLoop.dll
    check 60 'sample EngineLoop, oracle' dotnet samples/EngineLoop/bin/Release/net10.0/EngineLoop.dll oracle
    check 300 'formatting' dotnet format Treeline.slnx --verify-no-changes --no-restore
    check 300 'packages' ./build.sh pack
}

case "${1:-}" in
    build) build ;;
    test)
        case "${2:-}" in
            '') test_quick ;;
            full) test_full ;;
            *) usage >&2; exit 2 ;;
        esac
        finish ;;
    demo) program samples/Demo Demo "$root/models/shakespeare-2m" ;;
    treeline) shift; program Cli Treeline.Cli "$@" ;;
    bench)
        shift
        case ${1:-} in memory | compile) set -- "$@" "$root/models/shakespeare-2m" ;; esac     # the model that ships
        folder=artifacts/bench                              # BenchmarkDotNet leaves its reports where it runs
        mkdir -p "$folder"
        program bench Treeline.Bench "$@" ;;
    pack) pack ;;
    gpu-check) gpu_check ;;
    ptx-report)
        .ci/ptxas || true                                   # the program says what is missing
        folder=$root
        program gpu-check Treeline.GpuCheck ptx-report "$root" ;;
    format) say 'format: formats the sources'; dotnet format Treeline.slnx ;;
    clean)
        say 'clean: removes bin, obj, artifacts'
        find . \( -name .git -o -name models \) -prune -o -type d \( -name bin -o -name obj \) -prune -exec rm -rf {} +
        rm -rf artifacts ;;
    *) usage >&2; exit 2 ;;
esac
