"""Tables of rules: layouts, strictness, and the way back."""

import collections.abc
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ovs_jax.convert.rules import (
  Rule,
  apply,
  export,
  layer_rules,
  targets_of,
)
from ovs_jax.convert.transforms import CONV, LINEAR, OUT, POINT, PROJECTION, QKV, SAME
from ovs_jax.core.tree import flatten, unflatten
from ovs_jax.models.layers import Attention

WIDTH, HEADS, LAYERS = 6, 2, 3


def shapes(**leaves):
  return unflatten(
    {
      path.replace('__', '/'): jax.ShapeDtypeStruct(shape, jnp.float32)
      for path, shape in leaves.items()
    }
  )


def counting(*shape):
  return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


@pytest.mark.parametrize(
  'transform, source, targets, pick',
  [
    (SAME, (2, 3), [(2, 3)], lambda x, y: (x[1, 2], y[0][1, 2])),
    (LINEAR, (2, 3), [(3, 2)], lambda x, y: (x[1, 2], y[0][2, 1])),
    (
      CONV,
      (5, 4, 3, 2),
      [(3, 2, 4, 5)],
      lambda x, y: (x[4, 3, 2, 1], y[0][2, 1, 3, 4]),
    ),
    (POINT, (5, 4, 1, 1), [(4, 5)], lambda x, y: (x[4, 3, 0, 0], y[0][3, 4])),
    # Row 6 + 3 + 1 of q, k, v of width 6 is row 4 of k: head 1, feature 1.
    (QKV, (18, 6), [(6, 2, 3)] * 3, lambda x, y: (x[10, 5], y[1][5, 1, 1])),
    (QKV, (18,), [(2, 3)] * 3, lambda x, y: (x[10], y[1][1, 1])),
    (PROJECTION, (6, 5), [(5, 2, 3)], lambda x, y: (x[4, 3], y[0][3, 1, 1])),
    (PROJECTION, (6,), [(2, 3)], lambda x, y: (x[4], y[0][1, 1])),
    # Columns of the output projection are heads times features.
    (OUT, (7, 6), [(2, 3, 7)], lambda x, y: (x[6, 4], y[0][1, 1, 6])),
  ],
)
def test_layouts_and_their_inverses(transform, source, targets, pick):
  x = counting(*source)
  parts = transform.split(x, targets)
  assert [part.shape for part in parts] == targets
  a, b = pick(x, parts)
  assert a == b
  np.testing.assert_array_equal(transform.join(parts), x)


def test_attention_equals_the_packed_one():
  rng = np.random.default_rng(0)
  source = {
    'a.in_proj_weight': rng.normal(size=(18, 6)),
    'a.in_proj_bias': rng.normal(size=18),
    'a.out_proj.weight': rng.normal(size=(6, 6)),
    'a.out_proj.bias': rng.normal(size=6),
  }
  source = {k: v.astype(np.float32) for k, v in source.items()}
  x = jnp.asarray(rng.normal(size=(1, 4, 6)), jnp.float32)
  model = Attention(HEADS, jnp.float32)
  expected = jax.eval_shape(model.init, jax.random.key(0), x, x, x)['params']
  params = apply(
    source, layer_rules('a', 'at', 'attention'), {'at': expected}, what='attention'
  )
  got = model.apply({'params': params['at']}, x, x, x)[0]
  x = np.asarray(x)
  q, k, v = np.split(
    x[0] @ source['a.in_proj_weight'].T + source['a.in_proj_bias'], 3, 1
  )
  mixed = []
  for cut in (slice(0, 3), slice(3, 6)):
    e = np.exp(q[:, cut] @ k[:, cut].T / np.sqrt(3))
    mixed.append(e / e.sum(1, keepdims=True) @ v[:, cut])
  want = np.concatenate(mixed, 1) @ source['a.out_proj.weight'].T
  np.testing.assert_allclose(
    got, want + source['a.out_proj.bias'], rtol=1e-4, atol=1e-4
  )


RULES = [
  *layer_rules('blocks.<layer>.fc', 'blocks/fc', 'linear'),
  *layer_rules('norm', 'norm', 'norm'),
]
EXPECTED = shapes(
  blocks__fc__kernel=(LAYERS, 2, 4),
  blocks__fc__bias=(LAYERS, 4),
  norm__scale=(4,),
  norm__bias=(4,),
)


