/**
 * Reads a photograph: format and size from its header -> decode -> upright pixels.
 *
 * Only the formats that the model's own signature `image_bytes` reads. The header is
 * read first: a small file can declare a size that exhausts the memory.
 */

import { hasPrefix, readOrientation, turn, uprightSize } from "./try_it_exif.js";

export const MAX_BYTES = 64 * 2 ** 20;
export const MAX_PIXELS = 2 ** 26;
const BAND = 64; // rows that are copied from the canvas at once

/** An error that the page shows as it is. */
export class Refusal extends Error {}

const DAMAGED = "This file is damaged: the browser can’t decode it.";
const READ = "The model reads photographs in JPEG, PNG, WebP, GIF and BMP.";
const HAS_TEXT = /^[\s\x20-\x7e\u00a0-\uffef]+$/;

/** Format -> its first bytes (a dot matches any), and the reader of its header. */
const FORMATS = {
  JPEG: { start: "\xff\xd8\xff", header: jpegHeader },
  PNG: { start: "\x89PNG\r\n\x1a\n", header: pngHeader },
  WebP: { start: "RIFF....WEBP", header: webpHeader },
  GIF: { start: "GIF8.a", header: gifHeader },
  BMP: { start: "BM", header: bmpHeader },
};

/**
 * Decodes the first frame of an image file, upright.
 *
 * @returns `bitmap`, an ImageBitmap as it is stored; its EXIF `orientation`; `height`
 *   and `width` when it is upright; and `animated`: whether there are more frames.
 * @throws Refusal with a message for the user.
 */
export async function decode(file) {
  const bytes = await readBytes(file);
  const { animated = false, exif = [], ...size } = readHeader(bytes);
  checkSize(size);
  const orientation = exif.length ? readOrientation(exif[0].view, exif[0].data) : 1;
  try {
    const bitmap = await createImageBitmap(new Blob(without(bytes, exif)), {
      colorSpaceConversion: "none", // the model was trained on the numbers in the file
      premultiplyAlpha: "none",
    });
    return { bitmap, animated, orientation, ...uprightSize(bitmap, orientation) };
  } catch {
    throw new Refusal(DAMAGED);
  }
}

/**
 * Returns the parts of a file around its EXIF. Browsers differ in which files they turn,
 * and `createImageBitmap` has no option that leaves them as they are stored.
 */
function without(bytes, exif) {
  const starts = [0, ...exif.map(({ end }) => end)];
  const ends = [...exif.map(({ start }) => start), bytes.length];
  return starts.map((start, index) => bytes.subarray(start, ends[index]));
}

async function readBytes(file) {
  if (file.size > MAX_BYTES) {
    throw new Refusal(
      `This file has ${megabytes(file.size)} MB, and the limit is ` +
        `${megabytes(MAX_BYTES)} MB.`,
    );
  }
  try {
    return new Uint8Array(await file.arrayBuffer());
  } catch {
    throw new Refusal("The browser can’t read this file. Is it a folder?");
  }
}

/**
 * Returns height, width, whether there are several frames, and where `exif` is: `start`
 * and `end` of each segment, and the offset of its `data`.
 */
function readHeader(bytes) {
  if (!bytes.length) throw new Refusal("This file is empty.");
  const first = String.fromCharCode(...bytes.subarray(0, 16));
  const format = Object.values(FORMATS).find(({ start }) =>
    [...start].every((letter, index) => letter === "." || letter === first[index]),
  );
  if (!format) {
    const kind = isText(bytes) ? "a text file" : "a file of another kind";
    throw new Refusal(`This is ${kind}. ${READ}`);
  }
  try {
    return format.header(new DataView(bytes.buffer));
  } catch (error) {
    if (error instanceof RangeError) throw new Refusal(DAMAGED); // it ends too early
    throw error;
  }
}

function isText(bytes) {
  try {
    const options = { stream: true }; // the 4,096 bytes may end inside a character
    const decoder = new TextDecoder("utf-8", { fatal: true });
    return HAS_TEXT.test(decoder.decode(bytes.subarray(0, 4096), options));
  } catch {
    return false;
  }
}

function checkSize({ height, width }) {
  if (!(height > 0 && width > 0)) throw new Refusal(DAMAGED);
  if (height * width > MAX_PIXELS) {
    const [w, h, limit] = [width, height, MAX_PIXELS / 1e6].map((number) =>
      Math.floor(number).toLocaleString("en"),
    );
    throw new Refusal(
      `This image has ${w} × ${h} pixels, and the limit is ${limit} million pixels, ` +
        `which take ${megabytes(4 * MAX_PIXELS)} MB of memory.`,
    );
  }
}

