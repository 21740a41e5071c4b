"""A training run in a process of its own, for `test_killed_run.py`.

python tests/train/killed_run.py DATA DIRECTORY
"""

import pathlib
import sys

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS / 'support')]

import conftest  # noqa: E402, F401
import tiny_configs  # noqa: E402

from ovs_jax.core import files  # noqa: E402
from ovs_jax.settings import Settings  # noqa: E402
from ovs_jax.train import loop  # noqa: E402

STEPS = 8

if __name__ == '__main__':
  config = tiny_configs.pretraining(sys.argv[1])
  config.train.update(steps=STEPS, save_every=1)
  loop.train(Settings.of(config), files.place(sys.argv[2]))
