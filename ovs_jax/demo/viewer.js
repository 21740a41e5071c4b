// The part of the page that lives in the browser: it tints the photo, and tells Gradio
// what was sent ("photo"), chosen ("example") or wanted ("download").
const root = element.querySelector('.ovs');
const find = (what) => root.querySelector(what);
const canvas = find('.ovs-canvas');
const pen = canvas.getContext('2d', { willReadFrequently: true });
const tool = (name) => find(`[data-tool="${name}"]`);
const LEVELS = 101;
const EDGE = [255, 255, 255], SHADE = [18, 20, 26];
const GLOW = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]];
let page = null; // of the photo: size, shown, names, colours, labels, levels, ...
let photo = null; // its pixels as shown
let off = new Set(); // names that are switched off
let held = null, over = null; // segments: one that was clicked, one under the pointer
let pointer = null; // in pixels of the canvas
let moved = false; // whether the threshold was

const setup = JSON.parse(props.setup);
find('.ovs-drop-limits').textContent = setup.limits;
for (const [i, one] of setup.examples.entries()) {
  const button = document.createElement('button');
  button.type = 'button';
  button.setAttribute('aria-label', `Example ${one.name}`);
  const image = document.createElement('img');
  image.src = one.image;
  image.alt = '';
  button.append(image);
  button.onclick = () => trigger('example', { index: i });
  find('.ovs-thumbs').append(button);
}
find('.ovs-examples').hidden = !setup.examples.length;
for (const name of setup.formats) {
  const label = document.createElement('label');
  const box = document.createElement('input');
  box.type = 'checkbox';
  box.value = name;
  box.checked = ['overlay', 'png', 'coco'].includes(name);
  label.append(box, name);
  find('.ovs-formats').append(label);
}

async function inflated(text, Kind) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
  return new Kind(await new Response(stream).arrayBuffer());
}

async function open(text) {
  if (!text) return;
  const next = JSON.parse(text);
  const image = new Image();
  image.src = next.photo;
  await image.decode();
  const answered = next.names.length > 0;
  if (answered) {
    next.labels = await inflated(next.labels, Uint16Array);
    next.levels = await inflated(next.levels, Uint8Array);
    for (const map of Object.values(next.heat)) map.values = await inflated(map.values, Uint8Array);
  }
  const known = page && page.key === next.key ? page.names : [];
  const before = new Set([...off].map((k) => known[k]));
  off = new Set(next.names.flatMap((name, k) => (before.has(name) ? [k] : [])));
  if (answered && !moved) tool('threshold').value = Math.round(100 * next.threshold);
  page = next;
  held = over = pointer = null;
  [canvas.width, canvas.height] = page.shown;
  canvas.style.setProperty('--ovs-ratio', page.shown[0] / page.shown[1]);
  pen.drawImage(image, 0, 0, ...page.shown);
  photo = pen.getImageData(0, 0, ...page.shown).data;
  root.dataset.state = answered ? 'answer' : 'photo';
  canvas.hidden = false;
  find('.ovs-drop').hidden = true;
  for (const part of ['.ovs-legend', '.ovs-tools', '.ovs-files']) find(part).hidden = !answered;
  find('.ovs-again').hidden = false;
  fillHeat();
  draw();
}

function fillHeat() {
  const maps = Object.entries(page.heat || {});
  const pick = tool('heat'), chosen = pick.selectedOptions[0]?.textContent;
  pick.closest('label').hidden = !maps.length;
  pick.replaceChildren(new Option('the names', ''));
  for (const [k, map] of maps) {
    const text = `heat map of ${page.names[k]}`;
    pick.append(new Option(text, k, false, text === chosen));
  }
}

function settings() {
  const threshold = Number(tool('threshold').value);
  const alpha = Number(tool('opacity').value) / 100;
  return { threshold, alpha, patterns: tool('patterns').checked, names: tool('labels').checked };
}

