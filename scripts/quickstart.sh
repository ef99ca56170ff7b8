#!/usr/bin/env bash
# Sets hf-lwmm up in .venv and runs its main job against a local Hub: two models go in, their merge comes out.
set -euo pipefail
cd "$(dirname "$0")/.."
export HF_HOME="$PWD/.quickstart/hf" HF_HUB_DISABLE_XET=1 HF_HUB_DISABLE_TELEMETRY=1 HF_HUB_DISABLE_PROGRESS_BARS=1
root=.quickstart/hub
port=${PORT:-8765}

[ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".[eval,plots,hub]"

.venv/bin/hf-lwmm hub serve --root "$root" --port "$port" 2> .quickstart.log &
hub=$!
trap 'kill "$hub" 2> /dev/null || true; rm -f .quickstart.log' EXIT
export HF_ENDPOINT="http://127.0.0.1:$port"
for _ in $(seq 100); do
    .venv/bin/python -c "import socket; socket.create_connection(('127.0.0.1', $port), 1)" 2> /dev/null && break
    kill -0 "$hub" 2> /dev/null || { cat .quickstart.log >&2; exit 1; }
    sleep 0.1
done
HF_TOKEN=$(.venv/bin/python -c "import json; print(json.load(open('$root/users.json'))[0]['token'])")
export HF_TOKEN

.venv/bin/python -m scripts.quickstart.seed
echo
merge=(hf-lwmm merge local/gta-to-night local/synthia-to-night --anchor local/gta-to-night
    --eval-data local/streets --eval-split night --push)
echo "\$ ${merge[*]}"
".venv/bin/${merge[0]}" "${merge[@]:1}"
echo
echo '$ hf-lwmm reproduce local/gta-to-night-lwmm'
.venv/bin/hf-lwmm reproduce local/gta-to-night-lwmm
echo
echo "The card, $HF_ENDPOINT/local/gta-to-night-lwmm, says:"
echo
.venv/bin/python -c "
from huggingface_hub import hf_hub_download
text = open(hf_hub_download('local/gta-to-night-lwmm', 'README.md')).read()
lines = text.split('\n---\n', 1)[1].splitlines()
print('\n'.join('  ' + line for line in lines[1:44]))"
echo
echo "To look around:  .venv/bin/hf-lwmm hub serve --root $root --port $port"
