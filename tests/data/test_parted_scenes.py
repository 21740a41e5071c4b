"""Things of the drawn world that have parts."""

import numpy as np

from ovs_jax.core.types import VOID
from ovs_jax.data import scenes, scenes_draw
from ovs_jax.data.scenes_draw import NUM_THINGS, SHAPES, UNSEEN


def test_parts_lie_on_things_of_other_colours() -> None:
  rngs = [[np.random.default_rng(k) for k in range(40)] for _ in range(2)]
  parted = [scenes_draw.draw_scene(rng, parts=True) for rng in rngs[0]]
  whole = [scenes_draw.draw_scene(rng) for rng in rngs[1]]
  colours = np.array(list(scenes_draw.COLOURS.values()))
  right = total = things = 0
  for scene, plain in zip(parted, whole, strict=True):
    np.testing.assert_array_equal(scene.label, plain.label)  # a part is its thing's
    assert (plain.parts == VOID).all()
    things += len(scene.things)
    for index, region in enumerate(scene.regions):
      own, sizes = np.unique(scene.parts[scene.mask(index)], return_counts=True)
      sizes = sizes[own != VOID]
      (*own,) = own[own != VOID].tolist()
      if region.train_id >= NUM_THINGS:
        assert not own
      elif own:
        assert len(own) == 1 and sizes[0] >= 16
        colour = own[0] // len(SHAPES)
        assert colour != region.train_id // len(SHAPES)
        shown = scene.mask(index) & (scene.parts == own[0])
        mean = scene.image[shown].mean(0)
        light = mean.sum() / colours.sum(1, keepdims=True)
        right += np.abs(colours * light - mean).sum(1).argmin() == colour
        total += 1
  assert 0.5 < total / things < 0.9 and right / total > 0.85


def test_both_data_sets_of_parts_have_the_same_pictures() -> None:
  configs = {c.name: c for c in scenes.CONFIGS}
  wholes, parts, plain = (
    list(scenes.examples(configs[name], 'val'))
    for name in ('smoke_parted', 'smoke_parts', 'smoke')
  )
  for whole, part, other in zip(wholes, parts, plain, strict=True):
    np.testing.assert_array_equal(whole['image'], part['image'])
    assert (whole['image'] != other['image']).any()
    assert (whole['label'] != VOID).all()
    rest = part['label'] == NUM_THINGS  # known, and no part
    assert rest.mean() > 0.7 and (part['label'][~rest] < NUM_THINGS).all()
  assert any((part['label'] != NUM_THINGS).any() for part in parts)
  for part in scenes.examples(configs['smoke_parts'], 'train'):
    assert not np.isin(part['label'], list(UNSEEN)).any()
    assert (part['label'] == VOID).mean() > 0.7
