# Sourced by demo.sh and test.sh: `use_venv EXTRAS` makes .venv when missing, installs the project with the tested
# versions when anything changed, and puts it first on PATH. A second call costs nothing.

use_venv() {
    local extras="$1" python="${PYTHON:-python3}" stamp
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "Python 3.11 or newer is needed; set PYTHON to one." >&2
        exit 1
    }
    if [ ! -x .venv/bin/python ]; then
        "$python" -m venv .venv || {
            echo "Could not make .venv; on Debian or Ubuntu: apt-get install python3-venv" >&2
            exit 1
        }
    fi
    stamp="$(cat pyproject.toml constraints.txt | cksum) $PWD"
    if [ "$(cat ".venv/installed-$extras" 2>/dev/null)" != "$stamp" ]; then
        echo "Installing into .venv (once, some minutes) ..."
        .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".$extras"
        echo "$stamp" >".venv/installed-$extras"
    fi
    export PATH="$PWD/.venv/bin:$PATH"
}

# `use_desktop` sees to what the tests need besides: a display without a screen, a window manager, keys and mouse, Tk, a
# font for those of the window, strace for those that inject faults.
use_desktop() {
    local packages=()
    command -v Xvfb >/dev/null || packages+=(xvfb)
    command -v xdotool >/dev/null || packages+=(xdotool)
    command -v openbox >/dev/null || packages+=(openbox)
    command -v strace >/dev/null || packages+=(strace)
    python -c "import tkinter" 2>/dev/null || packages+=(python3-tk)
    fc-list 2>/dev/null | grep -q . || packages+=(fontconfig fonts-dejavu-core)
    [ ${#packages[@]} -eq 0 ] && return
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "The tests need ${packages[*]}; install them and try again." >&2
        exit 1
    fi
    echo "Installing ${packages[*]} ..."
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${packages[@]}" >/dev/null
}
