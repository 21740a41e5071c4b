"""Fonts for names in any script, and texts broken into lines."""

import functools
import math
from collections.abc import Iterable

from PIL import ImageFont

# Searched in this order for a name that the font before lacks letters for, and then all
# fonts of the system. The first comes with matplotlib.
_FONTS = ('DejaVuSans.ttf', 'NotoSansCJK-Regular.ttc', 'msyh.ttc', 'Arial Unicode.ttf')
_MISSING = '\U000fffff'  # private use: no font has it


def drawable(text: str) -> str:
  """Returns a text without lone surrogates, from names that were not UTF-8."""
  return text.encode('utf-8', 'replace').decode('utf-8')


def wrap(text: str, size: int, width: int) -> list[str]:
  """Breaks a text into lines, between words where it can."""
  text = drawable(text)
  lines = ['']
  for word in text.split(' '):
    longer = f'{lines[-1]} {word}' if lines[-1] else word
    if text_width(longer, size) <= width:
      lines[-1] = longer
      continue
    if lines[-1]:
      lines.append('')
    for letter in word:
      if lines[-1] and text_width(lines[-1] + letter, size) > width:
        lines.append('')
      lines[-1] += letter
  return lines


def text_width(text: str, size: int) -> int:
  """Returns how many pixels wide a text is."""
  text = drawable(text)
  return math.ceil(font_of(text, size).getlength(text))


def font_of(text: str, size: int) -> ImageFont.FreeTypeFont:
  """Returns the first font that has all letters of the text, else the first of all."""
  name = _having(''.join(sorted(set(text))))
  return _load_font(_FONTS[0] if name is None else name, size)


def undrawn(names: Iterable[str]) -> list[str]:
  """Returns the names that have letters which no font of this machine has."""
  return [name for name in names if _having(''.join(sorted(set(name)))) is None]


@functools.lru_cache(maxsize=4096)
def _having(letters: str) -> str | None:
  for name in _FONTS:
    if _load_font(name, 16) is not None and not lacks(name, 16, letters):
      return name
  return next((name for name in _system() if not lacks(name, 16, letters)), None)


@functools.cache
def _system() -> tuple[str, ...]:
  """Returns the files of the system's fonts that can be opened, always in one order."""
  from matplotlib.font_manager import findSystemFonts

  return tuple(x for x in sorted(findSystemFonts()) if _load_font(x, 16) is not None)


@functools.lru_cache(maxsize=4096)
def lacks(name: str, size: int, letters: str) -> bool:
  """Returns whether a font has no glyph for one of the letters."""
  font = _load_font(name, size)
  missing = font.getmask(_MISSING)
  marks = [font.getmask(letter) for letter in letters if not letter.isspace()]
  return any(m.size == missing.size and bytes(m) == bytes(missing) for m in marks)


@functools.cache
def _load_font(name: str, size: int) -> ImageFont.FreeTypeFont | None:
  if name == _FONTS[0]:
    import matplotlib

    name = f'{matplotlib.get_data_path()}/fonts/ttf/{name}'
  try:
    return ImageFont.truetype(name, size)
  except OSError:
    return None
