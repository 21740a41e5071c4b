"""Segments photos with an exported model; needs JAX with flatbuffers, and NumPy.

    python run.py photo.jpg "red ball, grass" labels.npy

Photos may be .npy files of uint8 (h, w, 3), too; other files take Pillow to read.
"""

import json
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from run_parts import Tokenizer, resized, tiles

FORMAT = 1  # of the manifests that are read here
TYPES = {'F32': 'f4', 'I8': 'i1', 'BF16': 'bfloat16'}


class Runner:
  """An exported model; engines other than JAX have a `load` of their own."""

  def __init__(self, folder: str | pathlib.Path) -> None:
    """Reads the manifest and the tokenizer."""
    self.folder, self.programs, self.rows = pathlib.Path(folder), {}, {}
    self.about = json.loads((self.folder / 'manifest.json').read_text('utf-8'))
    if self.about['format'] > FORMAT:
      raise ValueError(f'{folder} is newer than this run.py; take the one beside it')
    tokenizer = json.loads((self.folder / 'tokenizer.json').read_text('utf-8'))
    self.tokenizer = Tokenizer(tokenizer)

  def load(self, name: str) -> Callable[..., Any]:
    """Returns a program as a function of its inputs."""
    import jax
    from jax import export

    low = export.minimum_supported_calling_convention_version
    high = export.maximum_supported_calling_convention_version
    made = self.about['made_with']
    if not low <= made['calling_convention'] <= high:
      raise ValueError(
        f'{self.folder} was exported with jax {made["jax"]}, to be read until '
        f'{made["readable_until"]}; jax {jax.__version__} does not read it. Export the '
        'model again, or take another jax'
      )
    about = self.about['programs'][name]
    program = export.deserialize((self.folder / about['file']).read_bytes())
    weights = read_tensors(self.folder / 'weights.safetensors', about['weights'])
    weights, run = jax.device_put(weights), jax.jit(program.call)
    return lambda *inputs: run(weights, *inputs)

  def call(self, name: str, *inputs: np.ndarray) -> list[np.ndarray]:
    """Runs a program of the manifest."""
    if name not in self.programs:
      self.programs[name] = self.load(name)
    return [np.asarray(x) for x in self.programs[name](*inputs)]

  def embed(self, names: Sequence[str]) -> np.ndarray:
    """Returns a row of length 1 for each name: the mean over the templates."""
    templates, longest = (
      self.about['names']['templates'],
      self.tokenizer.about['length'],
    )
    new = [name for name in dict.fromkeys(names) if name not in self.rows]
    ids = [self.tokenizer.encode(t.replace('{}', n)) for n in new for t in templates]
    width = -(-max(map(len, ids), default=1) // 8) * 8
    width = longest if self.about['names']['whole'] else min(width, longest)
    found = []
    for start in range(0, len(ids), 256):
      count = min(256, max(16, 1 << (len(ids) - 1).bit_length()))
      tokens = np.zeros((count, width), np.int32)
      for row, some in zip(tokens, ids[start : start + 256], strict=False):
        row[: len(some)] = some
      found.extend(self.call('text', tokens)[0][: len(ids) - start])
    for i, name in enumerate(new):
      mean = np.stack(found[i * len(templates) :][: len(templates)]).mean(axis=0)
      self.rows[name] = mean / np.linalg.norm(mean)
    return np.stack([self.rows[name] for name in names])

  def segment(
    self, photo: np.ndarray, names: Sequence[str], background: Sequence[str] = ()
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns each pixel's name, -1 for none, and confidence; photo: uint8 (h, w, 3).

    Names of the background compete, and get no pixels.
    """
    about, others = self.about['photo'], self.about['names']['others']
    small = resized(photo, about['shortest'], about['longest'])
    fits = [s for s in about['sizes'] if np.all(np.array(s) >= small.shape[:2])]
    if not fits:
      raise ValueError(f'no size for photos of {photo.shape[:2]}; export with --aspect')
    full = min(fits, key=np.prod)
    padded = np.full((*full, 3), about['fill'], np.float32)
    padded[: small.shape[0], : small.shape[1]] = small
    inside = np.array(small.shape[:2], np.int32)
    encoded = self.call('image_{}x{}'.format(*full), padded, inside)
    asked = [*names, *background]
    asked += [others] if len(asked) == 1 and asked[0].lower() != others else []
    rows, count = self.embed(asked), len(asked)
    size = -(-count // 64) * 64 if count > 64 else max(8, 1 << (count - 1).bit_length())
    rows = np.pad(rows, ((0, size - count), (0, 0)))
    axes = zip(inside, photo.shape[:2], full, strict=True)
    places = [x for axis in axes for x in tiles(*axis, about['tile'])]
    found = self.call('label', *encoded, rows, np.arange(size) < count, *places)
    labels, scores, sure = (x[: photo.shape[0], : photo.shape[1]] for x in found)
    named = (labels < len(names)) & (scores > 0)
    return np.where(named, labels, -1), np.where(named, sure, np.float32(0))


def read_tensors(path: pathlib.Path, names: Sequence[str]) -> dict[str, np.ndarray]:
  """Reads tensors of a safetensors file; JAX has made bfloat16 known to NumPy."""
  data = np.memmap(path, np.uint8, 'r')
  start = 8 + int(data[:8].view('<u8')[0])
  table, found = json.loads(bytes(data[8:start])), {}
  for name in names:
    low, high = (start + offset for offset in table[name]['data_offsets'])
    values = np.array(data[low:high]).view(TYPES[table[name]['dtype']])
    found[name] = values.reshape(table[name]['shape'])
  return found


def main(make: type[Runner]) -> None:
  """Runs the command."""
  source, given, output = sys.argv[1:]
  if source.endswith('.npy'):
    photo = np.load(source)
  else:
    from PIL import Image, ImageOps

    photo = np.asarray(ImageOps.exif_transpose(Image.open(source)).convert('RGB'))
  names = [' '.join(name.split()) for name in given.split(',')]
  labels, _ = make(pathlib.Path(__file__).parent).segment(photo, names)
  np.save(output, labels)
  for i, name in enumerate(names):
    print(f'{np.mean(labels == i):7.2%}  {name}')


if __name__ == '__main__':
  main(Runner)
