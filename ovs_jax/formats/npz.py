"""NumPy's archive of a photo's segments."""

import io
import pathlib

import numpy as np

from ovs_jax.formats.format import Files, Format
from ovs_jax.formats.found import Found


class Npz(Format):
  """Arrays of the pixels, and of all segments.

  `labels` (h, w), below 0 where there is none; `confidence` (h, w); `names`; `masks`
  (n, h, w), `segment_labels` (n) and `segment_confidences` (n).
  """

  name = 'npz'

  def paths(self, photo: pathlib.Path, stem: str) -> list[str]:
    """Returns the archive."""
    return [f'{stem}.npz']

  def files(self, found: Found) -> Files:
    """Returns the archive."""
    masks = [instance.mask for instance in found.instances]
    file = io.BytesIO()
    np.savez_compressed(
      file,
      names=np.array(found.names),
      labels=found.labels,
      confidence=found.confidence,
      masks=np.stack(masks) if masks else np.zeros((0, *found.size), bool),
      segment_labels=np.array([i.label for i in found.instances], np.int32),
      segment_confidences=np.array([i.confidence for i in found.instances], np.float32),
    )
    return {f'{found.stem}.npz': file.getvalue()}
