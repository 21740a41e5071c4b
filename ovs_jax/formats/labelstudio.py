"""Label Studio's tasks: brushes as predictions, and the interface that they need."""

import base64
import pathlib
import uuid
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from ovs_jax.core.files import strict_json
from ovs_jax.formats.format import Files, Format
from ovs_jax.formats.found import Entry, Found
from ovs_jax.formats.rle import brush
from ovs_jax.ops.colours import palette

_FROM, _TO = 'label', 'image'


class LabelStudio(Format):
  """A brush per segment. Photos are served from the disk, whose root is '/'."""

  name = 'labelstudio'
  keeps = True

  def record(self, found: Found, *, parts: bool) -> Any:
    """Returns the brushes of a photo, whose bytes are numbers only in `finish`."""
    height, width = found.size
    return [
      {
        # The same in every run, and another one for every segment.
        'id': uuid.uuid5(uuid.NAMESPACE_URL, f'{found.photo}#{i}').hex[:10],
        'type': 'brushlabels',
        'from_name': _FROM,
        'to_name': _TO,
        'original_width': width,
        'original_height': height,
        'image_rotation': 0,
        'score': instance.confidence,
        'value': {
          'format': 'rle',
          'rle': base64.b64encode(bytes(brush(instance.mask))).decode(),
          'brushlabels': [found.names[instance.label]],
        },
      }
      for i, instance in enumerate(found.instances)
    ]

  def finish(self, entries: Sequence[Entry], names: Sequence[str]) -> Files:
    """Returns tasks.json and the interface's XML."""
    rows = [
      f'    <Label value={quoteattr(name)} background="#{bytes(colour).hex()}"/>'
      for name, colour in zip(names, palette(len(names)).tolist(), strict=True)
    ]
    lines = [
      '<View>',
      f'  <Image name="{_TO}" value="${_TO}"/>',
      f'  <BrushLabels name="{_FROM}" toName="{_TO}">',
      *rows,
      '  </BrushLabels>',
      '</View>',
    ]
    return {
      'tasks.json': _tasks(entries),
      'interface.xml': ('\n'.join(lines) + '\n').encode(),
    }


def address(photo: pathlib.Path) -> str:
  """Returns where Label Studio serves a file of this machine."""
  return f'/data/local-files/?d={quote(photo.absolute().as_posix().lstrip("/"))}'


def _tasks(entries: Sequence[Entry]) -> Iterator[bytes]:
  """Yields JSON a photo at a time: brushes are long."""
  for i, entry in enumerate(entries):
    brushes = entry.load()
    for brush_ in brushes:
      value = brush_['value']
      value['rle'] = list(base64.b64decode(value['rle']))
    scores = [brush_['score'] for brush_ in brushes]
    mean = sum(scores) / len(scores) if scores else 0.0
    prediction = {'model_version': 'ovs_jax', 'score': mean, 'result': brushes}
    task = {'data': {_TO: address(entry.photo)}, 'predictions': [prediction]}
    yield (',\n' if i else '[\n').encode()
    yield strict_json(task, ensure_ascii=False).encode()
  yield b'\n]\n' if entries else b'[]\n'
