"""Segments photos with an exported model; needs onnxruntime and NumPy, and no JAX.

    python run_onnx.py photo.jpg "red ball, grass" labels.npy

As run.py, which it takes everything else from.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
from run import Runner, main


class OnnxRunner(Runner):
  """An exported model whose programs onnxruntime runs."""

  def load(self, name: str) -> Callable[..., Any]:
    """Returns a program as a function of its inputs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns of each constant that it removes
    session = onnxruntime.InferenceSession(
      self.folder / 'onnx' / f'{name}.onnx', options, providers=['CPUExecutionProvider']
    )
    names = [one.name for one in session.get_inputs()]

    def run(*inputs: Any) -> list[Any]:
      if name != 'label':
        return session.run(None, dict(zip(names, inputs, strict=True)))
      *others, tops, rows, lefts, columns = inputs
      masks = others[2]
      whole = [
        spread(tops, rows, masks.shape[1]),
        spread(lefts, columns, masks.shape[2]),
      ]
      found = session.run(None, dict(zip(names, [*others, *whole], strict=True)))
      return [join(x) for x in found]

    return run


def spread(starts: np.ndarray, weights: np.ndarray, full: int) -> np.ndarray:
  """Returns weights (n, tile, full) of a whole axis of the masks."""
  found = np.zeros((*weights.shape[:2], full), np.float32)
  for one, start, some in zip(found, starts, weights, strict=True):
    one[:, start : start + some.shape[1]] = some
  return found


def join(tiles: np.ndarray) -> np.ndarray:
  """Puts tiles (n, m, t, t) side by side."""
  n, m, t, _ = tiles.shape
  return tiles.transpose(0, 2, 1, 3).reshape(n * t, m * t)


if __name__ == '__main__':
  main(OnnxRunner)