// Which stripes a name has, and whether a pixel is on one.
function striped(k, x, y) {
  switch (k % 7) {
    case 1: return (x + y) % 14 < 3;
    case 2: return (x - y + 14000) % 14 < 3;
    case 3: return y % 11 < 2;
    case 4: return x % 11 < 2;
    case 5: return x % 11 < 4 && y % 11 < 4;
    case 6: return (x + y) % 14 < 2 || (x - y + 14000) % 14 < 2;
    default: return false;
  }
}

let waiting = false;
function draw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    paint();
  });
}

function paint() {
  const [w, h] = page.shown;
  const out = pen.createImageData(w, h);
  out.data.set(photo);
  if (page.names.length) {
    const heat = page.heat[tool('heat').value];
    if (heat) glow(out.data, heat, w, h);
    else tint(out.data, visible(), w, h);
  }
  pen.putImageData(out, 0, 0);
  if (page.names.length && !page.heat[tool('heat').value] && settings().names) letter(w, h);
  if (pointer?.ring) cross(w, h);
  legend();
  tip();
}

// 0 where nothing is shown, else 1 + the name's number.
function visible() {
  const { threshold } = settings();
  const shown = new Uint16Array(page.labels.length);
  for (let i = 0; i < shown.length; i++) {
    const k = page.labels[i];
    if (k && page.levels[i] >= threshold && !off.has(k - 1)) shown[i] = k;
  }
  return shown;
}

function tint(data, shown, w, h) {
  const { alpha, patterns } = settings();
  const grey = Math.min(1, 1.6 * alpha);
  const only = over ?? held;
  const wide = Math.max(1, Math.round(Math.max(w, h) / 900));
  for (let y = 0, i = 0; y < h; y++) {
    for (let x = 0; x < w; x++, i++) {
      const k = shown[i], p = 4 * i;
      const right = x + wide < w ? shown[i + wide] : k, below = y + wide < h ? shown[i + wide * w] : k;
      const left = x >= wide ? shown[i - wide] : k, above = y >= wide ? shown[i - wide * w] : k;
      if (alpha > 0 && (k !== right || k !== below)) {
        for (let c = 0; c < 3; c++) data[p + c] = 0.1 * data[p + c] + 0.9 * EDGE[c];
        continue;
      }
      if (alpha > 0 && (k !== left || k !== above)) {
        for (let c = 0; c < 3; c++) data[p + c] = 0.25 * data[p + c] + 0.75 * SHADE[c];
        continue;
      }
      if (!k) continue;
      const dim = only !== null && only !== k - 1;
      const a = dim ? 0.25 * alpha : alpha;
      const lum = 0.3 * data[p] + 0.59 * data[p + 1] + 0.11 * data[p + 2];
      const mark = patterns && striped(k - 1, x, y) ? 0.55 : 0;
      for (let c = 0; c < 3; c++) {
        const under = data[p + c] + grey * (lum - data[p + c]);
        let value = under + a * (page.colours[k - 1][c] - under);
        value += mark * a * ((page.colours[k - 1][1] > 140 ? 0 : 255) - value);
        data[p + c] = value;
      }
    }
  }
}

function glow(data, heat, w, h) {
  const [hw, hh] = heat.size, { alpha } = settings();
  const strong = 0.35 + 0.6 * alpha;
  for (let y = 0, i = 0; y < h; y++) {
    const v = Math.min(Math.max(((y + 0.5) * hh) / h - 0.5, 0), hh - 1), v0 = v | 0, v1 = Math.min(v0 + 1, hh - 1);
    for (let x = 0; x < w; x++, i++) {
      const u = Math.min(Math.max(((x + 0.5) * hw) / w - 0.5, 0), hw - 1), u0 = u | 0, u1 = Math.min(u0 + 1, hw - 1);
      const top = heat.values[v0 * hw + u0] * (u0 + 1 - u) + heat.values[v0 * hw + u1] * (u - u0);
      const low = heat.values[v1 * hw + u0] * (u0 + 1 - u) + heat.values[v1 * hw + u1] * (u - u0);
      const t = (4 * (top * (v0 + 1 - v) + low * (v - v0))) / 255, s = Math.min(t | 0, 3), p = 4 * i;
      const lum = 0.3 * data[p] + 0.59 * data[p + 1] + 0.11 * data[p + 2];
      for (let c = 0; c < 3; c++) {
        const colour = GLOW[s][c] + (t - s) * (GLOW[s + 1][c] - GLOW[s][c]);
        data[p + c] = lum + strong * (colour - lum);
      }
    }
  }
}

