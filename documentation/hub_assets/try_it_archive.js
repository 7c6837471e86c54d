/**
 * Downloads files that are packed with gzip: fetch -> decompress -> one file of the tar.
 *
 * Everything is read as a stream, and kept only where it is wanted.
 */

import { Refusal } from "./try_it_photograph.js";

const BLOCK = 512; // bytes, of tar
const OTHER_FILES = 64 * 2 ** 20; // most bytes that all other files of an archive have
const DAMAGED = "The downloaded file is damaged";

/**
 * Returns the bytes of one file of a published archive, a .tar.gz.
 *
 * @param url of the archive.
 * @param member `name`, `size` in bytes and `sha256` of the file in it.
 * @param cache how `fetch` uses the browser's cache.
 * @param progress is called with the bytes read so far.
 * @throws Refusal if the archive is missing or damaged, or holds another file.
 */
export async function fetchMember(url, member, cache, progress) {
  const reader = new ByteReader(await fetchUnpacked(url, cache));
  const content = await describeErrors(url, () => readMember(reader, member, progress));
  await checkHash(url, content, member.sha256);
  return content;
}

/** Returns a file, decompressed if it is packed, whose unpacked size is known. */
export async function fetchPacked(url, size, cache, progress) {
  const reader = new ByteReader(await fetchUnpacked(url, cache));
  return describeErrors(url, () => reader.read(size, progress));
}

async function fetchUnpacked(url, cache) {
  let response;
  try {
    response = await fetch(url, { cache });
  } catch {
    throw new Refusal(`Nothing answers at ${url}. Is there a connection to the server?`);
  }
  if (!response.ok) {
    const { status, statusText } = response;
    throw new Refusal(`The server does not have ${url} (${status} ${statusText}).`);
  }
  return gunzip(response.body, url);
}

/** Decompresses a stream, unless the server or the browser has done so already. */
async function gunzip(stream, url) {
  const reader = stream.getReader();
  let first = new Uint8Array();
  while (first.length < 2) {
    const { value, done } = await describeErrors(url, () => reader.read());
    if (done) throw new Refusal(`${DAMAGED}: ${url} is empty.`);
    first = concatenate(first, value);
  }
  const rest = new ReadableStream({
    start: (controller) => controller.enqueue(first),
    async pull(controller) {
      const { value, done } = await reader.read();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    cancel: (reason) => reader.cancel(reason),
  });
  const isGzip = first[0] === 0x1f && first[1] === 0x8b;
  return isGzip ? rest.pipeThrough(new DecompressionStream("gzip")) : rest;
}

function concatenate(first, second) {
  const both = new Uint8Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}

/** Turns an error of a stream into a message for the user. */
async function describeErrors(url, read) {
  try {
    return await read();
  } catch (error) {
    if (error instanceof Refusal) throw error;
    throw new Refusal(`${DAMAGED}, or the connection was lost: ${url} (${error.message}).`);
  }
}

/** Reads a given number of bytes at a time from a stream of chunks. */
class ByteReader {
  constructor(stream) {
    this.reader = stream.getReader();
    this.chunk = new Uint8Array();
  }

  /** Returns the next chunk or what is left of it, at most `limit` bytes. */
  async next(limit) {
    while (!this.chunk.length) {
      const { value, done } = await this.reader.read();
      if (done) throw new Error("it ends too early");
      this.chunk = value;
    }
    const part = this.chunk.subarray(0, limit);
    this.chunk = this.chunk.subarray(part.length);
    return part;
  }

  async read(size, progress = () => {}) {
    const bytes = new Uint8Array(size);
    for (let filled = 0; filled < size; progress(filled)) {
      const part = await this.next(size - filled);
      bytes.set(part, filled);
      filled += part.length;
    }
    return bytes;
  }

  async skip(size) {
    while (size > 0) size -= (await this.next(size)).length;
  }

  /** Reads what is left, so that the checksum of gzip is checked. */
  async finish(limit) {
    for (let size = this.chunk.length; size <= limit; ) {
      const { value, done } = await this.reader.read();
      if (done) return;
      size += value.length;
    }
    throw new Error("it is longer than it should be");
  }
}

/** Finds the file in a tar and reads it. Source: POSIX.1-2017, pax, "ustar". */
async function readMember(reader, { name, size }, progress) {
  for (let others = 0; others <= OTHER_FILES; ) {
    const header = tarHeader(await reader.read(BLOCK));
    if (!header) throw new Error(`there is no ${name} in it`);
    if (header.name === name && header.isFile) {
      if (header.size !== size) throw new Error(`its ${name} has another size`);
      const content = await reader.read(size, progress);
      await reader.finish(OTHER_FILES);
      return content;
    }
    const padded = Math.ceil(header.size / BLOCK) * BLOCK;
    others += padded + BLOCK;
    if (others <= OTHER_FILES) await reader.skip(padded);
  }
  throw new Error("it is longer than it should be");
}

/** Returns name and size of the next member; null at the end of the archive. */
function tarHeader(block) {
  if (block.every((byte) => byte === 0)) return null;
  const text = (start, length) =>
    String.fromCharCode(...block.subarray(start, start + length)).replace(/\0.*$/s, "");
  const octal = (start, length) => {
    const digits = text(start, length).trim();
    if (!/^[0-7]+$/.test(digits)) throw new Error("it is not a tar archive");
    return parseInt(digits, 8);
  };
  const sum = block.reduce((total, byte, index) => {
    const isChecksum = index >= 148 && index < 156;
    return total + (isChecksum ? 32 : byte);
  }, 0);
  if (sum !== octal(148, 8)) throw new Error("it is not a tar archive");
  const isFile = ["0", ""].includes(text(156, 1));
  return { name: text(0, 100), size: octal(124, 12), isFile };
}

async function checkHash(url, content, expected) {
  if (!globalThis.crypto?.subtle) return; // only over https, and on the same computer
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  const hex = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (hex !== expected) {
    throw new Refusal(`${DAMAGED}: the SHA-256 of the model in ${url} is not the published one.`);
  }
}
