"""Every key that a configuration can have, with its default and what it may be.

A dataclass for each section, and `Settings` for the whole. `configs/common.py` makes
configurations of them; `ovs_jax.main` reads these back, once, and checks them.
"""

from ovs_jax.settings.evaluation import (
  CoSegs,
  Eval,
  Method,
  Report,
  Suite,
  Systems,
  Test,
)
from ovs_jax.settings.inputs import Dataset, DatasetName, Mesh, Region, Text
from ovs_jax.settings.mining import Mining
from ovs_jax.settings.training import (
  Adapt,
  Init,
  Optimizer,
  Phrases,
  Slots,
  Train,
)
from ovs_jax.settings.whole import Mode, RecipeName, Settings, bound

__all__ = [
  'bound',
  'Adapt',
  'CoSegs',
  'Dataset',
  'DatasetName',
  'Eval',
  'Init',
  'Mesh',
  'Method',
  'Mining',
  'Mode',
  'Optimizer',
  'Phrases',
  'RecipeName',
  'Region',
  'Report',
  'Settings',
  'Slots',
  'Suite',
  'Systems',
  'Test',
  'Text',
  'Train',
]