// Writes each name once, where its segment is widest.
function letter(w, h) {
  const shown = visible(), step = Math.max(2, Math.round(Math.max(w, h) / 160));
  const gw = Math.ceil(w / step), gh = Math.ceil(h / step);
  const at = (x, y) => (x < 0 || y < 0 || x >= gw || y >= gh ? -1 : shown[Math.min(y * step, h - 1) * w + Math.min(x * step, w - 1)]);
  const far = new Float32Array(gw * gh);
  const pass = (x, y, dx, dy) => {
    let best = far[y * gw + x];
    for (const [u, v, d] of [[dx, 0, 1], [0, dy, 1], [dx, dy, 1.4], [-dx, dy, 1.4]])
      best = Math.min(best, at(x + u, y + v) === at(x, y) ? far[(y + v) * gw + x + u] + d : 1);
    far[y * gw + x] = best;
  };
  far.fill(1e6);
  for (let y = 0; y < gh; y++) for (let x = 0; x < gw; x++) pass(x, y, -1, -1);
  for (let y = gh - 1; y >= 0; y--) for (let x = gw - 1; x >= 0; x--) pass(x, y, 1, 1);
  const best = new Map();
  for (let y = 0; y < gh; y++) for (let x = 0; x < gw; x++) {
    const k = at(x, y), d = far[y * gw + x];
    if (k > 0 && d > (best.get(k)?.d ?? 0)) best.set(k, { x, y, d });
  }
  const ratio = canvas.clientWidth ? w / canvas.clientWidth : 1;
  const size = Math.round(14 * ratio);
  pen.font = `600 ${size}px ${getComputedStyle(root).fontFamily}`;
  pen.textAlign = 'center';
  pen.textBaseline = 'middle';
  pen.lineJoin = 'round';
  for (const [k, { x, y, d }] of best) {
    const name = page.names[k - 1], long = pen.measureText(name).width;
    if (d * step < 0.7 * size || long > w) continue;
    const left = Math.min(Math.max(x * step, long / 2 + 4), w - long / 2 - 4);
    pen.lineWidth = size / 4;
    pen.strokeStyle = 'rgba(18, 20, 26, 0.9)';
    pen.strokeText(name, left, y * step);
    pen.fillStyle = '#fff';
    pen.fillText(name, left, y * step);
  }
}

function cross(w, h) {
  const ratio = canvas.clientWidth ? w / canvas.clientWidth : 1, r = 9 * ratio;
  for (const [style, wide] of [['#121419', 4], ['#fff', 2]]) {
    pen.strokeStyle = style;
    pen.lineWidth = wide * ratio;
    pen.beginPath();
    pen.arc(pointer.x, pointer.y, r, 0, 7);
    pen.stroke();
  }
}

const percent = (x) => (x === 0 || x >= 0.0005 ? `${(100 * x).toFixed(1)} %` : '< 0.1 %');

// Share and mean confidence of every name at the threshold, from the whole photo.
function figures() {
  const { threshold } = settings(), all = page.size[0] * page.size[1];
  return page.counts.map((row, k) => {
    let area = 0, sum = 0;
    for (let level = threshold; level < LEVELS; level++) {
      area += row[level];
      sum += page.sums[k][level];
    }
    return { share: area / all, sure: area ? sum / area : 0 };
  });
}

function swatch(k) {
  const square = document.createElement('canvas');
  square.width = square.height = 18;
  const ink = square.getContext('2d'), image = ink.createImageData(18, 18);
  const [r, g, b] = page.colours[k], { patterns } = settings();
  for (let i = 0; i < 324; i++) {
    const mark = patterns && striped(k, i % 18, (i / 18) | 0) ? (g > 140 ? 0 : 255) : null;
    const mixed = [r, g, b].map((c) => (mark === null ? c : 0.45 * c + 0.55 * mark));
    image.data.set([...mixed, 255], 4 * i);
  }
  ink.putImageData(image, 0, 0);
  return square;
}

