#!/usr/bin/env bash
# Puts the GitHub account that this repository is published from in the place of OWNER, wherever it stands: addresses
# in the metadata, the documentation's site, and the notebooks' Colab badges.
set -euo pipefail
cd "$(dirname "$0")/.."
account=${1:?usage: scripts/owner.sh ACCOUNT}
git grep -lIzw OWNER -- ':!scripts/owner.sh' ':!CONTRIBUTING.md' ':!tests' | xargs -0 perl -pi -e "s/\bOWNER\b/$account/g"
