#!/usr/bin/env bash
# Checks this machine's GPU: ./gpu-check.sh [BACKEND] [--quick] [--out FOLDER]. Needs a driver, and nothing else of .NET or CUDA.
# 0 all well, 1 something failed, 2 not asked properly or not runnable here, 3 the backend cannot be used here. More in docs/gpu-check.md.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [[ $(uname -sm) != 'Linux x86_64' ]]; then
    echo "gpu-check: expected Linux x86_64, got $(uname -sm)" >&2
    exit 2
fi
# The runtime lies beside the programs; one of this machine's would be another version.
unset DOTNET_ROOT DOTNET_ROOT_X64
exec "$here/artifacts/gpu-check/Treeline.GpuCheck" "$@"
