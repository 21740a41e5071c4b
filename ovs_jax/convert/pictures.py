"""How pictures are prepared, as the settings of other programs say it."""

from collections.abc import Mapping, Sequence
from typing import Any

from ovs_jax.convert import allowed
from ovs_jax.core.errors import UserError
from ovs_jax.ops.regions import CLIP_MEAN, CLIP_STD, Pixels

_RESAMPLE = {2: 'bilinear', 3: 'bicubic'}  # Pillow's numbers
_CHANNELS = allowed.Accepted(
  'a number for each of three channels',
  lambda x: (
    x is None or (isinstance(x, list | tuple) and len(x) == 3 and all(map(_number, x)))
  ),
)

# Of CLIP's processor and SigLIP's.
HUGGING_FACE = {
  **allowed.pixels(CLIP_MEAN, CLIP_STD),
  'image_mean': _CHANNELS,
  'image_std': _CHANNELS,
  **allowed.free('crop_size size do_center_crop'),  # looked at below
  'default_to_square': allowed.only(False),
  'resample': allowed.only(*_RESAMPLE),
}
OPEN_CLIP = {
  # Colours fill in the modes of resizing that we have not.
  **allowed.free('size fill_color'),
  'mode': allowed.only('RGB', None),
  'mean': _CHANNELS,
  'std': _CHANNELS,
  'interpolation': allowed.only('bicubic', 'bilinear', None),
  'resize_mode': allowed.only('shortest', 'squash', None),
}


def hugging_face(settings: Mapping[str, Any] | None, usual: Pixels) -> Pixels:
  """Returns what a preprocessor_config.json says, after its keys were checked.

  Args:
    settings: with its contents below its name; without, `usual` holds.
    usual: what its keys are that it leaves out.

  Raises:
    ValueError: pictures are resized in a way that we have not.
  """
  given = (settings or {}).get(allowed.PROCESSOR)
  if given is None:
    return usual
  if given.get('do_normalize') is False:
    given = {k: x for k, x in given.items() if k not in ('image_mean', 'image_std')}
  size, resize = given.get('size'), usual.resize
  crop = given.get('do_center_crop', usual.resize == 'shortest')
  if isinstance(size, Mapping):
    resize = 'squash' if set(size) == {'height', 'width'} else 'shortest'
  elif size is not None:
    resize = 'shortest'
  fits = not crop or given.get('crop_size') in (None, size)
  square = isinstance(size, Mapping) and size.get('height') == size.get('width')
  if resize == 'shortest':
    fits = crop and (not isinstance(size, Mapping) or list(size) == ['shortest_edge'])
  if not fits or (resize == 'squash' and size is not None and not square):
    raise UserError(
      f'{allowed.PROCESSOR} describes pictures that are not supported: size {size!r}, '
      f'do_center_crop {crop!r}; either the shortest edge is resized and the centre '
      'taken, or both sides become as long'
    )
  return Pixels(
    mean=_like(given.get('image_mean'), usual.mean),
    std=_like(given.get('image_std'), usual.std),
    resize=resize,
    interpolation=_RESAMPLE.get(given.get('resample'), usual.interpolation),
  )


def open_clip(given: Mapping[str, Any]) -> Pixels:
  """Returns what the `preprocess_cfg` of open_clip says, after it was checked."""
  return Pixels(
    mean=_like(given.get('mean'), CLIP_MEAN),
    std=_like(given.get('std'), CLIP_STD),
    resize=given.get('resize_mode') or 'shortest',
    interpolation=given.get('interpolation') or 'bicubic',
  )


def to_hugging_face(pixels: Pixels, side: int, *, processor: str) -> dict[str, Any]:
  """Returns the contents of a preprocessor_config.json.

  Args:
    pixels: how pictures are prepared.
    side: of the input in pixels.
    processor: name of the class that reads it.
  """
  squash, square = pixels.resize == 'squash', {'height': side, 'width': side}
  crop = {} if squash else {'crop_size': square}
  return {
    'image_processor_type': processor,
    'do_resize': True,
    'size': square if squash else {'shortest_edge': side},
    'resample': next(k for k, x in _RESAMPLE.items() if x == pixels.interpolation),
    'do_center_crop': not squash,
    **crop,
    'do_rescale': True,
    'rescale_factor': 1 / 255,
    'do_normalize': True,
    'image_mean': list(pixels.mean),
    'image_std': list(pixels.std),
  }


def _number(value: Any) -> bool:
  return type(value) in (int, float) and -1e30 < value < 1e30


def _like(
  given: Sequence[int | float] | None, usual: tuple[float, float, float]
) -> tuple[float, float, float]:
  """Returns the numbers; what people rounded is what they meant."""
  if given is None:
    return usual
  for known in (usual, CLIP_MEAN, CLIP_STD):
    if allowed.near(known).fits(given):
      return known
  red, green, blue = (float(x) for x in given)
  return red, green, blue
