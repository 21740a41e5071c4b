"""A checkpoint of ours as a folder to share: card, settings, tensors."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from ovs_jax.convert.safetensors_file import read_safetensors
from ovs_jax.core import attached
from ovs_jax.core.checkpoint import load_model, save_model
from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Path, atomic_path, local, read_json, strict_json
from ovs_jax.core.tree import flatten, unflatten

FILE = 'ovs_jax.json'
TENSORS = 'ovs_jax.safetensors'
_CARD = """---
library_name: ovs_jax
pipeline_tag: image-segmentation
license: {licence}
tags:
- open-vocabulary-segmentation
- {model}
---

# {title}

Segments images by free text, with the package `ovs_jax`:

```python
from ovs_jax import Segmenter

segmenter = Segmenter.load({address!r})
result = segmenter.segment('photo.jpg', ['a cup', 'a table'])
```

{parameters:,} parameters of the model `{model}`. Settings are in `{file}`, weights in
`{tensors}`; nothing in this folder is code.
"""


def write(directory: Path, output: Path, *, address: str, licence: str) -> pathlib.Path:
  """Writes a checkpoint as a folder to share, in one step.

  Args:
    directory: a model directory, or a run.
    output: the folder; one that this program wrote is replaced.
    address: that the folder will have, such as hf://me/my-model, for the card.
    licence: of the weights, as the hub names it, such as 'apache-2.0'.

  Raises:
    FileNotFoundError, UserError: there is no such checkpoint, or `output` is another's.
  """
  params, config = load_model(directory)
  leaves = {name: np.asarray(x, order='C') for name, x in flatten(params).items()}
  card = _CARD.format(
    licence=licence,
    model=config['model'],
    title=address.rpartition('/')[2],
    address=address,
    parameters=sum(x.size for x in leaves.values()),
    file=FILE,
    tensors=TENSORS,
  )
  with atomic_path(output) as temporary:
    temporary.mkdir()
    save_file(leaves, temporary / TENSORS)
    attached.write(temporary, config)
    (temporary / FILE).write_text(strict_json(config, indent=2, sort_keys=True) + '\n')
    (temporary / 'README.md').write_text(card, encoding='utf-8')
  return local(output)


def read(folder: pathlib.Path, output: Path) -> None:
  """Writes the checkpoint of a folder that `write` made.

  Raises:
    UserError: it is damaged, or none.
  """
  config: Mapping[str, Any] = read_json(folder / FILE)
  if not isinstance(config, dict) or not isinstance(config.get('model'), str):
    raise UserError(f'{folder / FILE} does not describe a model; fetch it again')
  if not (folder / TENSORS).is_file():
    raise FileNotFoundError(f'{folder} has no {TENSORS}; fetch it again')
  attached.offer(folder, config)
  tensors, _ = read_safetensors(folder / TENSORS)
  save_model(output, unflatten({name: x.read() for name, x in tensors.items()}), config)
