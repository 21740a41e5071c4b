"""Bytes between devices, by hand and of programs whose traffic is known."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ovs_jax.bench.collectives import Loop, traffic, waiting_loops
from ovs_jax.core import sharding
from ovs_jax.core.types import Array

HLO = """
HloModule step

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %s = f32[] add(%a, %b)
}

%body (p: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %g = bf16[16,8]{1,0} all-gather(%x), replica_groups={{0,1,2,3}}, dimensions={0}
  ROOT %r = f32[4,8]{1,0} all-reduce(%y), replica_groups={{0,1}}, to_apply=%add
}

%asks (q: (s32[], f32[4,8])) -> pred[] {
  ROOT %r = pred[] all-reduce(%o), replica_groups={{0,1,2,3}}, to_apply=%any
}

%alone (q: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  ROOT %r = f32[4,8]{1,0} add(%y, %y)
}

ENTRY %main (p: f32[4,8]) -> f32[4,8] {
  %w = (s32[], f32[4,8]) while(%t), condition=%c, body=%body, \
backend_config={"known_trip_count":{"n":"12"}}
  %v = (s32[], f32[4,8]) while(%t), condition=%asks, body=%alone, \
metadata={op_name="jit(step)/search/while"}
  %n = (s32[], f32[4,8]) while(%t), condition=%c, body=%alone
  %m = (f32[3]{0}, f32[5]{0}) all-reduce-start(%u, %v), to_apply=%add
  ROOT %s = f32[2]{0} reduce-scatter(%z), replica_groups=[2,4]<=[8], to_apply=%add
}
"""


def test_loops_tuples_and_types_are_counted() -> None:
  assert traffic(HLO) == {
    'all-gather': 12 * 16 * 8 * 2,
    'all-reduce': 12 * 4 * 8 * 4 + (3 + 5) * 4 + 1,
    'reduce-scatter': 2 * 4 * 4,
  }


def test_loops_that_wait_are_told() -> None:
  assert waiting_loops(HLO) == [
    Loop('', turns=12, collectives=2),
    Loop('jit(step)/search/while', turns=None, collectives=1),
  ]


def test_other_texts_are_refused() -> None:
  with pytest.raises(ValueError, match='no ENTRY'):
    traffic('module @jit_f {}')


def compiled(function: Any, *given: tuple[tuple[int, ...], tuple[Any, ...]]) -> str:
  """The HLO of a gradient on a 4x2 mesh, placed as the first array is."""
  mesh = sharding.make_mesh(4, 2)
  arrays = [
    jax.ShapeDtypeStruct(
      shape, jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(*axes))
    )
    for shape, axes in given
  ]
  grad = jax.jit(jax.grad(function), out_shardings=arrays[0].sharding)
  return grad.lower(*arrays).compile().as_text()


def layer(w: Array, x: Array) -> Array:
  return jnp.sum(jnp.tanh(x @ w) ** 2)


def test_data_parallel_gradients_are_all_reduced_once() -> None:
  text = compiled(layer, ((64, 32), ()), ((16, 64), ('data',)))
  assert traffic(text) == {'all-reduce': 64 * 32 * 4}


def test_scanned_layers_count_each() -> None:
  def tower(w: Array, x: Array) -> Array:
    return jnp.sum(jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0])

  # The features are split over `model`, so that every layer adds up its output.
  text = compiled(
    tower, ((5, 32, 32), (None, 'model', None)), ((16, 32), ('data', 'model'))
  )
  found = traffic(text)
  assert sum(found.values()) >= 5 * (16 // 4) * 32 * 4


@pytest.mark.parametrize('fsdp', [False, True])
def test_fsdp_gathers_what_it_split(fsdp: bool) -> None:
  axes = ('data',) if fsdp else ()
  found = traffic(compiled(layer, ((64, 32), axes), ((16, 64), ('data',))))
  assert ('all-gather' in found) == fsdp
  total = functools.reduce(lambda a, b: a + b, found.values())
  assert total >= 64 * 32 * 4
