// The pixel contract in a browser or in node: resizes and crops as Pillow (13) does, to the bit.
//
// export async function decode(blob) -> {rgba, width, height}
//   The upright pixels of an encoded photo (JPEG, PNG, WebP, ...), EXIF orientation applied, colour profile left alone.
//   rgba: Uint8ClampedArray, height x width x 4. Browsers only.
// export function preprocess(rgba, width, height, contract, scale = 1) -> Uint8Array
//   What the network takes: height x width x 3 bytes, RGB, rows from the top; values 0 to 255, not normalised.
//   rgba: height x width x 4 bytes (transparency is laid over white), or height x width x 3.
//   contract: the JSON of edgecsd's pixel contract, as it stands in an exported file's metadata:
//     {size, resize: "squash" | "shorter-side" | "longer-side", crop_pct, interpolation: "bilinear" | "bicubic"}
//   scale: of a crop its longer side / the whole photo's longer side; only "longer-side" heeds it.
// export function outputSize(width, height, contract, scale = 1) -> {width, height}
//   Of that array: size x size, but with "longer-side".
//
// No dependency, no state; works in a worker.

const PRECISION = 22; // bits behind the point of Pillow's 8-bit coefficients

const FILTERS = {
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: { support: 2, weight: cubic },
};

const RESIZES = ["squash", "shorter-side", "longer-side"];

export async function decode(blob) {
  const bitmap = await createImageBitmap(blob, {
    imageOrientation: "from-image",
    colorSpaceConversion: "none",
    premultiplyAlpha: "none",
  });
  const { width, height } = bitmap;
  try {
    const context = canvas(width, height).getContext("2d", { willReadFrequently: true });
    if (context === null) throw new Error(`the browser has no canvas for ${width} x ${height} pixels`);
    context.drawImage(bitmap, 0, 0);
    return { rgba: context.getImageData(0, 0, width, height).data, width, height };
  } finally {
    bitmap.close();
  }
}

function canvas(width, height) {
  if (typeof OffscreenCanvas !== "undefined") return new OffscreenCanvas(width, height);
  return Object.assign(document.createElement("canvas"), { width, height });
}

export function preprocess(rgba, width, height, contract, scale = 1) {
  const known = check(contract);
  const rgb = overWhite(rgba, width, height);
  const target = outputSize(width, height, contract, scale);
  const box = sourceBox(width, height, contract);
  const across = coefficients(width, box.left, box.right, target.width, known);
  const down = coefficients(height, box.top, box.bottom, target.height, known);
  // Pillow since 13 takes the pass first that leaves less to the other; before, tall photos differ by a level or two.
  if (height > target.height && height - target.height > 2 * (width - target.width)) {
    return resampleRows(resampleColumns(rgb, width, 0, down), width, 0, target.height, across);
  }
  const first = down.starts[0];
  const last = down.starts[target.height - 1] + down.counts[target.height - 1];
  return resampleColumns(resampleRows(rgb, width, first, last, across), target.width, first, down);
}

export function outputSize(width, height, contract, scale = 1) {
  check(contract);
  if (contract.resize !== "longer-side") return { width: contract.size, height: contract.size };
  const longer = Math.max(1, Math.floor(contract.size * scale));
  if (longer >= Math.max(width, height)) return { width, height };
  const aspect = width / height;
  const wide = aspect > 1;
  const exact = wide ? longer / aspect : longer * aspect;
  // As Pillow's `thumbnail`: the whole number that comes nearer to the aspect ratio, the lower one where both do.
  const miss = (n) => (wide ? (n === 0 ? 0 : Math.abs(aspect - longer / n)) : Math.abs(aspect - n / longer));
  const [below, above] = [Math.floor(exact), Math.ceil(exact)];
  const shorter = Math.max(1, miss(above) < miss(below) ? above : below);
  return wide ? { width: longer, height: shorter } : { width: shorter, height: longer };
}

function check(contract) {
  const filter = Object.hasOwn(FILTERS, contract.interpolation) ? FILTERS[contract.interpolation] : null;
  if (filter === null || !RESIZES.includes(contract.resize) || !Number.isInteger(contract.size)) {
    const { size, resize, interpolation } = contract;
    throw new Error(`not a pixel contract: ${JSON.stringify({ size, resize, interpolation })}`);
  }
  return filter;
}

