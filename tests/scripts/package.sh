# found_or_installed FIND PACKAGE EXPECTED: what the function FIND prints. Where it
# finds nothing, the package is installed, if root runs this; else EXPECTED says
# what was looked for. To be sourced, in the repository's folder.

found_or_installed() {
    local find=$1 package=$2 expected=$3
    "$find" && return

    # Tests run in parallel processes: the first installs it, the others wait here.
    mkdir -p target
    exec 9> "target/$package.lock"
    flock 9
    "$find" && return

    if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
        echo "expected $expected, found none: install the package $package" >&2
        return 1
    fi
    prepare_installation >&2
    apt-get install -y --no-install-recommends "$package" >&2 \
        || { apt-get update >&2 && apt-get install -y --no-install-recommends "$package" >&2; }
    "$find"
}

# What a package needs before it is installed.
prepare_installation() { :; }
