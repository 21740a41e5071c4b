"""Sentences that class names are put into before they are embedded.

`vild` is the set of Gu et al. (2021), with the punctuation that OVSeg uses for training
and inference; `imagenet` the 80 of Radford et al. (2021), in their order.
"""

from collections.abc import Sequence

from ovs_jax.core.errors import UserError
from ovs_jax.core.lookup import lookup

SINGLE = ('a photo of a {}.',)

VILD = (
  'a photo of a {}.',
  'This is a photo of a {}',
  'There is a {} in the scene',
  'There is the {} in the scene',
  'a photo of a {} in the scene',
  'a photo of a small {}.',
  'a photo of a medium {}.',
  'a photo of a large {}.',
  'This is a photo of a small {}.',
  'This is a photo of a medium {}.',
  'This is a photo of a large {}.',
  'There is a small {} in the scene.',
  'There is a medium {} in the scene.',
  'There is a large {} in the scene.',
)

IMAGENET = (
  'a bad photo of a {}.',
  'a photo of many {}.',
  'a sculpture of a {}.',
  'a photo of the hard to see {}.',
  'a low resolution photo of the {}.',
  'a rendering of a {}.',
  'graffiti of a {}.',
  'a bad photo of the {}.',
  'a cropped photo of the {}.',
  'a tattoo of a {}.',
  'the embroidered {}.',
  'a photo of a hard to see {}.',
  'a bright photo of a {}.',
  'a photo of a clean {}.',
  'a photo of a dirty {}.',
  'a dark photo of the {}.',
  'a drawing of a {}.',
  'a photo of my {}.',
  'the plastic {}.',
  'a photo of the cool {}.',
  'a close-up photo of a {}.',
  'a black and white photo of the {}.',
  'a painting of the {}.',
  'a painting of a {}.',
  'a pixelated photo of the {}.',
  'a sculpture of the {}.',
  'a bright photo of the {}.',
  'a cropped photo of a {}.',
  'a plastic {}.',
  'a photo of the dirty {}.',
  'a jpeg corrupted photo of a {}.',
  'a blurry photo of the {}.',
  'a photo of the {}.',
  'a good photo of the {}.',
  'a rendering of the {}.',
  'a {} in a video game.',
  'a photo of one {}.',
  'a doodle of a {}.',
  'a close-up photo of the {}.',
  'a photo of a {}.',
  'the origami {}.',
  'the {} in a video game.',
  'a sketch of a {}.',
  'a doodle of the {}.',
  'a origami {}.',
  'a low resolution photo of a {}.',
  'the toy {}.',
  'a rendition of the {}.',
  'a photo of the clean {}.',
  'a photo of a large {}.',
  'a rendition of a {}.',
  'a photo of a nice {}.',
  'a photo of a weird {}.',
  'a blurry photo of a {}.',
  'a cartoon {}.',
  'art of a {}.',
  'a sketch of the {}.',
  'a embroidered {}.',
  'a pixelated photo of a {}.',
  'itap of the {}.',
  'a jpeg corrupted photo of the {}.',
  'a good photo of a {}.',
  'a plushie {}.',
  'a photo of the nice {}.',
  'a photo of the small {}.',
  'a photo of the weird {}.',
  'the cartoon {}.',
  'art of the {}.',
  'a drawing of the {}.',
  'a photo of the large {}.',
  'a black and white photo of a {}.',
  'the plushie {}.',
  'a dark photo of a {}.',
  'itap of a {}.',
  'graffiti of the {}.',
  'a toy {}.',
  'itap of my {}.',
  'a photo of a cool {}.',
  'a photo of a small {}.',
  'a tattoo of the {}.',
)

TEMPLATES: dict[str, tuple[str, ...]] = {
  'single': SINGLE,
  'vild': VILD,
  'imagenet': IMAGENET,
}


def sentences(templates: str | Sequence[str]) -> tuple[str, ...]:
  """Returns a set by its name, or the user's own sentences, checked.

  Args:
    templates: the name of a set in `TEMPLATES`, or sentences with one '{}' each.

  Raises:
    ValueError: unknown set, no template, or one without exactly one '{}'.
  """
  if isinstance(templates, str):
    if '{}' in templates:
      raise UserError(
        f'{templates!r} is one sentence, not a template set; put it in a list: '
        f'[{templates!r}].'
      )
    return lookup(TEMPLATES, templates, 'template set')
  if not templates:
    raise UserError(
      f'no templates given; pass sentences with one "{{}}" each, or one of '
      f'{", ".join(TEMPLATES)}.'
    )
  wrong = [t for t in templates if t.count('{}') != 1]
  if wrong:
    raise UserError(
      f'{len(wrong)} of {len(templates)} templates do not contain "{{}}" exactly '
      f'once, where the class name goes: {wrong}.'
    )
  return tuple(templates)


def fill(templates: str | Sequence[str], names: Sequence[str]) -> list[list[str]]:
  """Puts every name into every template.

  Names are inserted as they are: OVSeg keeps "toilet, can, commode" one string.

  Args:
    templates: the name of a set in `TEMPLATES`, or sentences with one '{}' each.
    names: class names.

  Returns:
    One list per name, holding one sentence per template.

  Raises:
    ValueError: unknown set, no template, or one without exactly one '{}'.
  """
  texts = sentences(templates)
  return [[text.replace('{}', name) for text in texts] for name in names]
