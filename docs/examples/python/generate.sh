#!/usr/bin/env bash
# generate.sh FOLDER: writes the stubs of chatvec's services into a folder, for
# Python to import. PYTHON names the interpreter that has grpcio-tools.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
proto=$here/../../../proto
mkdir -p "$1"
"${PYTHON:-python3}" -m grpc_tools.protoc -I "$proto" \
    --python_out="$1" --grpc_python_out="$1" \
    chatvec/v1/types.proto chatvec/v1/merge_service.proto
