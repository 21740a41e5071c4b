"""Trees as paths, and ordered patterns over them."""

import re

import jax
import numpy as np
import pytest

from ovs_jax.core import tree

NESTED = {'visual': {'blocks': {'kernel': 1, 'bias': 2}, 'proj': 3}, 'logit_scale': 4}


def test_flatten_and_unflatten_are_inverse() -> None:
  leaves = tree.flatten(NESTED)
  assert leaves == {
    'visual/blocks/kernel': 1,
    'visual/blocks/bias': 2,
    'visual/proj': 3,
    'logit_scale': 4,
  }
  assert list(leaves) == list(tree.flatten(tree.unflatten(leaves)))
  assert tree.unflatten(leaves) == NESTED


def test_map_with_path_sees_paths() -> None:
  mapped = tree.map_with_path(lambda path, x: f'{path}={x}', NESTED)
  assert mapped['visual']['blocks']['bias'] == 'visual/blocks/bias=2'


class TestMatchRules:
  def test_the_first_match_wins(self) -> None:
    rules = ((r'bias$', 'first'), (r'^visual/', 'second'), (r'.*', 'third'))
    assert tree.match_rules(tree.flatten(NESTED), rules, what='x') == {
      'visual/blocks/kernel': 'second',
      'visual/blocks/bias': 'first',
      'visual/proj': 'second',
      'logit_scale': 'third',
    }

  def test_unmatched_and_dead_are_listed_together(self) -> None:
    # The third is dead because the second takes all that it would match.
    rules = ((r'nothing', 0), (r'^visual/', 1), (r'proj$', 2))
    with pytest.raises(ValueError) as error:
      tree.match_rules(tree.flatten(NESTED), rules, what='config.optimizer.groups')
    first, unmatched, dead, _ = str(error.value).splitlines()
    assert first.startswith(
      'config.optimizer.groups: 1 parameters match no pattern, 2 patterns match no'
    )
    assert unmatched.strip() == 'without a pattern: logit_scale'
    assert dead.strip() == 'patterns without a parameter: nothing, proj$'

  def test_unused_rules_can_be_allowed(self) -> None:
    rules = ((r'nothing', 0), (r'.*', 1))
    values = tree.match_rules(['a'], rules, what='x', allow_unused=True)
    assert values == {'a': 1}
    with pytest.raises(ValueError, match='1 parameters match no pattern'):
      tree.match_rules(['a'], rules[:1], what='x', allow_unused=True)

  def test_long_lists_are_cut(self) -> None:
    with pytest.raises(ValueError, match=re.escape('p11, and 8 more')):
      tree.match_rules([f'p{i}' for i in range(20)], (), what='x')


class TestDifference:
  def test_equal_trees(self) -> None:
    one = {'a': {'b': np.zeros((2, 3))}}
    other = {'a': {'b': jax.ShapeDtypeStruct((2, 3), np.float32)}}
    assert tree.difference(one, other, what='x') is None

  def test_everything_wrong_is_in_one_message(self) -> None:
    expected = {'a': np.zeros(2), 'b': np.zeros((2, 3))}
    got = {'b': np.zeros((3, 2)), 'c': np.zeros(1)}
    message = tree.difference(expected, got, what='checkpoint')
    assert message == (
      'checkpoint: 1 parameters missing, 1 unknown, 1 of another shape.\n'
      '  missing: a\n  unknown: c\n  shapes: b (3, 2) instead of (2, 3)'
    )


def test_count_parameters_counts_scalars() -> None:
  assert tree.count_parameters({'a': np.zeros((2, 3)), 'b': {'c': np.zeros(())}}) == 7