let listed = '';
function legend() {
  if (!page.names.length) return;
  const found = figures(), list = find('.ovs-list');
  const order = found.map((_, k) => k).filter((k) => page.counts[k].some((n) => n));
  order.sort((a, b) => found[b].share - found[a].share || a - b);
  const state = JSON.stringify([page.key, page.names, order, found, [...off], settings(), held]);
  if (state === listed) return;
  listed = state;
  const focus = list.contains(document.activeElement) ? document.activeElement.value : null;
  list.replaceChildren();
  let rest = 1;
  for (const k of order) {
    const { share, sure } = found[k];
    if (!off.has(k)) rest -= share;
    const row = document.createElement('li'), label = document.createElement('label');
    row.className = `${off.has(k) ? 'off' : ''} ${held === k ? 'held' : ''}`;
    const box = document.createElement('input');
    box.type = 'checkbox';
    box.value = k;
    box.checked = !off.has(k);
    const [name, area, mean] = ['name', 'number', 'number sure'].map((kind) => {
      const part = document.createElement('span');
      part.className = kind;
      return part;
    });
    [name.textContent, area.textContent] = [page.names[k], percent(share)];
    mean.textContent = share ? sure.toFixed(2) : '–';
    box.onchange = () => {
      box.checked ? off.delete(k) : off.add(k);
      draw();
    };
    label.onmouseenter = () => { over = k; draw(); };
    label.onmouseleave = () => { over = null; draw(); };
    label.append(box, swatch(k), name, area, mean);
    row.append(label);
    list.append(row);
    if (focus === String(k)) box.focus();
  }
  find('.ovs-hint').hidden = !order.length || off.size > 0 || rest < 0.9999;
  if (rest > 0.0005) {
    const row = document.createElement('li'), plain = document.createElement('div');
    plain.className = 'plain';
    for (const [kind, text] of [['', ''], ['blank', ''], ['name', 'no name shown'], ['number', percent(rest)]]) {
      const part = document.createElement('span');
      [part.className, part.textContent] = [kind, text];
      plain.append(part);
    }
    row.append(plain);
    list.append(row);
  }
  const absent = page.names.filter((_, k) => !order.includes(k));
  find('.ovs-absent').textContent = absent.length ? `Nowhere the best name: ${absent.join(', ')}` : '';
}

// What is at a place of the canvas: its name, figures and a line of text.
function at({ x, y }) {
  const i = y * page.shown[0] + x, heat = page.heat[tool('heat').value];
  if (heat) {
    const u = Math.floor((x * heat.size[0]) / page.shown[0]), v = Math.floor((y * heat.size[1]) / page.shown[1]);
    const probability = heat.values[v * heat.size[0] + u] / 255;
    return { k: null, name: page.names[tool('heat').value], lines: [`probability here ${probability.toFixed(2)}`] };
  }
  const k = page.labels[i] - 1;
  if (k < 0 || off.has(k) || page.levels[i] < settings().threshold) return { k: null, name: 'no name', lines: [] };
  const { share, sure } = figures()[k];
  const here = (page.levels[i] / 100).toFixed(2);
  return { k, name: page.names[k], lines: [`${percent(share)} of the photo`, `confidence ${sure.toFixed(2)}, here ${here}`] };
}

function tip() {
  const box = find('.ovs-tip');
  if (!pointer || !page.names.length) {
    box.hidden = true;
    return;
  }
  const { name, lines } = at(pointer), title = document.createElement('b');
  title.textContent = name;
  box.replaceChildren(title, ...lines.flatMap((line, i) => (i ? [document.createElement('br'), line] : [line])));
  find('.ovs-sr').textContent = [name, ...lines].join(', ');
  box.hidden = false;
  const scale = canvas.clientWidth / page.shown[0], stage = find('.ovs-stage');
  const left = canvas.offsetLeft + pointer.x * scale, top = canvas.offsetTop + pointer.y * scale;
  box.style.left = `${Math.max(4, left + 16 + box.offsetWidth > stage.clientWidth ? left - box.offsetWidth - 16 : left + 16)}px`;
  box.style.top = `${Math.max(4, Math.min(top + 14, stage.clientHeight - box.offsetHeight - 4))}px`;
}

