"""The formats of picture files: those that are read, and what to do about the others.

A suffix only decides what a search of a folder takes. Whether a file is read is judged by content.
"""

import os
from collections.abc import Collection, Iterator
from typing import NamedTuple

FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".pjpeg", ".pjp"),
    "MPO": (".mpo",),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif", ".avifs"),
    "JPEG2000": (".jp2", ".j2k", ".jpc", ".j2c", ".jpf", ".jpx"),
}
"""The formats that are read, with their usual suffixes in lower case.

Pillow decodes each of them itself. It has decoders that start other programs (EPS), draw what a
file describes (WMF), or are hardly used (FITS, PSD): those stay shut.
"""

EXTENSIONS = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
"""All suffixes of pictures that are read, in lower case."""


class _OtherKind(NamedTuple):
    """Files that are no pictures to this software, though they may be to their owner."""

    suffixes: frozenset[str]
    remedy: str
    """With a place for the suffixes, or for the word it."""
    name: str = ""
    """What such a file is; empty if it is never told by content."""


def _suffixes(words: str) -> frozenset[str]:
    return frozenset(f".{word}" for word in words.split())


# The packages are those of Debian and Ubuntu; Homebrew has the same programs.
_HEIC = _OtherKind(
    _suffixes("heic heif hif heics heifs avci avcs"),
    "convert {} with heif-convert (package libheif-examples; on macOS: sips -s format jpeg)",
    "a HEIC picture",
)
_JPEG_XL = _OtherKind(
    _suffixes("jxl"), "convert {} with djxl (package libjxl-tools)", "a JPEG XL picture"
)
_JPEG_XR = _OtherKind(
    _suffixes("jxr wdp hdp"),
    "convert {} with JxrDecApp (package libjxr-tools)",
    "a JPEG XR picture",
)
_BPG = _OtherKind(
    _suffixes("bpg"), "convert {} with bpgdec (https://bellard.org/bpg)", "a BPG picture"
)
_RAW = _OtherKind(
    _suffixes(
        "3fr ari arw bay cr2 cr3 crw dcr dng erf fff gpr iiq k25 kdc mef mos mrw nef nrw orf ori "
        "pef raf raw rw2 rwl sr2 srf srw sti x3f"
    ),
    "develop {} with darktable-cli (package darktable)",
    "a camera raw file",
)
_OTHER_KINDS = (
    _HEIC,
    _JPEG_XL,
    _JPEG_XR,
    _BPG,
    _RAW,
    _OtherKind(_suffixes("jph jhc"), "convert {} with opj_decompress (package libopenjp2-tools)"),
    _OtherKind(
        _suffixes("rwz"),
        "unpack {} with rawzor, and develop that with darktable-cli (package darktable)",
    ),
    _OtherKind(
        _suffixes(
            "ai cin cur dds djvu dpx emf eps exr fit fits flif hdr icns ico jng jpm jpt miff mng "
            "pam pbm pcd pct pcx pdf pfm pgm pict pnm ppm ps psb psd qoi ras rgb sgi svg svgz tga "
            "wbmp wmf xbm xcf xpm xwd"
        ),
        "convert {} with magick (package imagemagick)",
    ),
    _OtherKind(
        _suffixes("3gp avi flv m2ts m4v mj2 mkv mov mp4 mpeg mpg mts webm wmv"),
        "take pictures out of {} with ffmpeg (package ffmpeg)",
    ),
    _OtherKind(_suffixes("7z bz2 gz lmdb parquet rar tar tfrecord tgz xz zip zst"), "unpack {}"),
    _OtherKind(frozenset({""}), "add a suffix such as .jpg to pictures that have none"),
)

# What stands for a file that a service keeps has its whole name, and a suffix behind. (OneDrive and
# Dropbox give no such names; the system downloads their files when they are read.)
_ICLOUD = _OtherKind(
    _suffixes("icloud"),
    "download {} first (in Finder: Download Now)",
    "a placeholder of iCloud or another property list of macOS",
)
_PLACEHOLDERS = (
    _ICLOUD,
    _OtherKind(
        # Nextcloud, ownCloud, odrive, Resilio Sync
        _suffixes("nextcloud owncloud cloud cloudf rsls"),
        "download {} first, with the program that synchronizes the folder",
    ),
)

# Of ISO media files: the word behind "ftyp" (the brand), at byte 8.
_BRANDS = {
    _HEIC: (
        *(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"),
        *(b"avci", b"avcs"),
    ),
    _RAW: (b"crx ",),
}
_BEGINNINGS = {
    _JPEG_XL: (b"\xff\x0a", b"\0\0\0\x0cJXL "),
    _JPEG_XR: (b"II\xbc\x01", b"II\xbc\x00"),
    _BPG: (b"BPG\xfb",),
    _ICLOUD: (b"bplist00",),
    _RAW: (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"\0MRM", b"FOVb"),
}


def suffix_of(name: str) -> str:
    """The suffix of a file name in lower case, with its dot; empty if there is none."""
    return os.path.splitext(name)[1].lower()


def is_known_suffix(suffix: str) -> bool:
    """Whether a suffix (lower case, with its dot) is that of a picture, a video or an archive."""
    return suffix in EXTENSIONS or any(suffix in kind.suffixes for kind in _OTHER_KINDS)


def is_placeholder(name: str) -> bool:
    """Whether a name is that of a picture, video or archive that is not downloaded."""
    name, suffix = os.path.splitext(name)
    own = suffix_of(name)
    return any(suffix.lower() in kind.suffixes for kind in _PLACEHOLDERS) and (
        own != "" and is_known_suffix(own)
    )


SUFFIXES_OF_RULES_3 = _suffixes(
    "ari avci avcs bay bpg cin djvu dpx flif gpr hdp jhc jng jph jpm jpt jxr k25 miff mj2 mng ori "
    "pcd pct pict rwz sti wbmp wdp xwd"
)
"""Known suffixes that by earlier `scanning.RULES` are not known, but may be the name of a model."""


def remedies_for(suffixes: Collection[str]) -> Iterator[str]:
    """What makes pictures of files with these suffixes: a line for each kind that is known."""
    for kind in (*_OTHER_KINDS, *_PLACEHOLDERS):
        if found := [suffix for suffix in suffixes if suffix in kind.suffixes]:
            yield kind.remedy.format(" ".join(sorted(found)))


def known_by(start: bytes) -> str | None:
    """What a file that no decoder accepts is, by its first bytes, and the remedy; None if unknown.

    Args:
        start: at least the first 16 bytes.
    """
    for kind, beginnings in _BEGINNINGS.items():
        if start.startswith(beginnings):
            return _described(kind)
    for kind, brands in _BRANDS.items():
        if start[4:8] == b"ftyp" and start[8:12] in brands:
            return _described(kind)
    return None


def _described(kind: _OtherKind) -> str:
    return f"{kind.name}; {kind.remedy.format('it')}"


RAW_PHOTO = _described(_RAW)
"""What is told of a file with the values of a camera's sensor."""
