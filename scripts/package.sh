#!/usr/bin/env bash
# Builds the wheel and the source distribution in dist/, checks their metadata, and tries the wheel in a clean
# environment: the package alone, or, with --demo, all that `hf-lwmm demo` needs (torch, too), and the demo itself.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=.venv-package
[ -x $tools/bin/python ] || "${PYTHON:-python3}" -m venv $tools
$tools/bin/python -m pip install --quiet --disable-pip-version-check build twine
rm -rf dist build
$tools/bin/python -m build
$tools/bin/twine check --strict dist/*

clean=$(mktemp -d)
trap 'rm -rf "$clean"' EXIT
wheel=$(echo "$PWD"/dist/*.whl)
[ "${1:-}" = --demo ] && wheel="$wheel[eval,plots,hub]"
"${PYTHON:-python3}" -m venv "$clean/venv"
"$clean/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$wheel"
cd "$clean"  # where the checkout's own package is not found
venv/bin/hf-lwmm --help > /dev/null
models=$(venv/bin/python -c 'import hf_lwmm; print(hf_lwmm.__path__[0])')/demo/models
venv/bin/hf-lwmm merge --quiet "$models/streets-gta" "$models/streets-night" --output merged
venv/bin/hf-lwmm inspect merged
[ "${1:-}" != --demo ] || venv/bin/hf-lwmm demo --no-open --port 0
