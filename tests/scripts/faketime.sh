#!/usr/bin/env bash
# Prints the library that shows a process another time, to be preloaded.
# Installs the package where it is missing and root runs this.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/scripts/package.sh

find_library() {
    local library
    for library in /usr/lib/*/faketime/libfaketime.so.1 /usr/lib*/faketime/libfaketime.so.1; do
        if [ -e "$library" ]; then
            echo "$library"
            return
        fi
    done
    return 1
}

found_or_installed find_library libfaketime \
    "\`libfaketime.so.1\` in /usr/lib/*/faketime"
