#!/usr/bin/env bash
# Sets hf-lwmm up in .venv and runs `hf-lwmm demo`; arguments go to it.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".[eval,plots,hub]"
exec .venv/bin/hf-lwmm demo --output .quickstart "$@"
