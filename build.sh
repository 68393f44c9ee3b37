#!/usr/bin/env bash
# The one way in: builds, tests, runs.
set -euo pipefail
cd "$(dirname "$0")"
export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1

usage() {
    cat <<'TXT'
usage: ./build.sh VERB
  build         compiles everything, Release
  test          runs the quick tier of the tests
TXT
}

build() { dotnet build Treeline.slnx -c Release -v quiet --nologo; }

case "${1:-}" in
    build) build ;;
    test) build && dotnet tests/bin/Release/net10.0/Treeline.Tests.dll ;;
    *) usage >&2; exit 2 ;;
esac
