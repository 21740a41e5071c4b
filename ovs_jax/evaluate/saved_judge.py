"""Scores label maps that another program saved."""

import pathlib

import numpy as np

from ovs_jax.core.types import Int
from ovs_jax.evaluate.judges import SAVED, Maps
from ovs_jax.evaluate.predictions import SavedMaps
from ovs_jax.evaluate.sources import Sample
from ovs_jax.evaluate.tally import Arrays, Tally
from ovs_jax.text.vocabulary import Vocabulary


class SavedJudge:
  """Scores label maps that another program saved."""

  def __init__(
    self, directory: pathlib.Path, names: Vocabulary, *, names_checked: bool
  ) -> None:
    """Reads nothing yet.

    Args:
      directory: of the label maps.
      names: the class list.
      names_checked: whether the label maps came with this very list.
    """
    self.names_checked = names_checked
    self.headline = SAVED
    self.tallies = {SAVED: Tally(len(names))}
    self.sums: Arrays = {}
    self.directory = directory
    self._maps = SavedMaps(directory, len(names))
    self.problems = self._maps.problems

  def count(self, sample: Sample, *, place: int = 0) -> Maps:
    """Counts an image, if its label map can be used; see `problems`."""
    del place
    labels = self._maps.read(sample.image_id, sample.label.shape)
    if labels is None:
      return {}
    self.tallies[SAVED].add(sample.image_id, labels, sample.label)
    return {'': labels}

  def predict(
    self, sample: Sample, *, place: int = 0
  ) -> tuple[Sample, Int[np.ndarray, 'h w']]:
    """Returns the image and the saved label map."""
    labels = self._maps.read(sample.image_id, sample.label.shape)
    assert labels is not None  # `count` read it
    return sample, labels

  def embed(self, names: tuple[str, ...]) -> None:
    """Knows no embeddings."""
