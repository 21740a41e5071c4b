"""Numbers that are too small, as whoever starts a job with them sees it."""

import pathlib
from typing import Any

import pytest
import tiny_configs

from configs import common
from ovs_jax.core.counts import check_counts
from ovs_jax.evaluate.runner import evaluate
from ovs_jax.evaluate.suite import benchmark
from ovs_jax.evaluate.systems import evaluate_systems
from ovs_jax.mining.run import mine
from ovs_jax.train.loop import train


@pytest.mark.parametrize(
  ('job', 'key', 'value', 'least'),
  [
    (train, 'train.steps', -1, 0),
    (train, 'train.log_every', 0, 1),
    (train, 'train.save_every', -2, 1),
    (train, 'train.keep', 0, 1),
    (train, 'train.profile', -1, 0),
    (train, 'adapt.evaluate_every', -1, 0),
    (mine, 'mining.chunk', 0, 1),
    (evaluate, 'eval.save_every', 0, 1),
    (benchmark, 'eval.save_every', 0, 1),
    (evaluate_systems, 'eval.save_every', 0, 1),
  ],
)
def test_jobs_refuse_them_first(
  tmp_path: pathlib.Path, job: Any, key: str, value: int, least: int
) -> None:
  config = tiny_configs.pretraining(str(tmp_path / 'data'))
  config.update_from_flattened_dict({key: value})
  with pytest.raises(ValueError, match=f'^config.{key} is {value}, .* least {least}$'):
    job(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_the_least_are_taken() -> None:
  config = common.base('test', 'train')
  check_counts(config, {'train.keep': config.train.keep, 'seed': 0})
