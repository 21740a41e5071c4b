"""The step of CLIP's adaptation as a workload."""

import math

import jax
import pytest

from ovs_jax.bench import clip_adapt_step, placed_step


@pytest.mark.slow
def test_a_step_of_prompt_tuning_is_measured() -> None:
  options = clip_adapt_step.Options(preset='tiny', batch=4)
  workload = clip_adapt_step.build(options)
  assert workload.items == 4 and workload.facts['trained'] == 3 * 36 * 64
  assert [variant.name for variant in workload.variants] == [
    'package',
    'with text tower',
  ]
  for variant in workload.variants:
    assert math.isfinite(float(variant.run()['loss']))


def test_an_unknown_method_is_refused() -> None:
  with pytest.raises(ValueError, match='known: ft, mpt'):
    clip_adapt_step.build(clip_adapt_step.Options(method='mtp'))


@pytest.mark.slow
@pytest.mark.parametrize('mesh', [(8, 1), (4, 2)])
def test_a_mesh_takes_the_step_of_one_device(mesh: tuple[int, int]) -> None:
  losses = []
  for shape in ((1, 1), mesh):
    options = clip_adapt_step.Options(preset='tiny', batch=8, mesh=shape)
    package = clip_adapt_step.build(options).variants[0]
    metrics = package.run()
    losses.append([float(metrics[name]) for name in ('loss', 'gradient_norm')])
    assert len(metrics['loss'].devices()) == math.prod(shape)
  assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_one_device_of_several_will_do() -> None:
  assert placed_step.make_mesh((1, 1)).devices.tolist() == [[jax.devices()[0]]]
  assert placed_step.make_mesh((2, 4)).shape == {'data': 2, 'model': 4}


@pytest.mark.parametrize(
  ('shape', 'message'),
  [
    ((4, 4), '4x4 devices does not fit the 8 .* add --devices=16'),
    ((8,), '--mesh=8 is not two numbers'),
    ((-1, 8), '--mesh=-1,8 is not two numbers'),
  ],
)
def test_meshes_that_cannot_be(shape: tuple[int, ...], message: str) -> None:
  with pytest.raises(ValueError, match=message):
    placed_step.make_mesh(shape)
