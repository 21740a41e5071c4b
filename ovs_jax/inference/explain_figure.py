"""An explanation as one figure, in the proportions of a slide."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ovs_jax.core.types import Float
from ovs_jax.inference.explain import Explanation, Proposal
from ovs_jax.ops.colours import palette
from ovs_jax.ops.overlay import blend

_TOP = 5  # names of each classifier
_LONG = 16  # letters of a name on an axis
_GREY, _INK = '#c9ccd1', '#22252b'


def draw(explanation: Explanation) -> Figure:
  """Returns the figure: the picture and the decision left, a column per proposal."""
  count = len(explanation.proposals)
  figure = Figure(figsize=(5.4 + 2.9 * count, 11.2), dpi=110, facecolor='white')
  FigureCanvasAgg(figure)
  grid = figure.add_gridspec(
    6,
    1 + count,
    width_ratios=[1.75, *[1] * count],
    height_ratios=[1.25, 1.25, 1, 1, 1, 0.02],
    left=0.065,
    right=0.985,
    top=0.9,
    bottom=0.03,
    wspace=0.55,
    hspace=0.34,
  )
  _picture(figure.add_subplot(grid[:2, 0]), explanation)
  _decision(figure.add_subplot(grid[2:5, 0]), explanation)
  for column, proposal in enumerate(explanation.proposals, 1):
    axes = [figure.add_subplot(grid[row, column]) for row in range(5)]
    _proposal(axes, explanation, proposal)
  x, y = explanation.at
  name = explanation.names[explanation.winner]
  figure.suptitle(
    f'Why the pixel at {x}, {y} is called “{name}”',
    x=0.02,
    ha='left',
    fontsize=19,
    fontweight='bold',
    color=_INK,
  )
  note = f'the {count} proposals that added most; classifier: {explanation.method}'
  figure.text(0.02, 0.935, note, fontsize=12.5, color='#5b6069')
  return figure


def _picture(axis: Axes, explanation: Explanation) -> None:
  colours = palette(len(explanation.names))
  labels = np.where(explanation.labels < explanation.count, explanation.labels, -1)
  axis.imshow(blend(explanation.image, labels, colours, alpha=0.55))
  x, y = explanation.at
  for colour, width in ((_INK, 5.0), ('white', 2.0)):
    axis.plot(x, y, 'o', ms=15, mfc='none', mec=colour, mew=width)
  axis.set_title('labels, and the pixel', fontsize=13, loc='left')
  axis.set_axis_off()


def _decision(axis: Axes, explanation: Explanation) -> None:
  """Stacks what proposals add to the best names at the pixel."""
  order = np.argsort(-explanation.evidence, kind='stable')[: _TOP + 1]
  places = np.arange(len(order))
  left = np.zeros(len(order))
  shades = np.linspace(0.35, 0.85, max(len(explanation.proposals), 2))
  for shade, proposal in zip(shades, explanation.proposals, strict=False):
    part = proposal.evidence[order]
    axis.barh(places, part, left=left, color=str(shade), edgecolor='white')
    for i, (start, size) in enumerate(zip(left, part, strict=True)):
      if size > 0.09 * explanation.evidence.max():
        ink = 'white' if shade < 0.6 else _INK
        text = f'#{proposal.number}'
        axis.text(start + size / 2, i, text, ha='center', va='center', color=ink)
    left += part
  rest = np.maximum(explanation.evidence[order] - left, 0)
  axis.barh(
    places, rest, left=left, color='white', edgecolor=_GREY, hatch='....', label='rest'
  )
  for i, k in enumerate(order):
    axis.text(
      explanation.evidence[k],
      i,
      f' {explanation.evidence[k]:.3g}',
      va='center',
      fontsize=11,
    )
  _names(axis, explanation, order)
  axis.set_xlim(0, 1.16 * max(float(explanation.evidence.max()), 1e-9))
  axis.set_title('evidence: mask × weight', fontsize=13, loc='left')


def _proposal(axes: list[Axes], explanation: Explanation, proposal: Proposal) -> None:
  mask, crop, *bars = axes
  image, shape = explanation.image, proposal.mask.shape
  rows, columns = (
    (np.arange(n) * size // n) for n, size in zip(shape, image.shape[:2], strict=True)
  )
  small = image[rows][:, columns].astype(np.float32)
  grey = 0.35 * small.mean(axis=2, keepdims=True)
  shown = grey + proposal.mask[..., None] * (small - grey)
  mask.imshow(np.round(shown).astype(np.uint8))
  mask.set_title(
    f'proposal {proposal.number}: {proposal.here:.2f} there', fontsize=12, loc='left'
  )
  mask.set_axis_off()
  _crop(crop, proposal)
  for axis, title, values in zip(
    bars,
    ('proposer', 'CLIP', 'both: the weights'),
    (proposal.proposer, proposal.clip, proposal.weights),
    strict=True,
  ):
    _bars(axis, explanation, title, values)


def _crop(axis: Axes, proposal: Proposal) -> None:
  axis.set_axis_off()
  if proposal.crop is None:
    axis.text(0.5, 0.5, 'no pixel is certain\nenough to be shown', ha='center')
    return
  axis.imshow(proposal.crop)
  title = 'crop'
  if proposal.prompted is not None:
    share = proposal.prompted.mean()
    title = f'crop, {100 * share:.0f} % prompts'
    patch = len(proposal.crop) / len(proposal.prompted)
    for y, x in np.argwhere(proposal.prompted):
      corner = (x * patch - 0.5, y * patch - 0.5)
      axis.add_patch(
        Rectangle(
          corner,
          patch,
          patch,
          facecolor='#e9ebee',
          edgecolor='#8b9099',
          hatch='///',
          linewidth=0,
        )
      )
  axis.set_title(title, fontsize=12, loc='left')


def _bars(
  axis: Axes, explanation: Explanation, title: str, values: Float[np.ndarray, 'k']
) -> None:
  order = np.argsort(-values, kind='stable')[:_TOP]
  colours = [
    '#1f6feb' if k == explanation.winner else '#9aa1ac' for k in order.tolist()
  ]
  axis.barh(np.arange(len(order)), values[order], color=colours)
  for i, k in enumerate(order):
    axis.text(values[k], i, f' {values[k]:.2f}', va='center', fontsize=10)
  _names(axis, explanation, order)
  axis.set_xlim(0, 1.25)  # probabilities: of one scale everywhere
  axis.set_title(title, fontsize=12, loc='left')


def _names(axis: Axes, explanation: Explanation, order: Any) -> None:
  names = [explanation.names[k] for k in order]
  short = [n if len(n) <= _LONG else n[: _LONG - 1] + '…' for n in names]
  axis.set_yticks(np.arange(len(order)), short, fontsize=10.5)
  axis.invert_yaxis()
  axis.set_xticks([])
  axis.tick_params(length=0)
  for side in ('top', 'right', 'bottom'):
    axis.spines[side].set_visible(False)
