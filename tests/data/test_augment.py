"""MaskFormer's augmentation, eagerly and in graphs, on cases worked out by hand."""

from typing import Any

import jax
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ovs_jax.core.types import VOID
from ovs_jax.data import augment, transforms
from ovs_jax.ops.targets import target_masks

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (20, 30, 3)).astype(np.uint8)
LABEL = RNG.integers(0, 5, (20, 30)).astype(np.uint8)


def example(seed: int = 0, **more: Any) -> dict[str, Any]:
  fields = {'image': IMAGE, 'label': LABEL, **more}
  fields['seed'] = np.array([7, 8 * seed], np.int64)
  return {name: tf.constant(value) for name, value in fields.items()}


def apply(transform: transforms.Transform, given: dict[str, Any]) -> dict[str, Any]:
  """Applies it eagerly and in a graph, and checks that the two agree."""
  eager = {name: np.asarray(x) for name, x in transform(given).items()}
  data = tf.data.Dataset.from_tensors(given)
  graph = next(data.map(transform).as_numpy_iterator())
  assert set(graph) == set(eager)
  for name, value in eager.items():
    # A graph may sum in another order, and a byte may round the other way.
    assert np.abs(graph[name].astype(int) - value.astype(int)).max() <= (
      name == 'image'
    )
  return eager


def test_jitter_draws_the_shorter_side() -> None:
  shapes = {
    apply(augment.jittered_crop((10, 40), 2560, 0), example(seed))['image'].shape[:2]
    for seed in range(8)
  }
  assert shapes == {(10, 15), (40, 60)}
  # The longer side wins: 30 -> 45 makes the shorter one 30 instead of 40.
  got = apply(augment.jittered_crop((40,), 45, 0), example())
  assert got['image'].shape == (30, 45, 3) and got['label'].shape == (30, 45)
  assert got['image'].dtype == np.uint8 and got['label'].dtype == np.uint8


def test_jitter_resamples_as_the_reference() -> None:
  got = apply(augment.jittered_crop((10,), 2560, 0), example())
  # Nearest: floor(i * in / out).
  np.testing.assert_array_equal(got['label'], LABEL[::2, ::2])
  want = np.asarray(Image.fromarray(IMAGE).resize((15, 10), Image.Resampling.BILINEAR))
  assert np.abs(got['image'].astype(int) - want).max() <= 1
  got = apply(augment.jittered_crop((40,), 2560, 0), example())
  np.testing.assert_array_equal(got['label'], LABEL.repeat(2, 0).repeat(2, 1))


