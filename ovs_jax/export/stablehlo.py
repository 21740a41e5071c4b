"""Programs as StableHLO, for CPUs, GPUs and TPUs in one file each."""

import datetime
from collections.abc import Mapping
from typing import Any

import jax
from jax import export

from ovs_jax.export.programs import Program

PLATFORMS = ('cpu', 'cuda', 'tpu')
# JAX promises to read what was written within the last six months (its documentation,
# "Compatibility guarantees" of jax.export).
_READABLE = datetime.timedelta(days=180)


def serialized(program: Program, weights: Mapping[str, Any]) -> bytes:
  """Returns a program that takes its weights as an argument.

  Args:
    program: to export.
    weights: arrays by path, of which shapes and types are read.
  """
  scope = export.SymbolicScope(program.constraints)
  inputs = [
    jax.ShapeDtypeStruct(export.symbolic_shape(one.shape, scope=scope), one.dtype)
    for one in program.inputs
  ]
  shapes = {
    path: jax.ShapeDtypeStruct(weights[path].shape, weights[path].dtype)
    for path in program.weights
  }
  write = export.export(jax.jit(program.function), platforms=PLATFORMS)
  return bytes(write(shapes, *inputs).serialize())


def window() -> dict[str, Any]:
  """Returns by which versions the programs can be read, for the manifest."""
  today = datetime.date.today()
  return {
    'jax': jax.__version__,
    'calling_convention': export.maximum_supported_calling_convention_version,
    'written': today.isoformat(),
    'readable_until': (today + _READABLE).isoformat(),
  }
