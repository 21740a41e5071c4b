"""Segments photos with an exported model; needs TensorFlow and NumPy, and no JAX.

    python run_tf.py photo.jpg "red ball, grass" labels.npy

As run.py, which it takes everything else from.
"""

import pathlib
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from run import Runner, main


class TensorFlowRunner(Runner):
  """An exported model whose programs TensorFlow runs."""

  def __init__(self, folder: str | pathlib.Path) -> None:
    """Reads the model."""
    super().__init__(folder)
    self.signatures = tf.saved_model.load(str(self.folder / 'savedmodel')).signatures

  def load(self, name: str) -> Callable[..., Any]:
    """Returns a program as a function of its inputs."""
    about, call = self.about['programs'][name], self.signatures[name]
    names = [one['name'] for one in about['inputs']]

    def run(*inputs: Any) -> list[Any]:
      pairs = zip(names, inputs, strict=True)
      found = call(**{key: tf.constant(x) for key, x in pairs})
      return [found[one['name']].numpy() for one in about['outputs']]

    return run


if __name__ == '__main__':
  main(TensorFlowRunner)
