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
say() { echo "\$ $*"; ".venv/bin/$1" "${@:2}"; echo; }
a=local/streets-gta b=local/streets-night merged=local/streets-gta-lwmm
say hf-lwmm merge $a $b --anchor $a --method auto --target new --eval-data local/streets --eval-split new --push
say hf-lwmm reproduce $merged

echo "The target \"new\" has two styles that no model was trained on, evening and fog. To the merge, both parents:"
echo
say hf-lwmm evaluate $merged $a $b --data local/streets --split new
echo "The target \"gta\" is what $a learned:"
echo
say hf-lwmm evaluate $merged $a $b --data local/streets --split gta
echo "Each parent knows something about the new target that the other does not, and the merge knows both. On \"gta\" there is"
echo "nothing to learn from the other parent, and averaging only takes away: there, use the model itself."
echo
echo "The card, $HF_ENDPOINT/$merged, says:"
echo
.venv/bin/python -c "
from huggingface_hub import hf_hub_download
text = open(hf_hub_download('$merged', 'README.md')).read()
lines = text.split('\n---\n', 1)[1].splitlines()
print('\n'.join('  ' + line for line in lines[1:44]))"
echo
echo "To look around:  .venv/bin/hf-lwmm hub serve --root $root --port $port"
