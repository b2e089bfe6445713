"""What a photo's EXIF block says about orientation, and the part of it that is true of a repainted copy."""

from __future__ import annotations

from PIL import ExifTags, Image

_Turn = Image.Transpose
_TURNS = {
    2: _Turn.FLIP_LEFT_RIGHT,
    3: _Turn.ROTATE_180,
    4: _Turn.FLIP_TOP_BOTTOM,
    5: _Turn.TRANSPOSE,
    6: _Turn.ROTATE_270,
    7: _Turn.TRANSVERSE,
    8: _Turn.ROTATE_90,
}
# TIFF keeps the layout of its pixels in the same directory as a photo's EXIF; in another file it would be wrong.
_LAYOUT_TAGS = {*range(254, 270), 273, *range(277, 282), 284, *range(317, 348), *range(512, 533)}
_LAYOUT_TAGS |= {700, 33723, 34377, 34675}  # XMP, IPTC, Photoshop's settings, ICC


def upright(image: Image.Image) -> tuple[Image.Image, bytes | None]:
    """The image turned the right way up, and its EXIF block that says so (None: it has none, or a damaged one)."""
    turned, exif = orientation(image)
    turn = _TURNS.get(turned)
    return (image if turn is None else image.transpose(turn)), exif


def orientation(image: Image.Image) -> tuple[int, bytes | None]:
    """How the image is turned, EXIF's 1 (upright) to 8, and its EXIF block as of `upright`."""
    try:
        exif = image.getexif()
        turned = exif.get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF is no reason to refuse a picture
        return 1, None
    return (turned if turned in _TURNS else 1), _upright_block(exif)


def _upright_block(exif: Image.Exif) -> bytes | None:
    if not exif:
        return None
    kept = Image.Exif()
    try:
        kept.load(exif.tobytes())
        for tag in _LAYOUT_TAGS & set(kept):
            del kept[tag]
        kept[ExifTags.Base.Orientation] = 1
        return kept.tobytes()
    except Exception:
        return None
