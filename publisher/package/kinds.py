"""What a file from elsewhere is, told by its bytes: by its name alone, weights called ``notes.txt`` would pass.

Text holds no weights, nor does an image, a film or a log of the type that its name says. Everything else may.
Nothing is unpickled, unpacked or run.
"""

from __future__ import annotations

import codecs
import pickletools
import re
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from publisher.api.header import POINTER, PULL
from publisher.package.layout import suffix

_FILM = re.compile(rb".{4}ftyp", re.DOTALL)
_RIFF = re.compile(rb"RIFF.{4}(?:WEBP|WAVE|AVI )", re.DOTALL)
_JPEG, _TIFF, _MATROSKA = re.compile(rb"\xff\xd8\xff"), re.compile(rb"II\*\0|MM\0\*"), re.compile(rb"\x1a\x45\xdf\xa3")
MEDIA = {
    "png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "gif": re.compile(rb"GIF8[79]a"),
    "bmp": re.compile(rb"BM"),
    "jpg": _JPEG,
    "jpeg": _JPEG,
    "jfif": _JPEG,
    "tif": _TIFF,
    "tiff": _TIFF,
    "webp": _RIFF,
    "wav": _RIFF,
    "avi": _RIFF,
    "avif": _FILM,
    "heic": _FILM,
    "mp4": _FILM,
    "m4v": _FILM,
    "mov": _FILM,
    "webm": _MATROSKA,
    "mkv": _MATROSKA,
    "mp3": re.compile(rb"ID3|\xff[\xe2-\xfb]"),
    "flac": re.compile(rb"fLaC"),
    "ogg": re.compile(rb"OggS"),
    "pdf": re.compile(rb"%PDF-"),
    "parquet": re.compile(rb"PAR1"),
    "arrow": re.compile(rb"ARROW1|\xff{4}"),
    "ds_store": re.compile(rb"\0\0\0\x01Bud1"),
    "wandb": re.compile(rb":W&B"),
}
"""Type -> how such a file begins: pictures, films, sounds, documents, data sets and what tools leave beside them."""
HOLDERS = {
    "a pickle": re.compile(rb"\x80[\x02-\x05]"),
    "a zip archive, as torch writes pickles": re.compile(rb"PK\x03\x04"),
    "a GGUF file": re.compile(rb"GGUF(?:[\x01-\x09]\0\0\0|\0\0\0[\x01-\x09])"),
    "an HDF5 file": re.compile(rb"\x89HDF\r\n"),
    "a numpy array": re.compile(rb"\x93NUMPY"),
    "a TensorFlow Lite file": re.compile(rb".{4}TFL3", re.DOTALL),
    "a compressed file": re.compile(rb"\x1f\x8b|BZh[1-9]1AY&SY|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf"),
}
"""What holds weights or may -> how it begins."""
GGUF = "a GGUF file"
_CONTROL = bytes(set(range(32)) - set(b"\t\n\v\f\r\b\x1b")) + b"\x7f"
_CHUNK = 1 << 20
_RECORD = struct.Struct("<QI")
_WALL_TIME = b"\x09"
"""First byte of each event of TensorBoard: the key of its time."""
_OPS, _MANY_OPS, _PICKLE_BYTES = 2000, 500_000, 16 << 20
_OF_TORCH = re.compile(
    r"[^/]+/(?:data\.pkl|data/\d+|version|byteorder|\.format_version|\.storage_alignment|\.data/serialization_id)"
)
_NAMES_A_LAYER = re.compile(r"(?:^|[._])(?:weight|bias)$|lora|hada_|lokr_|alpha$")


def problem(path: str, file: Path) -> str:
    """Return why a file may hold weights, or an empty text.

    Args:
        path: what it is called in the upload.
        file: where it lies.
    """
    with file.open("rb") as stream:
        head = stream.read(64)
        if head.startswith(POINTER) and suffix(path) not in MEDIA:
            return f"is a Git LFS pointer in place of the file: {PULL}"
        kind = next((name for name, begins in HOLDERS.items() if begins.match(head)), "")
        if not kind:
            if _is_harmless(path, stream, head):
                return ""
            kind = f"data of the type .{suffix(path)}" if suffix(path) else "data of no type"
    return f"is {kind}; it may hold weights or code, and was not opened"


