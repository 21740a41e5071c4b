#!/usr/bin/env bash
# Runs pytest with the arguments given; without any the default selection, in four
# processes. The first time, adds requirements/test.txt to the .venv that run.sh uses,
# making it if needed.
#
#   launch/test.sh
#   launch/test.sh tests/ops -k resize
#   launch/test.sh -m slow
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
source launch/setup.sh

set_up test
# The whole suite on two cores, of which waiting tests leave some to a third and a
# fourth process; a selection starts sooner in one.
[ $# -gt 0 ] || set -- -n 4 --dist loadfile --no-loadscope-reorder
run_python -m pytest "$@"
