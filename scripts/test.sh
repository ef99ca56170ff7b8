#!/usr/bin/env bash
# Sets hf-lwmm up in .venv and runs the tests; arguments go to pytest (for example: -k layouts).
set -euo pipefail
cd "$(dirname "$0")/.."
[ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
exec .venv/bin/python -m pytest -n 3 "$@"  # three for two cores: many tests wait for others
