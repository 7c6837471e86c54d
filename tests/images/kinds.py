"""Builds image files of every kind, each with the pixels that it decodes to."""

from __future__ import annotations

import dataclasses
import functools
import io
import struct
import zlib
from collections.abc import Iterable

import numpy as np
import PIL.Image
import PIL.ImageOps

HEIGHT, WIDTH = 44, 61
WHITE = 255


@dataclasses.dataclass(frozen=True)
class Kind:
    """An image file and its pixels.

    Attributes:
      data: bytes of the file.
      pixels: decoded pixels, [H, W, 3] uint8.
      in_exports: whether exported models, which use TensorFlow's ops, read it, too.
    """

    data: bytes
    pixels: np.ndarray
    in_exports: bool = True


def photograph() -> np.ndarray:
    """Returns smooth colours, in which all sides and all corners differ."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    channels = [rows * 5, columns * 4, 255 - rows * 2 - columns * 2]
    return np.stack(channels, axis=-1).astype(np.uint8)


def encoded(pixels: np.ndarray | PIL.Image.Image, form: str, **options) -> bytes:
    image = pixels
    if isinstance(pixels, np.ndarray):
        image = PIL.Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def shown_by_pillow(data: bytes) -> np.ndarray:
    """Returns upright, opaque pixels as Pillow reads them, to compare with."""
    with PIL.Image.open(io.BytesIO(data)) as image:
        return np.asarray(PIL.ImageOps.exif_transpose(image).convert("RGB"))


def on_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    opacity = alpha[..., np.newaxis].astype(float) / 255
    return np.rint(colours * opacity + WHITE * (1 - opacity)).astype(np.uint8)


# EXIF, and files that contain it.


def exif(
    orientation: int, *, order: str = "<", is_long: bool = False, kind: int = 3
) -> bytes:
    """Returns a TIFF header and a directory; its second entry is the orientation."""
    head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8)
    kind, value = (4, "I") if is_long else (kind, "H2x")
    entries = [
        struct.pack(f"{order}HHI4s", 0x010F, 2, 4, b"Zoo\0"),
        struct.pack(f"{order}HHI{value}", 0x0112, kind, 1, orientation),
    ]
    directory = struct.pack(f"{order}H", len(entries)) + b"".join(entries)
    return head + directory + struct.pack(f"{order}I", 0)


def stored_as(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Returns pixels as a camera stores them; the orientation makes them upright."""
    turns = {
        **{1: None, 2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM"},
        **{5: "TRANSPOSE", 6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270"},
    }
    name = turns[orientation]
    if name is None:
        return pixels
    image = PIL.Image.fromarray(pixels)
    return np.asarray(image.transpose(PIL.Image.Transpose[name]))


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """Returns a JPEG file with segments inserted right after its first marker."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def without_adobe(jpeg: bytes) -> bytes:
    """Returns a JPEG file without the segment that names Adobe as its writer."""
    start = jpeg.index(b"\xff\xee\0\x0eAdobe")
    return jpeg[:start] + jpeg[start + 16 :]


def with_webp_chunks(webp: bytes, size: tuple[int, int], flags: int, *chunks: bytes):
    """Returns an extended WebP file: a header chunk, the image, further chunks."""
    sides = b"".join(struct.pack("<I", side - 1)[:3] for side in size)
    header = b"VP8X" + struct.pack("<IB3x", 10, flags) + sides
    body = b"WEBP" + header + webp[12:] + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


# PNG, GIF and BMP, written by hand.


def png_chunk(name: bytes, data: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + checksum


def png(
    rows: Iterable[bytes],
    size: tuple[int, int],
    depth: int,
    colour: int,
    *before: bytes,
    after: bytes = b"",
) -> bytes:
    """Returns a PNG file of packed rows; `size` is width and height."""
    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = [png_chunk(b"IHDR", header), *before, png_chunk(b"IDAT", body), after]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + png_chunk(b"IEND", b"")


def packed(values: np.ndarray, depth: int) -> list[bytes]:
    """Packs rows of values of `depth` bits, the highest bits of a byte first."""
    bits = (values[..., np.newaxis] >> np.arange(depth - 1, -1, -1)) & 1
    rows = np.packbits(bits.reshape(len(values), -1).astype(np.uint8), axis=1)
    return [row.tobytes() for row in rows]


def palette(size: int) -> np.ndarray:
    """Returns colours [size, 3] that are not in order of brightness."""
    numbers = np.arange(size)
    return np.stack([numbers * 83, numbers * 151 + 40, 255 - numbers * 7], -1).astype(
        np.uint8
    )


def numbers(size: int) -> np.ndarray:
    """Returns integers [HEIGHT, WIDTH] in [0, size)."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    return (rows * 3 + columns) % size


def gif(
    frame: np.ndarray,
    *,
    canvas: tuple[int, int] | None = None,
    corner: tuple[int, int] = (0, 0),
    transparent: int | None = None,
    is_local: bool = False,
    interlaced: bool = False,
    other_frames: bytes = b"",
) -> bytes:
    """Returns a GIF file; `frame` contains indices of four colours."""
    height, width = frame.shape
    screen = canvas or (height, width)
    colours = palette(4).tobytes()
    table = 0x80 | 1
    data = b"GIF89a" + struct.pack(
        "<HHBBB", screen[1], screen[0], 0x70 | (0 if is_local else table), 0, 0
    )
    data += b"" if is_local else colours
    data += b"\x21\xfe\x05hello\0"  # a comment
    if transparent is not None:
        data += b"\x21\xf9\x04" + struct.pack("<BHBB", 1, 0, transparent, 0)
    flags = (table if is_local else 0) | (0x40 if interlaced else 0)
    data += b"\x2c" + struct.pack("<HHHHB", corner[1], corner[0], width, height, flags)
    data += colours if is_local else b""
    rows = range(height)
    if interlaced:
        starts = ((0, 8), (4, 8), (2, 4), (1, 2))
        rows = [row for start, step in starts for row in range(start, height, step)]
    return data + _lzw(frame[list(rows)].ravel()) + other_frames + b";"


def _lzw(values: np.ndarray, bits: int = 2) -> bytes:
    """Compresses values as GIF does, clearing the table before codes grow."""
    clear, stream, offset = 1 << bits, 0, 0
    codes = []
    for number, value in enumerate(values):
        if number % (clear - 2) == 0:
            codes.append(clear)
        codes.append(int(value))
    for code in [*codes, clear + 1]:
        stream |= code << offset
        offset += bits + 1
    body = stream.to_bytes((offset + 7) // 8, "little")
    blocks = [body[i : i + 255] for i in range(0, len(body), 255)]
    return bytes([bits]) + b"".join(bytes([len(b)]) + b for b in blocks) + b"\0"


def bmp(
    rows: Iterable[bytes],
    size: tuple[int, int],
    depth: int,
    *,
    colours: np.ndarray | None = None,
    masks: tuple[int, ...] = (),
    compression: int = 0,
    top_down: bool = False,
    is_core: bool = False,
) -> bytes:
    """Returns a BMP file of packed rows, given from top to bottom."""
    lines = [row + b"\0" * (-len(row) % 4) for row in rows]
    body = b"".join(lines if top_down else lines[::-1])
    width, height = size
    table = b""
    if colours is not None:
        blue_first = colours[:, ::-1]
        if not is_core:
            blue_first = np.pad(blue_first, ((0, 0), (0, 1)))
        table = blue_first.astype(np.uint8).tobytes()
    if is_core:
        header = struct.pack("<IHHHH", 12, width, height, 1, depth)
    else:
        header = struct.pack(
            "<IiiHHIIiiII",
            108 if masks else 40,
            *(width, -height if top_down else height, 1, depth, compression),
            *(len(body), 0, 0, 0 if colours is None else len(colours), 0),
        )
        header += struct.pack("<4I", *masks) + b"\0" * 52 if masks else b""
    start = 14 + len(header) + len(table)
    head = b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start)
    return head + header + table + body


@functools.cache
def every_kind() -> dict[str, Kind]:
    """Returns the files, keyed by what is special about each."""
    return {**_jpegs(), **_pngs(), **_webps(), **_gifs(), **_bmps(), **_others()}


def _jpegs() -> dict[str, Kind]:
    pixels = photograph()
    image = PIL.Image.fromarray(pixels)
    plain = encoded(pixels, "JPEG", quality=90)
    turned = encoded(stored_as(pixels, 6), "JPEG", quality=90)
    app1 = segment(0xE1, b"Exif\0\0" + exif(6))
    thumbnail = with_segments(
        encoded(pixels[:8, :8], "JPEG"), segment(0xE1, b"Exif\0\0" + exif(3))
    )
    files = {
        "jpeg": plain,
        "jpeg 4:4:4": encoded(pixels, "JPEG", quality=90, subsampling=0),
        "jpeg progressive": encoded(pixels, "JPEG", quality=90, progressive=True),
        "jpeg grey": encoded(image.convert("L"), "JPEG", quality=90),
        "jpeg cmyk": encoded(image.convert("CMYK"), "JPEG", quality=90),
        "jpeg exif": with_segments(turned, app1),
        "jpeg exif after other segments": with_segments(
            turned, segment(0xE0, b"JFIF\0 and more"), segment(0xED, b"8BIM"), app1
        ),
        "jpeg exif after xmp": with_segments(
            turned, segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>"), app1
        ),
        "jpeg exif after fill bytes": with_segments(turned, b"\xff\xff" + app1),
        "jpeg exif in words only": with_segments(
            plain, segment(0xFE, b"Exif\0\0" + exif(6))
        ),
        "jpeg exif in a thumbnail only": with_segments(
            plain, segment(0xED, b"8BIM" + thumbnail)
        ),
        "jpeg exif of another photograph behind": plain + thumbnail,
        "jpeg exif of nonsense": with_segments(
            plain, segment(0xE1, b"Exif\0\0" + exif(9))
        ),
        "jpeg exif of no known order": with_segments(
            plain, segment(0xE1, b"Exif\0\0" + exif(6).replace(b"II", b"XX"))
        ),
        "jpeg exif of another type": with_segments(
            plain, segment(0xE1, b"Exif\0\0" + exif(6, kind=1))
        ),
        "jpeg exif cut short": with_segments(
            plain, segment(0xE1, b"Exif\0\0" + exif(6)[:14])
        ),
    }
    for orientation in range(1, 9):
        for order in "<>":
            stored = encoded(stored_as(pixels, orientation), "JPEG", quality=90)
            data = exif(orientation, order=order, is_long=orientation % 2 == 0)
            name = f"jpeg turned {orientation} {order}"
            files[name] = with_segments(stored, segment(0xE1, b"Exif\0\0" + data))
    kinds = {name: Kind(data, shown_by_pillow(data)) for name, data in files.items()}
    stored = PIL.Image.fromarray(stored_as(pixels, 6)).convert("CMYK")
    turned = with_segments(encoded(stored, "JPEG", quality=90), app1)
    for name, data in (("", files["jpeg cmyk"]), (" turned", turned)):
        stripped = without_adobe(data)
        kinds[f"jpeg cmyk not of Adobe{name}"] = Kind(
            stripped, shown_by_pillow(stripped), in_exports=False
        )
    for name in ("jpeg exif in words only", "jpeg exif in a thumbnail only"):
        assert np.array_equal(kinds[name].pixels, kinds["jpeg"].pixels)
    return kinds


def _pngs() -> dict[str, Kind]:
    pixels, size = photograph(), (WIDTH, HEIGHT)
    rgb = [row.tobytes() for row in pixels]
    kinds = {"png": Kind(png(rgb, size, 8, 2), pixels)}
    for depth in (1, 2, 4, 8, 16):
        values = numbers(1 << depth)
        rows = packed(values, depth)
        grey = values >> 8 if depth == 16 else values * (255 // ((1 << depth) - 1))
        shown = np.repeat(grey[..., np.newaxis], 3, axis=-1).astype(np.uint8)
        kinds[f"png grey {depth}"] = Kind(png(rows, size, depth, 0), shown)
        comment = png_chunk(b"tEXt", b"Comment\0nothing of tRNS is here")
        kinds[f"png grey {depth} that speaks of tRNS"] = Kind(
            png(rows, size, depth, 0, comment), shown
        )
        key = png_chunk(b"tRNS", struct.pack(">H", 1))
        visible = np.where(values[..., np.newaxis] == 1, WHITE, shown).astype(np.uint8)
        kinds[f"png grey {depth} with a transparent shade"] = Kind(
            png(rows, size, depth, 0, key), visible
        )
        if depth < 16:
            colours = palette(1 << depth)
            table = png_chunk(b"PLTE", colours.tobytes())
            alphas = np.arange(1 << depth) * 97 % 256
            clear = png_chunk(b"tRNS", bytes(alphas.tolist()))
            visible = colours[values]
            name = f"png palette {depth}"
            kinds[name] = Kind(png(rows, size, depth, 3, table), visible)
            kinds[f"{name} that speaks of tRNS"] = Kind(
                png(rows, size, depth, 3, comment, table), visible
            )
            kinds[f"{name} with alpha"] = Kind(
                png(rows, size, depth, 3, table, clear),
                on_white(visible, alphas[values]),
            )
    deep = (pixels.astype(">u2") << 8) + 77
    rows = [row.tobytes() for row in deep.astype(">u2")]
    kinds["png 16"] = Kind(png(rows, size, 16, 2), pixels)
    alpha = (numbers(251) + 2).astype(np.uint8)
    layers = np.dstack([pixels, alpha])
    rows = [row.tobytes() for row in layers]
    kinds["png alpha"] = Kind(png(rows, size, 8, 6), on_white(pixels, alpha))
    clear = np.dstack([pixels, np.zeros_like(alpha)])
    rows = [row.tobytes() for row in clear]
    hidden = np.full_like(pixels, WHITE)
    kinds["png all transparent"] = Kind(png(rows, size, 8, 6), hidden)
    for orientation in range(1, 9):
        stored = stored_as(pixels, orientation)
        rows = [row.tobytes() for row in stored]
        sides = stored.shape[1], stored.shape[0]
        chunk = png_chunk(b"eXIf", exif(orientation, order=">"))
        kinds[f"png turned {orientation}"] = Kind(png(rows, sides, 8, 2, chunk), pixels)
        kinds[f"png turned {orientation}, said last"] = Kind(
            png(rows, sides, 8, 2, after=chunk), pixels
        )
    image = PIL.Image.fromarray(pixels)
    moving = encoded(image, "PNG", save_all=True, append_images=[image.rotate(90)])
    kinds["png animated"] = Kind(moving, pixels)
    return kinds


def _webps() -> dict[str, Kind]:
    pixels = photograph()
    image = PIL.Image.fromarray(pixels)
    alpha = (numbers(251) + 2).astype(np.uint8)
    layers = PIL.Image.fromarray(np.dstack([pixels, alpha]))
    lossy = encoded(pixels, "WEBP", quality=90)
    lossless = {"lossless": True, "exact": True}
    kinds = {
        "webp": Kind(lossy, shown_by_pillow(lossy)),
        "webp lossless": Kind(encoded(image, "WEBP", **lossless), pixels),
        "webp alpha": Kind(
            encoded(layers, "WEBP", **lossless), on_white(pixels, alpha)
        ),
        "webp animated": Kind(
            encoded(
                image,
                "WEBP",
                save_all=True,
                append_images=[image.rotate(9)],
                **lossless,
            ),
            pixels,
        ),
    }
    # Without alpha. Reading a small file must not overwrite memory around it.
    for side in (8, 60, 400):
        opaque = image.resize((side + 9, side))
        moving = {"save_all": True, "append_images": [opaque.rotate(180)]}
        for name, options in (("", {"quality": 80}), (" lossless", lossless)):
            data = encoded(opaque, "WEBP", **moving, **options)
            assert not data[20] & 0x10, "it says that it has alpha"
            kinds[f"webp animated {side} px{name}"] = Kind(data, shown_by_pillow(data))
    for orientation in range(1, 9):
        stored = stored_as(pixels, orientation)
        plain = encoded(stored, "WEBP", **lossless)
        sides = stored.shape[1], stored.shape[0]
        data = exif(orientation, order="<>"[orientation % 2])
        for name, prefix in (("", b""), (" with a prefix", b"Exif\0\0")):
            chunk = webp_chunk(b"EXIF", prefix + data)
            kinds[f"webp turned {orientation}{name}"] = Kind(
                with_webp_chunks(plain, sides, 0x08, chunk), pixels
            )
    return kinds


def _gifs() -> dict[str, Kind]:
    frame = numbers(4)
    shown = palette(4)[frame]
    visible = np.where(frame[..., np.newaxis] == 2, WHITE, shown).astype(np.uint8)
    canvas = np.full((HEIGHT + 9, WIDTH + 8, 3), WHITE, np.uint8)
    canvas[5 : 5 + HEIGHT, 3 : 3 + WIDTH] = shown
    second = gif(numbers(3))[13 + 12 + 9 :][:-1]  # only the frame
    partial = {"canvas": canvas.shape[:2], "corner": (5, 3)}
    return {
        "gif": Kind(gif(frame), shown),
        "gif interlaced": Kind(gif(frame, interlaced=True), shown),
        "gif with colours of its frame": Kind(gif(frame, is_local=True), shown),
        "gif transparent": Kind(gif(frame, transparent=2), visible),
        "gif transparent, of its frame": Kind(
            gif(frame, transparent=2, is_local=True), visible
        ),
        "gif on a larger canvas": Kind(gif(frame, **partial), canvas),
        "gif beyond its canvas": Kind(gif(frame, canvas=(9, 9), corner=(0, 0)), shown),
        "gif animated": Kind(gif(frame, other_frames=second), shown),
        "gif animated on a larger canvas": Kind(
            gif(frame, other_frames=second, **partial), canvas
        ),
    }


def _bmps() -> dict[str, Kind]:
    pixels, size = photograph(), (WIDTH, HEIGHT)
    blue_first = [row[:, ::-1].tobytes() for row in pixels]
    kinds = {
        "bmp 24": Kind(bmp(blue_first, size, 24), pixels),
        "bmp 24 from the top": Kind(bmp(blue_first, size, 24, top_down=True), pixels),
    }
    for depth in (1, 4, 8):
        values, colours = numbers(1 << depth), palette(1 << depth)
        rows = packed(values, depth)
        for name, options in (("", {}), (" from the top", {"top_down": True})):
            data = bmp(rows, size, depth, colours=colours, **options)
            kinds[f"bmp palette {depth}{name}"] = Kind(data, colours[values])
        data = bmp(rows, size, depth, colours=colours, is_core=True)
        kinds[f"bmp of OS/2, palette {depth}"] = Kind(
            data, colours[values], in_exports=False
        )
    values, colours = numbers(256), palette(16)
    shown = np.where(values[..., np.newaxis] < 16, colours[values % 16], 0)
    kinds["bmp palette 8 with few colours"] = Kind(
        bmp(packed(values, 8), size, 8, colours=colours), shown.astype(np.uint8)
    )
    rest = np.full((HEIGHT, WIDTH, 1), 7, np.uint8)
    rows = [row.tobytes() for row in np.dstack([pixels[..., ::-1], rest])]
    kinds["bmp 32"] = Kind(bmp(rows, size, 32), pixels)
    alpha = (numbers(251) + 2).astype(np.uint8)
    rows = [row.tobytes() for row in np.dstack([pixels[..., ::-1], alpha])]
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    kinds["bmp 32 with alpha"] = Kind(
        bmp(rows, size, 32, masks=masks, compression=3), on_white(pixels, alpha)
    )
    deep = pixels.astype(np.uint16)
    for bits, masks in (
        ((5, 5, 5), ()),
        ((5, 6, 5), (0xF800, 0x07E0, 0x001F, 0)),
    ):
        red, green, blue = (deep[..., i] >> (8 - bit) for i, bit in enumerate(bits))
        values = red << bits[1] + bits[2] | green << bits[2] | blue
        shown = np.stack([red, green, blue], -1).astype(int) * 255
        shown = (shown // [(1 << bit) - 1 for bit in bits]).astype(np.uint8)
        rows = [row.tobytes() for row in values.astype("<u2")]
        data = bmp(rows, size, 16, masks=masks, compression=3 if masks else 0)
        kinds[f"bmp 16 of {''.join(map(str, bits))}"] = Kind(data, shown)
    runs = [bytes([WIDTH, row % 7, 0, 0]) for row in range(HEIGHT)]
    data = bmp(runs, size, 8, colours=palette(256), compression=1)
    striped = np.repeat(np.arange(HEIGHT)[:, np.newaxis] % 7, WIDTH, axis=1)
    kinds["bmp of run lengths"] = Kind(data, palette(256)[striped], in_exports=False)
    return kinds


def _others() -> dict[str, Kind]:
    pixels = photograph()
    image = PIL.Image.fromarray(pixels)
    alpha = (numbers(251) + 2).astype(np.uint8)
    layers = PIL.Image.fromarray(np.dstack([pixels, alpha]))
    deep = (numbers(1 << 16) * 20).astype(np.uint16)
    grey = np.repeat((deep >> 8)[..., np.newaxis], 3, axis=-1).astype(np.uint8)
    turned = PIL.Image.Exif()
    turned[0x0112] = 6
    files = {
        "tiff": (encoded(image, "TIFF"), pixels),
        "tiff lzw": (encoded(image, "TIFF", compression="tiff_lzw"), pixels),
        "tiff 16": (encoded(PIL.Image.fromarray(deep), "TIFF"), grey),
        "tiff alpha": (encoded(layers, "TIFF"), on_white(pixels, alpha)),
        "tiff turned": (
            encoded(stored_as(pixels, 6), "TIFF", exif=turned),
            pixels,
        ),
        "tiff pages": (
            encoded(image, "TIFF", save_all=True, append_images=[image.rotate(9)]),
            pixels,
        ),
        "jpeg 2000": (encoded(image, "JPEG2000"), pixels),
    }
    cmyk = encoded(image.convert("CMYK"), "TIFF")
    files["tiff cmyk"] = cmyk, shown_by_pillow(cmyk)
    avif = encoded(image, "AVIF")
    files["avif"] = avif, shown_by_pillow(avif)
    avif = encoded(stored_as(pixels, 6), "AVIF", exif=turned)
    files["avif turned"] = avif, shown_by_pillow(avif)
    return {name: Kind(*file, in_exports=False) for name, file in files.items()}
