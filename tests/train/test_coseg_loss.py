"""CoSeg's loss as a whole, from settings to one number, worked out by hand.

The network is stood in for by what it might predict: logits that are one number over a
whole mask, and tokens between anchors that are at right angles to each other.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_configs

from ovs_jax.core.types import VOID
from ovs_jax.models.coseg import Prediction
from ovs_jax.settings import Settings
from ovs_jax.train.recipes.coseg import CoSegTraining

SIDE, PIXELS = 16, 256
LARGE, SMALL = 160, 64  # pixels of two classes; 32 have none


def recipe_of(data_dir: str, **slots: Any) -> CoSegTraining:
  config = tiny_configs.of_recipe('coseg', data_dir, '', '', heads=2)
  config.coseg.language.num_slots = 3
  weights = slots.pop('weights')
  config.slots.update(matching='area', language_loss='sequence', ignore_unlabeled=False)
  config.slots.weights.update(dict.fromkeys(config.slots.weights, 0.0))
  config.slots.weights.update(weights)
  config.slots.update(slots)
  return CoSegTraining(Settings.of(config))


def label_of(recipe: CoSegTraining) -> np.ndarray:
  """Ten rows of the third seen class, four of the first, two of none."""
  label = np.full((1, SIDE, SIDE), VOID, np.uint8)
  label[0, :10], label[0, 10:14] = recipe.seen[2], recipe.seen[0]
  return label


def loss_of(
  recipe: CoSegTraining,
  monkeypatch: pytest.MonkeyPatch,
  out: Prediction,
  noted: Any = None,
) -> dict[str, float]:
  """The loss where the network predicts `out`, and its parts."""
  monkeypatch.setattr(recipe, '_predict', lambda *args, **more: (out, noted or {}))
  anchors = jnp.eye(len(recipe.seen) + 1)
  batch = {'label': jnp.asarray(label_of(recipe))}
  run = jax.jit(recipe.loss)
  total, parts = run({}, {'anchors': anchors}, batch, jax.random.key(0))
  return {'total': float(total), **{name: float(x) for name, x in parts.items()}}


def predicted(recipe: CoSegTraining, tokens: Any, logits: Any, **more: Any) -> Any:
  """Tokens from the anchors that they are sums of."""
  table = np.zeros((1, 3, len(recipe.seen) + 1), np.float32)
  for slot, sums in enumerate(tokens):
    for row, share in sums.items():
      table[0, slot, row] = share
  maps = np.ones((1, 3, SIDE, SIDE), np.float32) * np.reshape(logits, (1, 3, 1, 1))
  more = {name: jnp.asarray([x], jnp.float32) for name, x in more.items()}
  return Prediction(
    tokens=jnp.asarray(table),
    logits=jnp.asarray(maps, jnp.float32),
    log_areas=more.get('log_areas'),
  )


def entropy(logit: float, share: float) -> float:
  """Mean binary cross entropy of a mask that covers this share."""
  return math.log(1 + math.exp(logit)) - logit * share


def softmax_loss(cosines: list[float], right: int, tau: float) -> float:
  return math.log(sum(math.exp((c - cosines[right]) / tau) for c in cosines))


HALF = math.sqrt(0.5)


@pytest.mark.parametrize('direction', ['pred2gt', 'gt2pred'])
def test_the_papers_loss(
  direction: str, data_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
  """Sorted by area, contrasted among the labels of the image; empty slots count."""
  tau, weight = 0.08, 0.08
  recipe = recipe_of(
    data_dir, direction=direction, tau=tau, weights={'bce': 1.0, 'language': weight}
  )
  none = len(recipe.seen)
  # Slots stand for the larger class, the smaller one, and "unlabeled".
  tokens = [{2: 5.0}, {0: 4.0, 2: 3.0}, {none: 2.0, 1: 2.0}]
  cosines = [[1, 0, 0], [0.6, 0.8, 0], [0, 0, HALF]]
  got = loss_of(recipe, monkeypatch, predicted(recipe, tokens, [1.0, -2.0, 0.5]))
  shares = [(1.0, LARGE / PIXELS), (-2.0, SMALL / PIXELS), (0.5, 0.0)]
  bce = sum(entropy(*pair) for pair in shares) / 3
  if direction == 'gt2pred':
    cosines = [list(column) for column in zip(*cosines, strict=True)]
  language = sum(softmax_loss(row, i, tau) for i, row in enumerate(cosines)) / 3
  assert got['bce'] == pytest.approx(bce, rel=1e-5)
  assert got['language'] == pytest.approx(language, rel=1e-4)
  assert got['total'] == pytest.approx(bce + weight * language, rel=1e-5)
  assert got['right_labels'] == 1.0


def test_slots_that_area_leaves_over_have_a_weight(
  data_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
  recipe = recipe_of(
    data_dir,
    padded=0.25,
    language_loss='vocabulary',
    tau=0.5,
    weights={'bce': 1.0, 'language': 1.0},
  )
  none = len(recipe.seen)
  out = predicted(recipe, [{2: 1.0}, {0: 1.0}, {1: 1.0}], [1.0, -2.0, 0.5])
  got = loss_of(recipe, monkeypatch, out)
  shares = [(1.0, LARGE / PIXELS), (-2.0, SMALL / PIXELS), (0.5, 0.0)]
  each = [entropy(*pair) for pair in shares]
  bce = (each[0] + each[1] + 0.25 * each[2]) / 2.25
  assert got['bce'] == pytest.approx(bce, rel=1e-5)
  right = softmax_loss([1.0, *[0.0] * none], 0, 0.5)
  wrong = softmax_loss([0.0, 1.0, *[0.0] * (none - 1)], 0, 0.5)
  assert got['language'] == pytest.approx((2 * right + 0.25 * wrong) / 2.25, rel=1e-5)


def test_equal_labels_of_an_image(
  data_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
  """Pads are left out of the language loss where that is asked for."""
  weights = {'bce': 0.0, 'language': 1.0}
  recipe = recipe_of(data_dir, duplicates='mask_pads', tau=0.5, weights=weights)
  none = len(recipe.seen)
  tokens = [{2: 1.0, none: 1.0}, {0: 1.0, 2: 1.0}, {1: 1.0}]
  got = loss_of(recipe, monkeypatch, predicted(recipe, tokens, [0.0] * 3))
  want = (softmax_loss([HALF, 0], 0, 0.5) + softmax_loss([HALF, HALF], 1, 0.5)) / 2
  assert got['total'] == pytest.approx(want, rel=1e-5)


def test_matched_slots_and_the_whole_vocabulary(
  data_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
  tau, unmatched = 0.5, 0.25
  weights = {'bce': 2.0, 'dice': 0.5, 'language': 0.3, 'area': 0.7}
  recipe = recipe_of(
    data_dir,
    matching='hungarian',
    language_loss='vocabulary',
    tau=tau,
    unmatched=unmatched,
    ignore_unlabeled=True,
    weights=weights,
  )
  none, logits = len(recipe.seen), (-1.0, 0.5, 1.0)
  # The last slot is near the larger class, the first near the smaller one.
  tokens = [{0: 3.0}, {none: 1.0, 1: 1.0}, {2: 1.0, 3: 1.0}]
  areas = [-1.0, 0.0, -2.0]
  out = predicted(recipe, tokens, logits, log_areas=areas)
  got = loss_of(recipe, monkeypatch, out)
  known = LARGE + SMALL  # pixels; the others count nowhere
  each = [1.0, unmatched, 1.0]
  covered = [SMALL, 0, LARGE]
  total = sum(each)

  def mean(values: list[float]) -> float:
    return sum(w * x for w, x in zip(each, values, strict=True)) / total

  bce = mean([entropy(x, n / known) for x, n in zip(logits, covered, strict=True)])
  rows = [[1.0, *[0.0] * none], *[[HALF, HALF, *[0.0] * (none - 1)]] * 2]
  language = mean([softmax_loss(row, 0, tau) for row in rows])

  def dice(logit: float, size: int) -> float:
    p = 1 / (1 + math.exp(-logit))
    return 1 - (2 * p * size + 1) / (p * known + size + 1)

  overlap = (dice(-1.0, SMALL) + dice(1.0, LARGE)) / 2
  area = abs(-1 - math.log(SMALL / PIXELS)) + abs(-2 - math.log(LARGE / PIXELS))
  want = {'bce': bce, 'dice': overlap, 'language': language, 'area': area / 2}
  for name, value in want.items():
    assert got[name] == pytest.approx(value, rel=1e-5), name
  summed = sum(weights[name] * value for name, value in want.items())
  assert got['total'] == pytest.approx(summed, rel=1e-5)
  assert 'focal' not in got


def test_slots_are_forced_by_the_texts_of_their_labels(
  data_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
  recipe = recipe_of(data_dir, forced=0.5, weights={'bce': 1.0})
  none, given = len(recipe.seen), {}
  out = predicted(recipe, [{0: 1.0}] * 3, [0.0] * 3)

  def predict(params: Any, batch: Any, **more: Any) -> tuple[Prediction, Any]:
    given.update(more)
    return jax.tree.map(lambda x: jnp.repeat(x, 200, axis=0), out), {}

  monkeypatch.setattr(recipe, '_predict', predict)
  anchors = jnp.eye(none + 1)
  batch = {'label': jnp.asarray(label_of(recipe).repeat(200, axis=0))}
  recipe.loss({}, {'anchors': anchors}, batch, jax.random.key(0))
  assert given['texts'].shape == (200, 3, none + 1)
  np.testing.assert_array_equal(given['texts'][7], np.eye(none + 1)[[2, 0, none]])
  assert 0.42 < given['forced'].mean() < 0.58
  assert 0 < given['forced'][:, 0].mean() < 1 and 0 < given['forced'][0].mean() <= 1


def test_texts_of_all_targets_have_masks(
  data_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
  """They are compared whatever slots were matched with; what is not there is not."""
  weights = {'bce': 2.0, 'dice': 0.5, 'text': 0.25}
  recipe = recipe_of(
    data_dir, matching='hungarian', language_loss='vocabulary', weights=weights
  )
  out = predicted(recipe, [{0: 1.0}, {2: 1.0}, {1: 1.0}], [0.0] * 3)
  texts = (1.0, -2.0, 5.0)  # of the larger class, of the smaller one, of none
  maps = np.ones((1, 3, SIDE, SIDE), np.float32) * np.reshape(texts, (1, 3, 1, 1))
  out = dataclasses.replace(out, beside=jnp.asarray(maps, jnp.float32))
  got = loss_of(recipe, monkeypatch, out)
  pairs = ((1.0, LARGE), (-2.0, SMALL))
  bce = sum(entropy(x, n / PIXELS) for x, n in pairs) / 2

  def dice(logit: float, size: int) -> float:
    p = 1 / (1 + math.exp(-logit))
    return 1 - (2 * p * size + 1) / (p * PIXELS + size + 1)

  want = 2.0 * bce + 0.5 * sum(dice(*pair) for pair in pairs) / 2
  assert got['text'] == pytest.approx(want, rel=1e-5)
  slots = 2.0 * got['bce'] + 0.5 * got['dice']
  assert got['total'] == pytest.approx(slots + 0.25 * want, rel=1e-5)


def test_earlier_blocks_name_what_the_last_one_was_matched_with(
  data_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
  recipe = recipe_of(
    data_dir,
    language_loss='vocabulary',
    tau=0.5,
    weights={'language': 1.0, 'deep': 0.5},
  )
  none = len(recipe.seen)
  right = predicted(recipe, [{2: 1.0}, {0: 1.0}, {none: 1.0}], [0.0] * 3)
  wrong = predicted(recipe, [{1: 1.0}, {0: 1.0}, {none: 1.0}], [0.0] * 3)
  noted = {'tokens': (wrong.tokens, right.tokens, right.tokens)}
  got = loss_of(recipe, monkeypatch, right, noted)
  best = softmax_loss([1.0, *[0.0] * none], 0, 0.5)
  worst = softmax_loss([0.0, 1.0, *[0.0] * (none - 1)], 0, 0.5)
  assert got['language'] == pytest.approx(best, rel=1e-5)
  assert got['deep'] == pytest.approx(((worst + 2 * best) / 3 + best) / 2, rel=1e-5)
  assert got['total'] == pytest.approx(best + 0.5 * got['deep'], rel=1e-5)


@pytest.mark.parametrize(
  'name', ['decoder_{}/cross_attn', 'block_{}/attn'], ids=['cross', 'prefix']
)
def test_slots_are_asked_to_look_at_what_they_stand_for(
  name: str, data_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
  """Two blocks: in one all look everywhere, in the other at the upper half."""
  recipe = recipe_of(data_dir, weights={'attention': 2.0})
  out = predicted(recipe, [{2: 1.0}, {0: 1.0}, {1: 1.0}], [0.0] * 3)
  # Patches of 8: a grid of 2 x 2, of which rows 0 to 9 cover 1, 1, 1/4 and 1/4.
  looks = np.zeros((2, 1, 2, 3, 3 + 4), np.float32)
  looks[0, ..., -4:], looks[1, ..., -4:] = 0.25, (0.5, 0.5, 0.0, 0.0)
  looks[..., :3] = 9.0  # slots among each other, of the prefix model
  if name.startswith('decoder'):
    looks = looks[..., 3:]
  noted: dict[str, Any] = {'tokens': (out.tokens, out.tokens)}
  for i in range(2):
    block, kind = name.format(i).split('/')
    noted[block] = {kind: {'weights': (jnp.asarray(looks[i]),)}}
  got = loss_of(recipe, monkeypatch, out, noted)
  # The larger class covers rows 0 to 9, the smaller one 10 to 13.
  shares = [(2.5 / 4, 1.0 / 4), (1.0, 0.0)]
  each = [-math.log(share + 1e-5) for pair in shares for share in pair]
  assert got['attention'] == pytest.approx(sum(each) / 4, rel=1e-5)
  assert got['attention_share'] == pytest.approx((0.875 + 1.0) / 4, rel=1e-5)
  assert got['total'] == pytest.approx(2.0 * got['attention'], rel=1e-5)
