"""Settings that are tried on training data."""

from typing import Any

import pytest

from ovs_jax.core.errors import UserError
from ovs_jax.evaluate import search, suite
from ovs_jax.evaluate.network import Setting
from ovs_jax.evaluate.sources import Target
from ovs_jax.settings import Suite

OWN = Setting('clip', 0.0)


def test_divisions_are_all_there_are() -> None:
  assert search.divisions(2, 2) == [(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)]
  three = search.divisions(4, 3)
  assert len(set(three)) == len(three) == 15
  assert all(sum(shares) == 1 for shares in three)
  assert (0.25, 0.5, 0.25) in three and (0.0, 0.0, 1.0) in three


@pytest.mark.parametrize(
  ('asked', 'expected'),
  [
    ({'search': (0.5, 0.7)}, ['ensemble_0.50', 'ensemble_0.70']),
    (
      {'search_clips': 2},
      ['clip_clips_0.00_1.00', 'clip_clips_0.50_0.50', 'clip_clips_1.00_0.00'],
    ),
    (
      {'search_clips': 1, 'search': (0.5, 0.7)},
      [
        'ensemble_0.50_clips_0.00_1.00',
        'ensemble_0.50_clips_1.00_0.00',
        'ensemble_0.70_clips_0.00_1.00',
        'ensemble_0.70_clips_1.00_0.00',
      ],
    ),
    ({}, []),
  ],
)
def test_what_is_tried(asked: dict[str, Any], expected: list[str]) -> None:
  tried = search.settings_of(Suite(**asked), OWN, 2)
  assert [setting.name for setting in tried] == expected
  methods = ['clip', 'oracle_masks', *expected]
  assert search.names_of(Suite(**asked), methods) == expected


def test_weights_of_clips_are_not_chosen_on_test_splits() -> None:
  targets = [Target.parse('scenes:val'), Target.parse('voc_20:train')]
  message = r'config.suite.search_clips would choose .* test splits \(scenes/default:v'
  with pytest.raises(UserError, match=message):
    suite.check_search(Suite(search_clips=4), targets)
  suite.check_search(Suite(search_clips=4), targets[1:])
  suite.check_search(Suite(search_clips=4, i_know=True), targets)
  with pytest.raises(UserError, match='several CLIPs, and this OVSeg has one'):
    search.settings_of(Suite(search_clips=4), OWN, 1)
