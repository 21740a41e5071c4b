"""Workloads of inference at tiny sizes: their variants must agree."""

import pytest

from ovs_jax.bench import clip_crops, fusion, mining, ovseg_inference
from ovs_jax.bench.measure import measure


def test_fusion_variants_agree() -> None:
  options = fusion.Options(
    proposals=10, classes=200, height=60, width=80, network=40, sharpness=4.0
  )
  workload = fusion.build(options)
  rows = measure(workload, repeats=1)
  assert [row['variant'] for row in rows] == ['package', 'plain']
  assert workload.facts['masks'] == [10, 40, 53]
  assert workload.facts['labels equal: plain'] == 1


@pytest.mark.slow
def test_crops_agree_with_the_plain_tower() -> None:
  workload = clip_crops.build(clip_crops.Options(preset='tiny', batch=2))
  measure(workload, repeats=1)
  assert workload.facts['largest difference: plain'] < 1e-3
  assert workload.facts['largest difference: all patches'] < 1e-3


@pytest.mark.slow
def test_pictures_agree_with_the_plain_way() -> None:
  options = ovseg_inference.Options(
    preset='tiny',
    proposer='tiny',
    shortest=64,
    height=64,
    width=96,
    queries=20,
    valid=7,
    names=5,
    many=150,
  )
  workload = ovseg_inference.build(options)
  rows = measure(workload, repeats=1)
  assert [row['variant'] for row in rows][:2] == ['package', 'plain']
  facts = workload.facts
  assert facts['labels equal: plain'] > 0.999
  shares = [facts[key] for key in facts if key.startswith('share of time')]
  assert len(shares) == 4 and sum(shares) == pytest.approx(1, abs=0.01)


def test_photographs_are_mined_in_chunks() -> None:
  options = mining.Options(
    *('tiny', 'tiny'), shortest=64, height=64, width=96, queries=5, images=3, chunk=2
  )
  workload = mining.build(options)
  rows = measure(workload, warmup=0, repeats=1)
  assert [row['variant'] for row in rows] == ['package', 'networks alone']
  # A dog, the grass, a car; people, a cat, a television; a bowl, fruit, a table, a
  # window: every noun has a mask of each photograph.
  assert workload.facts['pairs'] == 10
  one, other = workload.variants
  assert one.run() == 10 and len(other.run()) == 3
