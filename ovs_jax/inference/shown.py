"""Results that show themselves in notebooks: the photo, its names, and a legend."""

import base64
import html
import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ovs_jax.core.types import Int, UInt8
from ovs_jax.ops import overlay
from ovs_jax.ops.colours import palette

if TYPE_CHECKING:
  from ovs_jax.inference.result import Segmentation

SIDE = 640  # pixels, at most, of the photo that a result keeps to show itself
_ROWS = 30  # names of the legend


def small(image: UInt8[np.ndarray, 'h w 3']) -> UInt8[np.ndarray, 'y x 3']:
  """Returns a photo with at most `SIDE` pixels a side, some 1 MB."""
  if max(image.shape[:2]) <= SIDE:
    return image.copy()
  picture = Image.fromarray(image)
  picture.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2)
  return np.asarray(picture)


def as_png(result: 'Segmentation') -> bytes:
  """Returns the overlay with its legend as a PNG file."""
  photo, labels = _scaled(result)
  return _png(overlay.overlay(photo, labels, result.names))


def as_html(result: 'Segmentation') -> str:
  """Returns the overlay, and a table of shares and confidences of the whole photo."""
  photo, labels = _scaled(result)
  colours = palette(len(result.names))
  picture = Image.fromarray(overlay.blend(photo, labels, colours, alpha=0.55))
  overlay.write_names(picture, labels, result.names)
  data = base64.b64encode(_png(picture)).decode()
  segments, shares = result.segments(), result.shares()
  rows = [
    _row(s.name, s.share, f'{s.confidence:.2f}', tuple(colours[s.label].tolist()))
    for s in segments[:_ROWS]
  ]
  if len(segments) > _ROWS:
    rest = sum(s.share for s in segments[_ROWS:])
    rows.append(_row(f'{len(segments) - _ROWS} more names', rest, '', None))
  if (rest := float((result.labels < 0).mean())) > 0:
    rows.append(_row('no name', rest, '', None))
  absent = [name for name in result.names if shares[name] == 0]
  told = f'<div>not found: {html.escape(", ".join(absent))}</div>' if absent else ''
  return (
    '<div style="display:flex;flex-wrap:wrap;gap:16px;align-items:flex-start">'
    f'<img alt="the photo with its names" src="data:image/png;base64,{data}" '
    f'style="max-width:100%" width="{photo.shape[1]}">'
    '<div><table><thead><tr><th></th><th style="text-align:left">name</th>'
    '<th>share</th><th>confidence</th></tr></thead>'
    f'<tbody>{"".join(rows)}</tbody></table>{told}</div></div>'
  )


def _row(
  name: str, share: float, sure: str, colour: tuple[int, int, int] | None
) -> str:
  fill = 'none' if colour is None else f'rgb{colour}'
  swatch = (
    f'<span style="display:inline-block;width:1em;height:1em;background:{fill};'
    'border:1px solid #888"></span>'
  )
  return (
    f'<tr><td>{swatch}</td><td style="text-align:left">{html.escape(name)}</td>'
    f'<td>{overlay.percent(share)}</td><td>{sure}</td></tr>'
  )


def _scaled(
  result: 'Segmentation',
) -> tuple[UInt8[np.ndarray, 'y x 3'], Int[np.ndarray, 'y x']]:
  """Returns the small photo, or grey in its place, and the labels in its size."""
  height, width = result.labels.shape
  if result.photo is None:
    scale = min(1.0, SIDE / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    photo = np.full((*size, 3), 128, np.uint8)
  else:
    photo = result.photo
  rows, columns = (
    ((np.arange(n) + 0.5) * full / n).astype(np.int64)
    for n, full in zip(photo.shape[:2], (height, width), strict=True)
  )
  return photo, result.labels[rows][:, columns]


def _png(picture: Image.Image) -> bytes:
  file = io.BytesIO()
  picture.save(file, 'png')
  return file.getvalue()
