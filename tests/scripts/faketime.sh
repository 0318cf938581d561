#!/usr/bin/env bash
# Prints the library that shows a process another time, to be preloaded.
# Installs the package where it is missing and root runs this.
set -euo pipefail
cd "$(dirname "$0")/../.."

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

find_library && exit 0

# Tests run in parallel processes: the first installs it, the others wait here.
mkdir -p target
exec 9> target/faketime.lock
flock 9
find_library && exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
    echo "expected \`libfaketime.so.1\` in /usr/lib/*/faketime, found none: install the package libfaketime" >&2
    exit 1
fi
install() { apt-get install -y --no-install-recommends libfaketime; }
install >&2 || { apt-get update >&2 && install >&2; }
find_library
