"""The npz of a result's numbers, written a name at a time: maps of all may be large."""

import pathlib
import zipfile

import numpy as np

from ovs_jax.inference.result import Segmentation


def write_scores(path: pathlib.Path, segmentation: Segmentation) -> None:
  """Writes what `np.load` reads.

  It has `scores` (h, w), the score of each pixel's label; `confidence` (k, h, w) in
  half precision, how sure each name is at every pixel, 0..1; `names`; and of each
  proposal `boxes`, `labels`, and both classifiers' probabilities `proposer` and `clip`.

  Args:
    path: of the file.
    segmentation: with maps.
  """
  names = segmentation.names
  arrays = {
    'scores': segmentation.scores,
    'names': np.array(names),
    **vars(segmentation.proposals),
  }
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    for key, array in arrays.items():
      with archive.open(f'{key}.npy', 'w') as file:
        np.lib.format.write_array(file, array, allow_pickle=False)
    with archive.open('confidence.npy', 'w', force_zip64=True) as file:
      shape = (len(names), *segmentation.labels.shape)
      header = {'descr': '<f2', 'fortran_order': False, 'shape': shape}
      np.lib.format.write_array_header_1_0(file, header)
      for name in names:
        file.write(segmentation.confidence_map(name).astype('<f2').tobytes())
