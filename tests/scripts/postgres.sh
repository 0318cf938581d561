#!/usr/bin/env bash
# Prints the folder of Postgres's own programs, `initdb` and `postgres`.
# Installs the package where it is missing and root runs this.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/scripts/package.sh

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

# The package would make a database and start a server: the tests run their own.
prepare_installation() {
    mkdir -p /etc/postgresql-common/createcluster.d
    echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.d/tests.conf
}

found_or_installed find_programs postgresql \
    "\`initdb\` and \`postgres\` on PATH or in /usr/lib/postgresql/*/bin"