function place(event) {
  const frame = canvas.getBoundingClientRect(), [w, h] = page.shown;
  const x = Math.floor(((event.clientX - frame.left) * w) / frame.width);
  const y = Math.floor(((event.clientY - frame.top) * h) / frame.height);
  return { x: Math.min(Math.max(x, 0), w - 1), y: Math.min(Math.max(y, 0), h - 1) };
}

canvas.onpointermove = (event) => {
  if (!page?.names.length || (event.pointerType !== 'mouse')) return;
  pointer = place(event);
  over = at(pointer).k;
  draw();
};
canvas.onpointerleave = (event) => {
  if (!page || event.pointerType !== 'mouse') return;
  pointer = over = null;
  draw();
};
canvas.onclick = (event) => {
  if (!page?.names.length) return;
  pointer = { ...place(event), ring: event.pointerType !== 'mouse' };
  const { k } = at(pointer);
  held = k === held ? null : k;
  over = null;
  draw();
};
canvas.onkeydown = (event) => {
  if (!page?.names.length) return;
  const [w, h] = page.shown, far = Math.ceil(Math.max(w, h) / (event.shiftKey ? 10 : 50));
  const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  if (ways[event.key]) {
    const from = pointer ?? { x: w >> 1, y: h >> 1 }, [dx, dy] = ways[event.key];
    pointer = { x: Math.min(Math.max(from.x + far * dx, 0), w - 1), y: Math.min(Math.max(from.y + far * dy, 0), h - 1), ring: true };
    over = at(pointer).k;
  } else if (event.key === 'Enter' && pointer) {
    held = at(pointer).k;
  } else if (event.key === 'Escape') {
    pointer = held = over = null;
  } else return;
  event.preventDefault();
  draw();
};

async function send(file) {
  if (!file) return;
  if (file.size > 1e6 * setup.megabytes) {
    trigger('refused', { said: `${file.name} has ${Math.round(file.size / 1e6)} MB; this page takes up to ${setup.megabytes} MB` });
    return;
  }
  trigger('sending', { said: `sending ${file.name}` });
  try {
    const { path } = await upload(file);
    trigger('photo', { path });
  } catch (error) {
    trigger('refused', { said: `${file.name} could not be sent: ${error.message || error}` });
  }
}

find('.ovs-file').onchange = (event) => {
  send(event.target.files[0]);
  event.target.value = '';
};
find('.ovs-drop').onkeydown = (event) => {
  if (event.key === 'Enter' || event.key === ' ') {
    event.preventDefault();
    find('.ovs-file').click();
  }
};
const stage = find('.ovs-stage');
stage.ondragover = (event) => { event.preventDefault(); stage.classList.add('over'); };
stage.ondragleave = () => stage.classList.remove('over');
stage.ondrop = (event) => {
  event.preventDefault();
  stage.classList.remove('over');
  send(event.dataTransfer.files[0]);
};
document.addEventListener('paste', (event) => {
  const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith('image/'));
  if (file) send(file);
});
for (const input of root.querySelectorAll('[data-tool]')) {
  input.oninput = () => {
    if (input.type === 'range') input.nextElementSibling.value = (input.value / 100).toFixed(2);
    moved ||= input.dataset.tool === 'threshold';
    draw();
  };
}
const doing = {
  all: () => { off.clear(); draw(); },
  none: () => { off = new Set(page.names.keys()); draw(); },
  again: () => find('.ovs-file').click(),
  download: () => {
    const chosen = [...root.querySelectorAll('.ovs-formats input:checked')].map((box) => box.value);
    const { threshold, alpha } = settings();
    trigger('download', { chosen, threshold: threshold / 100, alpha });
  },
};
root.onclick = (event) => doing[event.target.closest('[data-do]')?.dataset.do]?.();
new ResizeObserver(() => page && draw()).observe(stage);
const refresh = async () => {
  await open(props.value);
  const slider = tool('threshold');
  slider.nextElementSibling.value = (slider.value / 100).toFixed(2);
};
watch('value', refresh);
refresh();
