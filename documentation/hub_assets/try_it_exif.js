/**
 * Reads the EXIF orientation of a photograph and turns its pixels upright.
 *
 * The same rules as in images/exif.py: browsers differ in which files they turn.
 *
 * Source: CIPA DC-008 (Exif 2.32), section 4.6.4 A, tag 0x0112.
 */

const TAG = 0x0112;
const [SHORT, LONG] = [3, 4]; // types of a field
const PREFIX = "Exif\0\0"; // of JPEG, and of what some programs write into others
const MAX_ENTRIES = 512;

/** Says whether EXIF data with its prefix begins at an offset. */
export function hasPrefix(view, offset) {
  return [...PREFIX].every((letter, index) => byte(view, offset + index) === letter.charCodeAt(0));
}

function byte(view, offset) {
  return offset < view.byteLength ? view.getUint8(offset) : 0;
}

/** Returns the orientation, 1 to 8, from EXIF data at an offset; 1 if it has none. */
export function readOrientation(view, offset) {
  const start = hasPrefix(view, offset) ? offset + PREFIX.length : offset;
  const order = String.fromCharCode(byte(view, start), byte(view, start + 1));
  const little = order === "II";
  const short = (at) => combine(view, at, 2, little);
  const long = (at) => combine(view, at, 4, little);
  if (!["II", "MM"].includes(order) || short(start + 2) !== 42) return 1;
  const directory = start + long(start + 4);
  let found = 1;
  for (let index = 0; index < Math.min(short(directory), MAX_ENTRIES); index++) {
    const entry = directory + 2 + 12 * index;
    const type = short(entry + 2);
    if (short(entry) !== TAG || ![SHORT, LONG].includes(type)) continue;
    const value = type === LONG ? long(entry + 8) : short(entry + 8);
    if (value <= 8) found = Math.max(found, value);
  }
  return found;
}

/** Reads an unsigned integer; bytes after the end of the file are 0. */
function combine(view, offset, length, little) {
  let value = 0;
  for (let index = 0; index < length; index++) {
    value = value * 256 + byte(view, offset + (little ? length - 1 - index : index));
  }
  return value;
}

/** Returns the size of stored pixels after they are turned. */
export function uprightSize({ height, width }, orientation) {
  return orientation >= 5 ? { height: width, width: height } : { height, width };
}

/** Returns the matrix of a canvas, [a, b, c, d, e, f], that turns stored pixels. */
export function turn({ height, width }, orientation) {
  const matrices = {
    1: [1, 0, 0, 1, 0, 0],
    2: [-1, 0, 0, 1, width, 0],
    3: [-1, 0, 0, -1, width, height],
    4: [1, 0, 0, -1, 0, height],
    5: [0, 1, 1, 0, 0, 0],
    6: [0, 1, -1, 0, height, 0],
    7: [0, -1, -1, 0, height, width],
    8: [0, -1, 1, 0, 0, width],
  };
  return matrices[orientation];
}
