/** Pictures as files that the browser saves. */

import { encode } from "./photo.js";

/** Endings of the formats that can be written, by media type. */
export const ENDINGS = { "image/jpeg": "jpg", "image/png": "png", "image/webp": "webp" };

/** `photo_style.jpg`, or with two styles `photo_style_style.jpg`. */
export function fileName(photo, styles, type) {
  return `${[photo.name.replace(/\.[^.]+$/, ""), ...styles].join("_")}.${ENDINGS[type]}`;
}

/** Save an ImageData. */
export async function saveAs(name, picture, type) {
  const href = URL.createObjectURL(await encode(picture, type));
  Object.assign(document.createElement("a"), { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60_000);
}

/** What was saved, in words; `photo` if it was to have the photo's size. */
export function saved(name, picture, photo) {
  const size = `${picture.width} × ${picture.height}`;
  if (!photo || picture.width === photo.width) return `Saved ${name}, ${size}.`;
  return `Saved ${name} at ${size}, the largest that could be painted; the photo has ${photo.width} × ${photo.height}.`;
}