/** Source: ITU-T T.81, annex B. */
function jpegHeader(view) {
  const exif = [];
  let size = null;
  for (let offset = 2; ; ) {
    while (view.getUint8(offset) === 0xff && view.getUint8(offset + 1) === 0xff) offset++;
    if (view.getUint8(offset) !== 0xff) throw new Refusal(DAMAGED);
    const marker = view.getUint8(offset + 1);
    const isFrame = marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);
    if (isFrame) size = { height: view.getUint16(offset + 5), width: view.getUint16(offset + 7) };
    if (marker === 0xda) {
      if (!size) throw new Refusal(DAMAGED);
      return { ...size, exif };
    }
    const end = offset + 2 + view.getUint16(offset + 2);
    if (marker === 0xe1 && hasPrefix(view, offset + 4)) {
      exif.push({ view, start: offset, data: offset + 4, end });
    }
    offset = end;
  }
}

/** Source: PNG specification, third edition, section 5. */
function pngHeader(view) {
  const [control, end] = [0x6163544c, 0x49454e44]; // acTL of an animation, IEND
  const metadata = 0x65584966; // eXIf
  const exif = [];
  let animated = false;
  for (let start = 8; view.getUint32(start + 4) !== end; ) {
    const next = start + 12 + view.getUint32(start);
    animated ||= view.getUint32(start + 4) === control;
    if (view.getUint32(start + 4) === metadata) {
      exif.push({ view, start, data: start + 8, end: next });
    }
    start = next;
  }
  return { width: view.getUint32(16), height: view.getUint32(20), animated, exif };
}

/** Source: RFC 9649 (WebP), sections 2.3 to 2.7. */
function webpHeader(view) {
  if (view.byteLength < 8 + view.getUint32(4, true)) throw new Refusal(DAMAGED);
  const metadata = 0x45584946; // EXIF
  const exif = [];
  for (let start = 12; start + 8 <= view.byteLength; ) {
    const size = view.getUint32(start + 4, true);
    if (view.getUint32(start) === metadata) {
      // Only hidden, by another name: the size of the file is in its first bytes.
      view.setUint32(start, 0x4558494e);
      exif.push({ view, start, data: start + 8, end: start });
    }
    start += 8 + size + (size % 2);
  }
  return { ...webpSize(view), exif };
}

function webpSize(view) {
  const short = (offset) => view.getUint16(offset, true);
  const kind = String.fromCharCode(view.getUint8(15)); // VP8X, VP8L or VP8
  if (kind === "X") {
    const side = (offset) => 1 + short(offset) + view.getUint8(offset + 2) * 2 ** 16;
    return { width: side(24), height: side(27), animated: (view.getUint8(20) & 2) > 0 };
  }
  if (kind === "L") {
    const bits = view.getUint32(21, true);
    return { width: 1 + (bits & 0x3fff), height: 1 + ((bits >>> 14) & 0x3fff) };
  }
  return { width: short(26) & 0x3fff, height: short(28) & 0x3fff };
}

/** Source: GIF89a, sections 15 to 23. */
function gifHeader(view) {
  const [extension, image] = [0x21, 0x2c];
  const table = (flags) => (flags & 0x80 ? 3 * 2 ** ((flags & 7) + 1) : 0);
  const afterBlocks = (offset) => {
    while (view.getUint8(offset)) offset += 1 + view.getUint8(offset);
    return offset + 1;
  };
  let frames = 0;
  for (let offset = 13 + table(view.getUint8(10)); frames < 2; ) {
    const kind = view.getUint8(offset);
    if (kind === extension) {
      offset = afterBlocks(offset + 2);
    } else if (kind === image) {
      frames++;
      offset = afterBlocks(offset + 11 + table(view.getUint8(offset + 9)));
    } else {
      break;
    }
  }
  const [width, height] = [view.getUint16(6, true), view.getUint16(8, true)];
  return { width, height, animated: frames > 1 };
}

/** A negative height means that rows are stored from top to bottom. */
function bmpHeader(view) {
  if (view.getUint32(14, true) === 12) {
    return { width: view.getUint16(18, true), height: view.getUint16(20, true) };
  }
  return { width: view.getInt32(18, true), height: Math.abs(view.getInt32(22, true)) };
}

/** Yields the RGBA rows of a crop of an upright photograph in bands, on white. */
export function* bands({ bitmap, orientation }, { top, left, height, width }) {
  const canvas = new OffscreenCanvas(width, Math.min(BAND, height));
  const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
  context.imageSmoothingEnabled = false;
  const [a, b, c, d, e, f] = turn(bitmap, orientation);
  for (let row = 0; row < height; row += BAND) {
    const count = Math.min(BAND, height - row);
    context.resetTransform();
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, count);
    context.setTransform(a, b, c, d, e - left, f - top - row);
    context.drawImage(bitmap, 0, 0);
    yield context.getImageData(0, 0, width, count).data;
  }
}

export function megabytes(bytes) {
  const number = bytes / 1e6;
  return number.toLocaleString("en", { maximumFractionDigits: number < 10 ? 1 : 0 });
}
