/**
 * Preprocessing of a photograph: central crop -> resize -> values of the model's input.
 *
 * The same arithmetic as in images/model_input.py, step by step in float32, so that the
 * same pixels give the same bits. The resize is Pillow's: first horizontally, then
 * vertically, with rounding to 8 bits after each.
 */

const float32 = Math.fround;
const UNIT = float32(1 / 255);

/** Kernel by interpolation: its radius, and the weight at a distance from 0 on. */
const KERNELS = {
  bilinear: {
    radius: 1,
    weight: (x) => (x < 1 ? float32(1 - x) : 0),
  },
  bicubic: {
    radius: 2,
    weight(x) {
      if (x >= 2) return 0;
      const terms = x >= 1 ? [-0.5, 2.5, -4, 2] : [1.5, -2.5, 0, 1];
      return terms.reduce((sum, term) => float32(float32(sum * x) + term));
    },
  },
};

/**
 * Returns the largest central crop with the aspect ratio of the input, times
 * `crop_fraction`.
 */
export function centralCrop(image, input) {
  const largest = (side, other, ratio) =>
    Math.min(side, float32(other * float32(ratio)));
  const extent = (side) =>
    Math.max(1, Math.trunc(float32(float32(side) * float32(input.crop_fraction))));
  const height = extent(largest(image.height, image.width, input.height / input.width));
  const width = extent(largest(image.width, image.height, input.width / input.height));
  return {
    top: Math.floor((image.height - height + 1) / 2),
    left: Math.floor((image.width - width + 1) / 2),
    height,
    width,
  };
}

/**
 * Returns which of `from` pixels each of `to` pixels is a weighted sum of.
 *
 * Source: `ComputeSpansCore` in TensorFlow's scale_and_translate_op.cc. When an image
 * shrinks, the kernel is widened, which antialiases.
 */
function spans(from, to, { radius, weight }) {
  const scale = float32(1 / float32(to / from));
  const widening = Math.max(scale, 1);
  const narrowing = float32(1 / widening);
  const reach = float32(radius * widening);
  return Array.from({ length: to }, (_, index) => {
    const centre = float32(float32(index + 0.5) * scale);
    const first = Math.ceil(float32(float32(centre - reach) - 0.5));
    const last = Math.floor(float32(float32(centre + reach) - 0.5));
    const start = Math.min(Math.max(first, 0), from - 1);
    const end = Math.min(Math.max(last, 0), from - 1) + 1;
    const weights = new Float32Array(end - start);
    let sum = 0;
    for (let source = start; source < end; source++) {
      const distance = float32(float32(source + 0.5) - centre);
      weights[source - start] = weight(Math.abs(float32(distance * narrowing)));
      sum = float32(sum + weights[source - start]);
    }
    return { start, weights: weights.map((value) => value * float32(1 / sum)) };
  });
}

function toByte(value) {
  return Math.min(Math.max(Math.floor(float32(value + 0.5)), 0), 255);
}

/** Resizes a crop that arrives in bands of rows, and so needs little memory. */
export class Resizer {
  /**
   * @param crop height and width of the crop in pixels.
   * @param input height, width and interpolation of the model's input.
   */
  constructor(crop, input) {
    const kernel = KERNELS[input.interpolation];
    this.input = input;
    this.columns = spans(crop.width, input.width, kernel);
    this.rows = spans(crop.height, input.height, kernel);
    this.cropWidth = crop.width;
    this.narrow = new Uint8Array(crop.height * input.width * 3);
    this.filled = 0; // values of `narrow`
  }

  /** Resizes the next rows horizontally; `rgba` has four bytes for each pixel. */
  addRows(rgba) {
    const stride = this.cropWidth * 4;
    for (let row = 0; row < rgba.length; row += stride) {
      for (const { start, weights } of this.columns) {
        let red = 0;
        let green = 0;
        let blue = 0;
        let source = row + start * 4;
        for (let index = 0; index < weights.length; index++) {
          const weight = weights[index];
          red = float32(red + float32(weight * rgba[source]));
          green = float32(green + float32(weight * rgba[source + 1]));
          blue = float32(blue + float32(weight * rgba[source + 2]));
          source += 4;
        }
        this.narrow[this.filled++] = toByte(red);
        this.narrow[this.filled++] = toByte(green);
        this.narrow[this.filled++] = toByte(blue);
      }
    }
  }

  /** Resizes vertically. Returns [height, width, 3] bytes. */
  finish() {
    const stride = this.input.width * 3;
    const pixels = new Uint8Array(this.input.height * stride);
    const sums = new Float32Array(stride);
    this.rows.forEach(({ start, weights }, row) => {
      sums.fill(0);
      weights.forEach((weight, index) => {
        const source = (start + index) * stride;
        for (let column = 0; column < stride; column++) {
          sums[column] += float32(weight * this.narrow[source + column]);
        }
      });
      sums.forEach((sum, column) => (pixels[row * stride + column] = toByte(sum)));
    });
    return pixels;
  }
}

/** Scales bytes to the range of the model's input, as float32. */
export function toInput(pixels, [low, high]) {
  const values = Float32Array.from(pixels, (value) => value * UNIT);
  return low === 0 && high === 1
    ? values
    : values.map((value) => low + value * (high - low));
}