def source():
  tensors = {'norm.weight': counting(4), 'norm.bias': counting(4) + 9}
  for i in (2, 0, 1):  # any order
    tensors[f'blocks.{i}.fc.weight'] = counting(4, 2) + 100 * i
    tensors[f'blocks.{i}.fc.bias'] = (counting(4) + 100 * i).astype(np.float16)
  return tensors


def test_layers_are_stacked_and_types_follow_the_model():
  params = flatten(apply(source(), RULES, EXPECTED, what='test'))
  assert {k: v.shape for k, v in params.items()} == {
    k: v.shape for k, v in flatten(EXPECTED).items()
  }
  assert all(v.dtype == np.float32 for v in params.values())
  np.testing.assert_array_equal(params['blocks/fc/bias'][:, 0], [0, 100, 200])
  assert params['blocks/fc/kernel'][1, 1, 3] == 100 + 7


def test_export_is_the_inverse():
  params = apply(source(), RULES, EXPECTED, what='test')
  back = export(params, RULES, source())
  for name, value in source().items():
    np.testing.assert_array_equal(back[name], value)
  with pytest.raises(ValueError, match='1 tensors cannot be exported: other'):
    export(params, RULES, [*source(), 'other'])
  scalar = [Rule('s', 's', SAME)]
  assert export({'s': jnp.float32(2)}, scalar, ['s'])['s'].shape == ()


def test_everything_wrong_is_in_one_message():
  tensors = source()
  del tensors['blocks.1.fc.bias']
  tensors['blocks.7.fc.bias'] = counting(4)
  tensors['blocks.0.fc.weight'] = counting(2, 4)
  tensors['stray'] = counting(1)
  tensors['constant'] = counting(1)
  rules = [*RULES, Rule('nobody', 'norm/bias', SAME), Rule('<any:stray>', 'gone', SAME)]
  with pytest.raises(ValueError) as error:
    apply(tensors, rules, EXPECTED, what='a file', ignore=['constant'])
  message = str(error.value)
  first, *details = message.splitlines()
  assert first.startswith('a file: cannot convert its 10 tensors: ')
  for part in (
    '2 source tensors without a parameter',
    '1 other shapes',
    '1 rules that matched nothing',
    '1 missing parameters',
  ):
    assert part in first
  text = '\n'.join(details)
  for part in (
    'stray (for gone)',
    'blocks.7.fc.bias (of 3 layers)',
    'blocks.0.fc.weight (2, 4) gives (4, 2) instead of (2, 4)',
    'nobody',
    'blocks/fc/bias[1]',
  ):
    assert part in text


def test_a_source_larger_than_memory_is_read_one_by_one():
  class Lazy(collections.abc.Mapping):
    def __len__(self):
      return 20

    def __iter__(self):
      return (f'b.{i}' for i in range(20))

    def __getitem__(self, name):
      return np.full((100, 1000), int(name[2:]), np.float64)

  rules = [Rule('b.<layer>', 'b', LINEAR)]
  tracemalloc.start()
  params = apply(Lazy(), rules, shapes(b=(20, 1000, 100)), what='test')
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  np.testing.assert_array_equal(params['b'][:, 5, 5], np.arange(20))
  assert peak < 1.25 * params['b'].nbytes


def test_integers_are_no_parameters():
  tensors = source()
  tensors['norm.weight'] = np.arange(4, dtype=np.int8)
  with pytest.raises(
    ValueError, match=r'1 not floating-point .*\n.*norm.weight \(int8'
  ):
    apply(tensors, RULES, EXPECTED, what='a file')


def test_unused_ambiguous_and_doubled():
  tensors = {**source(), 'extra': counting(4), 'norm.gain': counting(4)}
  rules = [
    *RULES,
    Rule('norm.gain', 'norm/scale', SAME),
    Rule('norm.<any:bias>', 'norm/bias', SAME),
  ]
  with pytest.raises(ValueError) as error:
    apply(tensors, rules, EXPECTED, what='a file')
  for part in (
    '1 unused source tensors',
    '1 source tensors with several rules',
    '1 parameters filled twice',
    'norm/scale (again by norm.gain)',
  ):
    assert part in str(error.value)


def test_targets_of():
  assert targets_of('blocks.2.fc.weight', RULES) == ['blocks/fc/kernel']
  assert targets_of('nothing', RULES) == []
