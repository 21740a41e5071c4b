#!/usr/bin/env bash
# Makes the environment in which `ovs-jax export --formats=onnx` converts: jax2onnx pins
# an older orbax-checkpoint than the checkpoints take, and only its examples use that.
#
#   launch/onnx_env.sh                # .venv-onnx
#   launch/onnx_env.sh /somewhere     # then OVS_ONNX_PYTHON=/somewhere/bin/python
#
# OVS_PYTHON chooses the Python, as in launch/run.sh.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

folder="${1:-.venv-onnx}"
"${OVS_PYTHON:-python3}" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet 'jax2onnx>=0.17' 'onnxruntime>=1.24'
"$folder/bin/python" -m pip install --quiet -r requirements/core.txt