def is_gguf(file: Path) -> bool:
    """Return whether a file begins as GGUF does: weights in packed numbers."""
    with file.open("rb") as stream:
        return HOLDERS[GGUF].match(stream.read(64)) is not None


def _is_harmless(path: str, stream: BinaryIO, head: bytes) -> bool:
    if suffix(path) in MEDIA and MEDIA[suffix(path)].match(head):
        return True
    if _is_text(stream, head):
        return not _is_text_pickle(stream)
    log = ".tfevents." in path.rpartition("/")[2] and _is_event_log(stream)
    return log or (suffix(path) == "model" and _is_sentencepiece(stream))


def _is_text(stream: BinaryIO, head: bytes) -> bool:
    """Tell text of any code page, with the escapes of a terminal, from data: those have other control characters."""
    wide = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    decoder = codecs.getincrementaldecoder("utf-16")()
    stream.seek(0)
    while chunk := stream.read(_CHUNK):
        try:
            data = decoder.decode(chunk).encode() if wide else chunk
        except UnicodeError:
            return False
        if len(data.translate(None, _CONTROL)) < len(data):
            return False
    return True


def _is_text_pickle(stream: BinaryIO) -> bool:
    """Tell a pickle of protocol 0, which is text: others end their lines in no opcodes."""
    stream.seek(0)
    count = 0
    try:
        for _ in pickletools.genops(stream):
            count += 1
            if count == _OPS:
                return True
    except ValueError:
        return False
    return count > 2 and not stream.read(1)


def _is_sentencepiece(stream: BinaryIO) -> bool:
    """Tell a tokenizer's model: a protobuf message of pieces (1), and at most four more messages (2 to 5)."""
    stream.seek(0)
    pieces, position = 0, 0
    while key := stream.read(1):
        if key[0] not in (0x0A, 0x12, 0x1A, 0x22, 0x2A):
            return False
        length = _varint(stream)
        if key[0] == 0x0A and (length > _CHUNK or not stream.read(length).startswith(b"\x0a")):
            return False
        if key[0] != 0x0A:
            stream.seek(length, 1)
        pieces += key[0] == 0x0A
        position = stream.tell()
    return pieces > 0 and position == stream.seek(0, 2)


def _varint(stream: BinaryIO) -> int:
    value = shift = 0
    while (byte := stream.read(1)) and shift < 64:
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            break
        shift += 7
    return value


def _is_event_log(stream: BinaryIO) -> bool:
    """Tell a log of TensorBoard: records of length, checksum, event, checksum. The last one may be cut off."""
    end, position = stream.seek(0, 2), 0
    while position + _RECORD.size < end:
        stream.seek(position)
        length, _ = _RECORD.unpack(stream.read(_RECORD.size))
        if stream.read(1) != _WALL_TIME:
            return False
        position += _RECORD.size + length + 4
    return True


def is_training_state(file: Path) -> bool:
    """Tell the state of an optimizer or the like: a pickle whose texts name no layer holds no weights by name.

    Args:
        file: it is not unpickled; its opcodes are read.
    """
    try:
        return not any(_NAMES_A_LAYER.search(text) for text in _texts(file))
    except (ValueError, OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError):
        return False  # another kind of file, or none that can be read


def _texts(file: Path) -> Iterator[str]:
    """Yield all texts in a pickle, or in that of an archive of torch."""
    if not zipfile.is_zipfile(file):
        with file.open("rb") as stream:
            yield from _pickled(stream)
            if stream.read(1):
                raise ValueError("something follows the pickle")
        return
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            if not _OF_TORCH.fullmatch(entry.filename):
                raise ValueError(f"{entry.filename!r} is no part of what torch saves")
            if entry.filename.endswith("/data.pkl"):
                if entry.file_size > _PICKLE_BYTES:
                    raise ValueError("the pickle is too large")
                with archive.open(entry) as stream:
                    yield from _pickled(stream)  # type: ignore[arg-type]  # reads as a file does


def _pickled(stream: BinaryIO) -> Iterator[str]:
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if count > _MANY_OPS:
            raise ValueError("the pickle is too long")
        if isinstance(argument, str) and "GLOBAL" not in opcode.name:
            yield argument
