"""How well masks label photos while a CLIPSeg trains, by hand."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from ovs_jax.inference.system import MaskChunk, MaskSystem, Texts
from ovs_jax.text.vocabulary import own
from ovs_jax.train import label_scores

# Two rows of class 5, two of class 3, and a pixel of class 4, which does not count.
LABEL = np.array([[5] * 4, [5] * 4, [3] * 4, [3, 3, 3, 4]], np.uint8)


@dataclasses.dataclass
class Halves(MaskSystem):
  """The first name above and the second below, both with their probabilities."""

  probabilities: tuple[float, float]
  kind: str = 'halves'

  def on(self, device: Any) -> 'Halves':
    return self

  def embed(self, classes: Any, **options: Any) -> Texts:
    owner = np.arange(len(classes), dtype=np.int32)
    return Texts(len(classes), owner, np.eye(len(classes)), None)

  def encode(self, image: Any) -> Any:
    return None

  def cosines(self, encoded: Any, texts: Any) -> None:
    return None

  def candidates(self, encoded: Any, texts: Any, allowed: Any = None) -> Any:
    return np.arange(2)

  def masks(self, encoded: Any, texts: Any, allowed: Any = None) -> Any:
    odds = [p / (1 - p) for p in self.probabilities]
    logits = np.full((2, 4, 4), -9.0, np.float32)
    logits[0, :2], logits[1, 2:] = np.log(odds)
    yield MaskChunk(logits, np.arange(2, dtype=np.int32), None)


def score(system: Halves, threshold: float, monkeypatch: Any) -> dict[str, float]:
  def batches(*given: Any, **options: Any) -> Any:
    image = np.zeros((1, 4, 4, 3), np.uint8)
    yield {'image': image, 'label': LABEL[None], 'image_id': np.array([b'a'])}

  monkeypatch.setattr(label_scores, 'eval_batches', batches)
  return label_scores.score_masks(
    system,
    own('two', ('five', 'three'), (5, 3)),
    builder=None,
    split='train',
    rows=np.array([-1, -1, -1, 1, -1, 0]),
    threshold=threshold,
  )


@pytest.mark.parametrize(
  'probabilities, threshold, miou, accuracy',
  [
    ((0.9, 0.6), 0.5, 100.0, 100.0),
    # Only eight of fifteen pixels are said to be anything, and rightly so.
    ((0.9, 0.6), 0.7, 50.0, 100 * 8 / 15),
    ((0.6, 0.9), 0.7, 50.0, 100 * 7 / 15),
    ((0.6, 0.6), 0.7, 0.0, 0.0),
  ],
)
def test_masks_below_the_threshold_have_no_pixel(
  probabilities: tuple[float, float],
  threshold: float,
  miou: float,
  accuracy: float,
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  found = score(Halves(probabilities), threshold, monkeypatch)
  assert found['pixel_accuracy'] == pytest.approx(accuracy, abs=1e-3)
  assert found['miou'] == pytest.approx(miou, abs=1e-3)
