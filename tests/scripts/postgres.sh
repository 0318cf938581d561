#!/usr/bin/env bash
# Prints the folder of Postgres's own programs, `initdb` and `postgres`.
# Installs the package where it is missing and root runs this.
set -euo pipefail
cd "$(dirname "$0")/../.."

# Distributions keep the server's programs off PATH.
find_programs() {
    local program
    for program in "$(command -v initdb)" /usr/lib/postgresql/*/bin/initdb /usr/pgsql-*/bin/initdb; do
        program=$(realpath -q "$program") || continue
        if [ -x "$program" ] && [ -x "$(dirname "$program")/postgres" ]; then
            dirname "$program"
            return
        fi
    done
    return 1
}

find_programs && exit 0

# Tests run in parallel processes: the first installs it, the others wait here.
mkdir -p target
exec 9> target/postgres.lock
flock 9
find_programs && exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
    echo "expected Postgres's \`initdb\` and \`postgres\` on PATH or in /usr/lib/postgresql/*/bin, found neither: install the package postgresql" >&2
    exit 1
fi
# The package would make a database and start a server: the tests run their own.
mkdir -p /etc/postgresql-common/createcluster.d
echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.d/tests.conf
install() { apt-get install -y --no-install-recommends postgresql; }
install >&2 || { apt-get update >&2 && install >&2; }
find_programs