// The part of the photo that is resized: the centre square with "shorter-side", else all of it.
function sourceBox(width, height, contract) {
  if (contract.resize !== "shorter-side") return { left: 0, top: 0, right: width, bottom: height };
  const side = (contract.crop_pct ?? 1) * Math.min(width, height);
  const [left, top] = [(width - side) / 2, (height - side) / 2];
  return { left, top, right: left + side, bottom: top + side };
}

// For each of `size` output pixels: its first source pixel, how many count, and their weights in fixed point.
function coefficients(sourceSize, from, to, size, filter) {
  const start = Math.fround(from); // Pillow's boxes are single precision
  const step = Math.fround(Math.fround(to) - start) / size;
  const stretch = Math.max(step, 1); // antialias: the filter covers all that an output pixel stands for
  const support = filter.support * stretch;
  const most = Math.ceil(support) * 2 + 1;
  const starts = new Int32Array(size);
  const counts = new Int32Array(size);
  const weights = new Int32Array(size * most);
  const exact = new Float64Array(most);
  const inverse = 1 / stretch;
  for (let i = 0; i < size; i++) {
    const centre = start + (i + 0.5) * step;
    const low = Math.max(0, Math.trunc(centre - support + 0.5));
    const count = Math.min(sourceSize, Math.trunc(centre + support + 0.5)) - low;
    let total = 0;
    for (let j = 0; j < count; j++) total += exact[j] = filter.weight((j + low - centre + 0.5) * inverse);
    for (let j = 0; j < count; j++) {
      const share = total === 0 ? exact[j] : exact[j] / total;
      weights[i * most + j] = Math.trunc(share * (1 << PRECISION) + (share < 0 ? -0.5 : 0.5));
    }
    starts[i] = low;
    counts[i] = count;
  }
  return { size, most, starts, counts, weights };
}

function cubic(value) {
  const a = -0.5;
  const x = Math.abs(value);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

// Rows `first` to `last` (excluded) of the source, each resampled to across.size pixels.
function resampleRows(rgb, width, first, last, across) {
  const { size, most, starts, counts, weights } = across;
  const half = 1 << (PRECISION - 1);
  const out = new Uint8Array((last - first) * size * 3);
  let place = 0;
  for (let y = first; y < last; y++) {
    for (let x = 0; x < size; x++) {
      let [red, green, blue] = [half, half, half];
      let at = (y * width + starts[x]) * 3;
      const end = x * most + counts[x];
      for (let k = x * most; k < end; k++, at += 3) {
        const weight = weights[k];
        red += rgb[at] * weight;
        green += rgb[at + 1] * weight;
        blue += rgb[at + 2] * weight;
      }
      out[place++] = clipped(red);
      out[place++] = clipped(green);
      out[place++] = clipped(blue);
    }
  }
  return out;
}

// Columns of rows (of `width` pixels; the first is source row `first`), each resampled to down.size pixels.
function resampleColumns(rows, width, first, down) {
  const { size, most, starts, counts, weights } = down;
  const half = 1 << (PRECISION - 1);
  const values = width * 3;
  const out = new Uint8Array(size * values);
  const sums = new Int32Array(values);
  for (let y = 0; y < size; y++) {
    sums.fill(half);
    for (let j = 0; j < counts[y]; j++) {
      const weight = weights[y * most + j];
      const row = (starts[y] - first + j) * values;
      for (let i = 0; i < values; i++) sums[i] += rows[row + i] * weight;
    }
    for (let i = 0; i < values; i++) out[y * values + i] = clipped(sums[i]);
  }
  return out;
}

function clipped(sum) {
  const value = sum >> PRECISION;
  return value < 0 ? 0 : value > 255 ? 255 : value;
}

// height x width x 3 bytes: transparency laid over white, by Pillow's rounding.
function overWhite(pixels, width, height) {
  const count = width * height;
  if (pixels.length === count * 3) return pixels;
  if (count === 0 || pixels.length !== count * 4) {
    throw new Error(`${width} x ${height} pixels are ${count * 3} or ${count * 4} bytes, not ${pixels.length}`);
  }
  const rgb = new Uint8Array(count * 3);
  for (let i = 0, from = 0, to = 0; i < count; i++, from += 4) {
    const alpha = pixels[from + 3];
    for (let c = 0; c < 3; c++) rgb[to++] = alpha === 255 ? pixels[from + c] : laid(pixels[from + c], alpha);
  }
  return rgb;
}

function laid(value, alpha) {
  if (alpha === 0) return 255;
  const sum = value * alpha * 128 + 255 * (255 - alpha) * 128 + (0x80 << 7);
  return ((sum >> 8) + sum) >> 8 >> 7;
}
