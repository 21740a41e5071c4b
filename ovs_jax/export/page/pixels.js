// Photos resized before the networks, and evidence resized to photos after them, with the
// numbers of run_parts.py and of ops/resize.py.

// Returns what a photo becomes: height and width.
export function sizeFor(height, width, shortest, longest) {
  let scale = shortest / Math.min(height, width);
  let sides = [height * scale, width * scale];
  if (Math.max(...sides) > longest) {
    scale = longest / Math.max(...sides);
    sides = sides.map((n) => n * scale);
  }
  return sides.map((n) => Math.max(Math.trunc(n + 0.5), 1));
}

// Resizes {data, height, width} with RGBA, or with RGB, as Pillow's bilinear filter does,
// to the bit, to RGB.
export function resized(photo, height, width) {
  const channels = photo.data.length / (photo.height * photo.width);
  const from = [photo.height, photo.width];
  const to = [height, width];
  const less = [from[0] - to[0], from[1] - to[1]];
  let image = { data: photo.data, size: from, channels };
  const axes = less[0] > Math.max(0, 2 * less[1]) ? [0, 1] : [1, 0];
  for (const axis of axes) image = alongAxis(image, axis, to[axis]);
  return image.data;
}

// One axis in Pillow's integers: weights in 2 ** -22, sums exact in doubles.
function alongAxis({ data, size, channels }, axis, length) {
  const out = [...size];
  out[axis] = length;
  const found = new Uint8Array(out[0] * out[1] * 3);
  const step = (axis ? 1 : size[1]) * channels;
  taps(size[axis], length).forEach(({ low, weights }, i) => {
    for (let other = 0; other < size[1 - axis]; other++) {
      const begin = (axis ? other * size[1] + low : low * size[1] + other) * channels;
      const place = (axis ? other * length + i : i * size[1] + other) * 3;
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        let at = begin + c;
        for (const weight of weights) {
          sum += weight * data[at];
          at += step;
        }
        const value = Math.floor((sum + 2 ** 21) / 2 ** 22);
        found[place + c] = Math.min(Math.max(value, 0), 255);
      }
    }
  });
  return { data: found, size: out, channels: 3 };
}

function taps(size, length) {
  const scale = size / length;
  const reach = Math.max(scale, 1);
  return Array.from({ length }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const low = Math.max(Math.trunc(centre - reach + 0.5), 0);
    const high = Math.min(Math.trunc(centre + reach + 0.5), size);
    const near = [];
    let total = 0;
    for (let place = low; place < high; place++) {
      const distance = Math.abs((place - centre + 0.5) * (1 / reach));
      near.push(Math.max(1 - distance, 0));
      total += near.at(-1);
    }
    return { low, weights: near.map((w) => Math.floor((w / total) * 2 ** 22 + 0.5)) };
  });
}

// Returns for every pixel of an axis the two places of the maps that it lies between,
// and how near the second one is, 0..1.
function between(inside, size) {
  const round = Math.fround;
  const low = new Int32Array(size);
  const high = new Int32Array(size);
  const weight = new Float32Array(size);
  for (let i = 0; i < size; i++) {
    const place = Math.max(round(round(round(inside / size) * (i + 0.5)) - 0.5), 0);
    low[i] = Math.min(Math.floor(place), inside - 1);
    high[i] = Math.min(low[i] + 1, inside - 1);
    weight[i] = place - low[i];
  }
  return { low, high, weight };
}

// Returns for every pixel the name with the most evidence, and its share of all of it.
//
// maps: evidence (count, full[0], full[1]) for each name, of which `inside` is the photo.
// named: how many names get pixels; those after them only compete. -1: no name.
export function painted(maps, count, full, inside, { height, width, named }) {
  const rows = between(inside[0], height);
  const columns = between(inside[1], width);
  const labels = new Int32Array(height * width);
  const confidence = new Float32Array(height * width);
  const line = new Float32Array(count * full[1]);
  for (let y = 0; y < height; y++) {
    for (let k = 0; k < count; k++) {
      const top = (k * full[0] + rows.low[y]) * full[1];
      const bottom = (k * full[0] + rows.high[y]) * full[1];
      for (let x = 0; x < inside[1]; x++) {
        const first = maps[top + x];
        line[k * full[1] + x] = first + rows.weight[y] * (maps[bottom + x] - first);
      }
    }
    for (let x = 0; x < width; x++) {
      let best = -1;
      let most = 0;
      let total = 0;
      for (let k = 0; k < count; k++) {
        const first = line[k * full[1] + columns.low[x]];
        const score =
          first + columns.weight[x] * (line[k * full[1] + columns.high[x]] - first);
        total += score;
        if (score > most) {
          most = score;
          best = k;
        }
      }
      const at = y * width + x;
      labels[at] = best < named ? best : -1;
      confidence[at] = labels[at] < 0 ? 0 : Math.min(most / Math.max(total, 1), 1);
    }
  }
  return { labels, confidence };
}
