#!/usr/bin/env bash
# Runs ovs_jax.main with the arguments given, or the quickstart without any. The first
# time, makes .venv at the root of the repository and installs requirements.txt.
#
#   launch/run.sh
#   launch/run.sh --config=configs/mpt_vitl14.py:smoke --config.seed=1
#   OVS_PYTHON=python3.12 launch/run.sh    # choose the Python to make .venv with
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
source launch/setup.sh

set_up run
(($#)) || set -- --config=configs/quickstart.py
run_python -m ovs_jax.main "$@"
