#!/usr/bin/env bash
# venv.sh FOLDER REQUIREMENTS: a virtual environment with exactly these
# packages. Does nothing where it exists and the requirements are the same.
set -euo pipefail

folder=$1
requirements=$2
stamp=$folder/requirements.installed

mkdir -p "$(dirname "$folder")"
# Tests run in parallel processes: the first makes it, the others wait here.
exec 9> "$folder.lock"
flock 9

if cmp -s "$requirements" "$stamp"; then
    touch "$stamp"
    exit 0
fi

if ! python3 -c 'import ensurepip, venv' 2> /dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
        apt-get install -y python3-venv >&2 || { apt-get update >&2 && apt-get install -y python3-venv >&2; }
    else
        echo "python3 has no venv module: install the package python3-venv" >&2
        exit 1
    fi
fi

rm -rf "$folder"
python3 -m venv "$folder" >&2
# Where the file gives hashes, pip insists that every package has one.
"$folder/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: \
    -r "$requirements" >&2
cp "$requirements" "$stamp"
