"""Pictures whose masks come in parts."""

import warnings

import numpy as np
import pytest

from ovs_jax.ops.canvas import Canvas
from ovs_jax.ops.merging import THRESHOLD

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 5, 7)).astype(np.float32)
LABELS = np.array([3, 0, -1, 2, 1, 0])


@pytest.mark.parametrize('rule', ['A', 'B'])
def test_parts_paint_what_the_whole_does(rule: str) -> None:
  whole, parts = Canvas((30, 50), rule=rule), Canvas((30, 50), rule=rule)
  whole.add(LOGITS, LABELS)
  for i in range(0, 6, 2):
    parts.add(LOGITS[i : i + 2], LABELS[i : i + 2])
  labels, scores = parts.finish()
  np.testing.assert_array_equal(labels, whole.finish()[0])
  np.testing.assert_array_equal(scores, whole.finish()[1])
  assert len(np.unique(labels)) > 2 and (scores[labels >= 0] >= THRESHOLD).all()


def test_the_state_is_changed_in_place() -> None:
  canvas = Canvas((30, 50))
  before = canvas.state
  with warnings.catch_warnings():
    warnings.simplefilter('error')  # JAX warns of buffers that it could not use
    canvas.add(LOGITS, LABELS)
  assert all(x.is_deleted() for x in before)
  labels, _ = canvas.finish()
  kept = labels.copy()
  canvas.add(LOGITS + 1, LABELS)  # what was returned stays
  np.testing.assert_array_equal(labels, kept)
  assert not np.array_equal(canvas.finish()[0], kept)