def test_crop_is_one_box_of_both() -> None:
  place = np.arange(600).reshape(20, 30)
  image = np.stack([place // 256, place % 256, 0 * place], axis=-1).astype(np.uint8)
  label = (place % 251).astype(np.uint8)
  corners = set()
  for seed in range(12):
    got = apply(
      augment.jittered_crop((), 0, 12), example(seed, image=image, label=label)
    )
    assert got['image'].shape == (12, 12, 3) and got['label'].shape == (12, 12)
    ids = got['image'][..., 0].astype(int) * 256 + got['image'][..., 1]
    y, x = divmod(ids[0, 0], 30)
    np.testing.assert_array_equal(ids, place[y : y + 12, x : x + 12])
    np.testing.assert_array_equal(got['label'], label[y : y + 12, x : x + 12])
    corners.add((y, x))
  assert len(corners) > 6
  got = apply(augment.jittered_crop((), 0, 25), example())
  assert got['image'].shape == (20, 25, 3)


@pytest.mark.parametrize('shortest', [(13,), (20,), (41,), (13, 27, 55)])
def test_a_crop_is_part_of_the_resized_image(shortest: tuple[int, ...]) -> None:
  corners = set()
  for seed in range(8):
    whole, part = (
      {
        name: np.asarray(x).astype(int)
        for name, x in augment.jittered_crop(shortest, 70, size)(example(seed)).items()
      }
      for size in (0, 11)
    )
    assert part['image'].shape == (11, 11, 3)
    image, label = whole['image'], whole['label']
    found = [
      (y, x)
      for y in range(image.shape[0] - 10)
      for x in range(image.shape[1] - 10)
      if np.array_equal(label[y : y + 11, x : x + 11], part['label'])
      # Summed in another order, a byte may round the other way.
      and np.abs(image[y : y + 11, x : x + 11] - part['image']).max() <= 1
    ]
    assert len(found) == 1
    corners.add(found[0])
  assert len(corners) > 4


def test_padding_is_grey_void_and_a_negative_of_every_mask() -> None:
  got = apply(augment.pad_square(32), example())
  np.testing.assert_array_equal(got['image'][:20, :30], IMAGE)
  np.testing.assert_array_equal(got['label'][:20, :30], LABEL)
  assert (got['image'][20:] == 128).all() and (got['image'][:, 30:] == 128).all()
  assert (got['label'][20:] == VOID).all() and (got['label'][:, 30:] == VOID).all()
  both = transforms.chain([augment.pad_square(32), transforms.label_targets(6)])
  targets = apply(both, example())
  given = [targets[name][None] for name in ('label', 'ids', 'valid')]
  masks = np.asarray(jax.jit(target_masks)(*given))[0]
  assert masks.shape == (6, 32, 32) and masks[:5].sum() == 600
  assert not masks[:, 20:].any() and not masks[:, :, 30:].any()


def test_colour_moves_within_bounds() -> None:
  flat = np.full((4, 4, 3), (200, 100, 50), np.uint8)
  # Eagerly: that graphs agree is tested below, and each one takes long to build.
  seen = {
    tuple(augment.colour_jitter(example(seed, image=flat))['image'][0, 0].numpy())
    for seed in range(40)
  }
  assert (200, 100, 50) in seen  # all four steps are off once in sixteen
  assert len(seen) > 20
  grey = np.full((4, 4, 3), 100, np.uint8)
  for seed in range(20):
    got = augment.colour_jitter(example(seed, image=grey))['image'].numpy()
    # Grey has no hue and no saturation: (100 +- 32) * 0.5 ... 1.5.
    assert (got == got[0, 0, 0]).all() and 34 <= got[0, 0, 0] <= 198
  for seed in range(20):
    black = augment.colour_jitter(example(seed, image=0 * grey))['image'].numpy()
    assert black.max() <= 48


def test_colour_only_changes_the_image() -> None:
  for seed in (1, 2, 4):
    apply(augment.colour_jitter, example(seed))
  got = apply(augment.colour_jitter, example(3))
  np.testing.assert_array_equal(got['label'], LABEL)
  again = apply(augment.colour_jitter, example(3))
  np.testing.assert_array_equal(got['image'], again['image'])


@pytest.mark.parametrize('kept', [(0, 3), (1,), (4, 2)])
def test_held_out_classes_become_void(kept: tuple[int, ...]) -> None:
  label = LABEL.copy()
  label[0, 0] = VOID
  got = apply(augment.only_classes(kept), example(label=label))['label']
  np.testing.assert_array_equal(got, np.where(np.isin(label, kept), label, VOID))


def paste(seed: int, *others: dict[str, Any]) -> np.ndarray:
  """Returns the label that comes of `copy_paste(0.1)` into class 0."""
  seeds = [example(seed + 100 * i)['seed'] for i in range(len(others))]
  fields = {
    'image': np.zeros((20, 30, 3), np.uint8),
    'label': np.zeros((20, 30), np.uint8),
  }
  seeded = zip(others, seeds, strict=True)
  given = {
    **example(seed, **fields),
    'others': tuple({**other, 'seed': own} for other, own in seeded),
  }
  done = {name: np.asarray(x) for name, x in augment.copy_paste(0.1)(given).items()}
  assert set(done) == {'image', 'label', 'seed'}
  # The picture moves along with its labels.
  np.testing.assert_array_equal(done['image'], done['label'][..., None] * [10, 20, 30])
  return done['label']


def test_small_things_are_pasted_together() -> None:
  label = np.full((20, 30), VOID, np.uint8)
  label[:, 15:] = 1  # half the scene: stays there
  label[9:11, 14:17] = 2
  label[8, 13] = 3
  other = {'label': label, 'image': (label[..., None] * np.array([10, 20, 30]))}
  other = {name: tf.constant(x.astype(np.uint8)) for name, x in other.items()}
  seen = set()
  for seed in range(12):
    pasted = paste(seed, other)
    assert set(np.unique(pasted)) <= {0, 2, 3}
    ((y, x),) = np.argwhere(pasted == 3)
    shift = (int(y) - 8, int(x) - 13)
    assert abs(shift[0]) <= 0.375 * 20 + 0.5 and abs(shift[1]) <= 0.375 * 30 + 0.5
    want = np.zeros((20, 30), np.uint8)
    for (row, column), name in np.ndenumerate(label):
      target = (row + shift[0], column + shift[1])
      if name in (2, 3) and 0 <= target[0] < 20 and 0 <= target[1] < 30:
        want[target] = name
    np.testing.assert_array_equal(pasted, want)
    seen.add(shift)
  assert len(seen) > 8


def test_the_last_scene_lies_in_front() -> None:
  others = []
  for name in (1, 2):
    label = np.full((20, 30), VOID, np.uint8)
    label[8:12, 10:20] = name
    image = np.where(label[..., None] == name, [10 * name, 20 * name, 30 * name], 0)
    others.append({'label': label, 'image': image.astype(np.uint8)})
  others = [{n: tf.constant(x) for n, x in other.items()} for other in others]
  hidden = 0
  for seed in range(12):
    alone = paste(seed, others[0])
    both = paste(seed, *others)
    inside = both == 2
    assert 0 < inside.sum() <= 40
    np.testing.assert_array_equal(both[~inside], alone[~inside])
    hidden += (alone[inside] == 1).sum()
  assert hidden > 0


def test_a_companion_may_have_another_size() -> None:
  label = np.full((6, 50), VOID, np.uint8)
  label[3, 20] = 2
  image = np.where(label[..., None] == 2, [20, 40, 60], 0).astype(np.uint8)
  for seed in range(8):
    pasted = paste(seed, {'label': tf.constant(label), 'image': tf.constant(image)})
    assert (pasted == 2).sum() <= 1 and set(np.unique(pasted)) <= {0, 2}
