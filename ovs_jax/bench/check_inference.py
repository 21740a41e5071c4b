"""Pictures to labels at full size, and the pieces that losses and labels rest on."""

import dataclasses
import functools
import pathlib
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.bench import fusion, ovseg_inference
from ovs_jax.bench.checks import Check, Found
from ovs_jax.core.errors import UserError
from ovs_jax.core.files import local
from ovs_jax.ops.matching import assign

_TINY = ovseg_inference.Options(
  preset='tiny',
  proposer='tiny',
  shortest=64,
  height=64,
  width=96,
  queries=20,
  names=5,
)
_LARGE = ovseg_inference.Options(
  preset='l14', proposer='swin_b_l14', shortest=640, names=150
)


def checks(*, smoke: bool, repeats: int) -> Iterator[Check]:
  """Yields OVSeg in both types with all and with some proposals, fusion, matching."""
  options = _TINY if smoke else _LARGE
  for valid in (20, 7) if smoke else (100, 30):
    for dtype, least in (('float32', 0.99), ('bfloat16', 0.8)):
      sizes = dataclasses.replace(options, valid=valid)
      run = functools.partial(_labels, sizes, dtype, least, repeats)
      title = f'OVSeg {options.preset} {valid} proposals {dtype}'
      yield Check(title, 'labels as with exact products', run)
  run = functools.partial(_fusion, smoke, repeats)
  yield Check('fusion', 'labels as the plain way', run)
  yield Check('matching', 'relative excess of cost', _matching)


def oracles(directory: str) -> Iterator[Check]:
  """Yields the stored cases of the reference implementations, if there are any.

  Raises:
    ValueError: no file is there, or the tests, which know how to run them, are not.
  """
  files = sorted(local(directory).glob('*.npz')) if directory else []
  if directory and not (files and local('tests/parity.py').exists()):
    raise UserError(
      f'oracles={directory}: expected a folder of .npz files, and this command to be '
      'run in the root of the repository, where tests/parity.py is'
    )
  for path in files:
    run = functools.partial(_oracle, path)
    yield Check(f'parity {path.stem}', 'quantities out of tolerance', run)


def _labels(
  options: ovseg_inference.Options, dtype: str, least: float, repeats: int
) -> Found:
  picture = ovseg_inference.draw_picture(options)
  names = [f'name {i}' for i in range(options.names)]
  config = ovseg_inference.configuration(options)
  params = ovseg_inference.draw(config)

  def labels(kind: str) -> tuple[np.ndarray, float]:
    given = None if kind == 'float32' else kind
    model = ovseg_inference.segmenter(config, params, options, dtype=given)
    times = []
    for _ in range(1 + repeats):
      began = time.perf_counter()
      found = model.segment(model.encode(picture), names).labels
      times.append(time.perf_counter() - began)
    return found, statistics.median(times[1:])

  found, seconds = labels(dtype)
  with jax.default_matmul_precision('highest'):
    wanted, exact = labels('float32')
  same = float((found == wanted).mean())
  facts = {'s a picture': float(f'{seconds:.4g}'), 's exact': float(f'{exact:.4g}')}
  return Found(same, least, least=True, facts={**facts, 'labels': len(set(found.flat))})


def _fusion(smoke: bool, repeats: int) -> Found:
  options = fusion.Options()
  if smoke:
    options = fusion.Options(proposals=10, classes=200, height=60, width=80, network=40)
  workload = fusion.build(options)
  facts: dict[str, Any] = {}
  for variant in workload.variants:
    times = []
    for _ in range(1 + repeats):
      began = time.perf_counter()
      jax.block_until_ready(variant.run())
      times.append(time.perf_counter() - began)
    facts[f's, {variant.name}'] = float(f'{statistics.median(times[1:]):.4g}')
  return Found(workload.facts['labels equal: plain'], 0.999, least=True, facts=facts)


def _matching() -> Found:
  """Random costs; the queries may differ where they cost the same."""
  from scipy.optimize import linear_sum_assignment

  rng = np.random.default_rng(0)
  cost = rng.normal(size=(32, 100, 40)).astype(np.float32)
  valid = np.arange(40)[None] < rng.integers(1, 41, 32)[:, None]
  run = jax.jit(assign)
  queries = np.asarray(run(jnp.asarray(cost), jnp.asarray(valid)))
  began = time.perf_counter()
  jax.block_until_ready(run(jnp.asarray(cost), jnp.asarray(valid)))
  facts = {'ms of 32': round(1e3 * (time.perf_counter() - began), 2)}
  worst = 0.0
  for image, real, chosen in zip(cost, valid, queries, strict=True):
    count = int(real.sum())
    rows, columns = linear_sum_assignment(image[:, :count])
    least = image[rows, columns].sum()
    own = image[chosen[:count], np.arange(count)].sum()
    twice = count - len(set(chosen[:count].tolist()))
    worst = max(worst, float((own - least) / abs(least)) + twice)
  return Found(worst, 1e-5, facts=facts)


def _oracle(path: pathlib.Path) -> Found:
  sys.path.insert(0, 'tests')
  try:
    import parity  # of the repository, not of the package
  finally:
    sys.path.remove('tests')
  compared, _ = parity.run(path)
  failed = [check.quantity for check in compared if not check.passed]
  facts = {'quantities': len(compared), 'out of tolerance': failed[:5]}
  return Found(float(len(failed)), 0.0, facts=facts)
