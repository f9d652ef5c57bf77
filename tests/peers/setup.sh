#!/bin/sh
# Puts the third-party programs that the tests here need under peers/ in the project's root:
#   peers/venv            tritonclient, pytest, and numpy for Triton's models
#   peers/triton          the server, unpacked from nvidia-pytriton
#   peers/perf_analyzer   the load generator, unpacked from tritonclient, and peers/lib for it
# All from PyPI, in pinned versions. A second call does nothing; PYTHON chooses the interpreter.
# What Debian has to give is looked for and named, not installed.
set -eu

fail() {
    echo "peers: $1" >&2
    exit 1
}

here=$(cd "$(dirname "$0")" && pwd)
peers=$(cd "$here/../.." && pwd)/peers
python=${PYTHON:-python3}

command -v "$python" >/dev/null || fail "$python is missing (Debian: apt-get install python3 python3-venv)"
[ "$(uname -sm)" = "Linux x86_64" ] || fail "the peers' binaries run on x86-64 Linux only"
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
case $version in
    3.11 | 3.12) ;;
    *) fail "$python is Python $version, and the peers need 3.11 or 3.12: make peers PYTHON=python3.11" ;;
esac

# What is there was made from exactly these files by this Python, or is made anew.
wanted="$version $(cat "$here/setup.sh" "$here/binaries.txt" "$here/clients.txt" | sha256sum)"
if [ "$(cat "$peers/.installed" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi
rm -rf "$peers/.installed" "$peers/venv" "$peers/triton" "$peers/perf_analyzer" "$peers/lib" "$peers/unpacked"
mkdir -p "$peers/downloads" "$peers/lib"

"$python" -m venv "$peers/venv" ||
    fail "Python's venv module is missing (Debian: apt-get install python3-venv)"
pip="$peers/venv/bin/python -m pip --quiet --disable-pip-version-check"
$pip install --requirement "$here/clients.txt"
# pip checks the hashes of wheels that are there already and does not fetch those again.
$pip download --no-deps --only-binary :all: --require-hashes \
    --requirement "$here/binaries.txt" --dest "$peers/downloads"

unpack() { # unpack DISTRIBUTION FOLDER
    "$peers/venv/bin/python" -m zipfile -e "$peers/downloads/$1"-*.whl "$2"
}
unpack nvidia_pytriton "$peers/triton"
server="$peers/triton/pytriton/tritonserver"
stub="$server/python_backend_stubs/$version/triton_python_backend_stub"
chmod +x "$server/bin/tritonserver" "$stub"
cp "$stub" "$server/backends/python/"

unpack tritonclient "$peers/unpacked"
mv "$peers/unpacked"/tritonclient-*.data/data/bin/perf_analyzer "$peers/perf_analyzer"
rm -r "$peers/unpacked"
chmod +x "$peers/perf_analyzer"
# Two libraries that it needs come with the server, under names of its own.
(
    cd "$peers/lib"
    ln -s ../triton/nvidia_pytriton.libs/libcudart-*.so.12* libcudart.so.12
    ln -s ../triton/nvidia_pytriton.libs/libb64-*.so.0d libb64.so.0d
)

for program in "$peers/perf_analyzer" "$server/bin/tritonserver" "$stub"; do
    missing=$(LD_LIBRARY_PATH="$peers/lib" ldd "$program" | awk '/not found/ { printf " %s", $1 }')
    [ -z "$missing" ] || fail "$(basename "$program") needs$missing (Debian packages:
    libpython$version.so.1.0 is in libpython$version, libssl.so.3 in libssl3, libz.so.1 in zlib1g)"
done

echo "$wanted" >"$peers/.installed"
