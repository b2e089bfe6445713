"""Colour profiles (ICC): into sRGB for the networks, and back into the file's own profile."""

from __future__ import annotations

import io

from PIL import Image, ImageCms

_MODES = {"RGB": "RGB", "CMYK": "CMYK", "GRAY": "L"}
_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
_BROKEN = (ImageCms.PyCMSError, OSError, ValueError, TypeError)


def to_srgb(image: Image.Image, icc_profile: bytes | None) -> tuple[Image.Image, bytes | None]:
    """A picture in sRGB, and the profile to convert it back to.

    Args:
        image: mode RGB, L or CMYK, 8 bits.
        icc_profile: the profile found in the file; one that is broken or not of the picture's mode is not used.

    Returns:
        The picture in mode RGB, sRGB; and ``icc_profile`` if `from_srgb` can convert to it, which only an RGB profile
        with an output side allows, else None: then the picture is to be written as sRGB, without a profile.
    """
    if not icc_profile:
        return image.convert("RGB"), None
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))
        mode = _MODES.get(profile.profile.xcolor_space.strip())
        if mode != image.mode:
            return image.convert("RGB"), None
        converted = _convert(image, profile, srgb)
    except _BROKEN:
        return image.convert("RGB"), None
    try:
        _convert(Image.new("RGB", (1, 1)), srgb, profile)
    except _BROKEN:
        return converted, None
    return converted, icc_profile


def from_srgb(image: Image.Image, icc_profile: bytes) -> Image.Image:
    """A picture (mode RGB) from sRGB into a profile that `to_srgb` returned."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    return _convert(image, srgb, ImageCms.ImageCmsProfile(io.BytesIO(icc_profile)))


def _convert(image: Image.Image, source: ImageCms.ImageCmsProfile, target: ImageCms.ImageCmsProfile) -> Image.Image:
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
    return ImageCms.ImageCmsTransform(source, target, image.mode, "RGB", _INTENT, flags=flags).apply(image)
