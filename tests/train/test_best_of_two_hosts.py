"""The best step of a run whose parameters are spread over two processes."""

import json
import pathlib

import numpy as np
import pytest
from two_processes import run_both

from ovs_jax.core.checkpoint import load_model

PROGRAM = """
import pathlib, sys
import jax
import numpy as np
jax.config.update('jax_cpu_collectives_implementation', 'gloo')
address, index, directory = sys.argv[1:]
jax.distributed.initialize(address, num_processes=2, process_id=int(index))
from jax.sharding import NamedSharding, PartitionSpec
from ovs_jax.core.sharding import make_mesh
from ovs_jax.train.keeping import Keeping
from ovs_jax.train.recipes import Recipe
mesh = make_mesh(2, 1)

def spread(scale):
  x = scale * np.arange(8, dtype=np.float32).reshape(4, 2)
  place = NamedSharding(mesh, PartitionSpec('data'))
  return {'w': jax.make_array_from_callback(x.shape, place, lambda i: x[i])}

class Own(Recipe):
  model_config = {'model': 'clip'}
  evaluate_every = 1
  def evaluate(self, params, constants):
    return {'sum': float(jax.jit(lambda p: p['w'].sum())(params))}

keeping = Keeping(Own(), {}, pathlib.Path(directory), steps=3)
assert not spread(1)['w'].is_fully_addressable
keeping.start(0, spread(0))
for step, scale in enumerate((1, 3, 2), 1):
  keeping.evaluate(step, spread(scale))
"""


@pytest.mark.slow
def test_both_parts_are_in_it(tmp_path: pathlib.Path) -> None:
  run_both(PROGRAM, tmp_path)
  lines = (tmp_path / 'evaluations.jsonl').read_text().splitlines()
  assert [json.loads(line)['sum'] for line in lines] == [0, 28, 84, 56]
  params, config = load_model(tmp_path / 'best')
  assert config['evaluation'] == {'step': 2, 'sum': 84.0}
  np.testing.assert_array_equal(
    params['w'], 3 * np.arange(8, dtype=np.float32).reshape(4, 2)
  )
