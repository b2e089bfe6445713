/** Photos: out of files, at any size, and into files. */

/** Pixels a side that the network needs. */
export const MIN_SIDE = 16;

/** A photo, upright, in sRGB. */
export class Photo {
  /**
   * @param {CanvasImageSource & {width: number, height: number}} bitmap
   * @param {{name: string, file?: Blob, caption?: string}} about `file` is what the visitor chose
   */
  constructor(bitmap, { name, file, caption }) {
    this.bitmap = bitmap;
    this.width = bitmap.width;
    this.height = bitmap.height;
    this.name = name;
    this.file = file;
    this.caption = caption ?? name;
    this.transparent = ["image/png", "image/webp", "image/gif"].includes(file?.type) && hasAlpha(this.fitted(256));
  }

  /** The size with at most `pixels` pixels, in proportion, and never under MIN_SIDE. */
  sizeWithin(pixels) {
    const scale = Math.min(1, Math.sqrt(pixels / (this.width * this.height)));
    const least = MIN_SIDE / Math.min(this.width, this.height);
    const used = Math.max(scale, least);
    return [Math.round(this.width * used), Math.round(this.height * used)];
  }

  /** The size with a longer side of at most `side`. */
  sizeFitted(side) {
    const scale = side / Math.max(this.width, this.height);
    return scale >= 1 ? [this.width, this.height] : this.sizeWithin(this.width * this.height * scale * scale);
  }

  fitted(side) {
    return this.pixels(...this.sizeFitted(side));
  }

  /** ImageData of the whole photo; what is transparent lies on white, and its alpha is kept. */
  pixels(width = this.width, height = this.height) {
    return read(this.bitmap, [0, 0, this.width, this.height], width, height, this.transparent);
  }

  /** ImageData of the square in the middle. */
  square(side) {
    const edge = Math.min(this.width, this.height);
    const crop = [(this.width - edge) / 2, (this.height - edge) / 2, edge, edge];
    return read(this.bitmap, crop, side, side, this.transparent);
  }
}

/** Read a file. Throws an Error that says in a line what is wrong with it. */
export async function readPhoto(file, name = file.name || "photo") {
  if (file.size === 0) throw new Error(`${name} is empty`);
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    throw new Error(`${name} is not a picture that this browser can read; JPEG, PNG and WebP work`);
  }
  const { width, height } = bitmap;
  if (Math.min(width, height) < MIN_SIDE) {
    throw new Error(`${name} has ${width} × ${height} pixels; at least ${MIN_SIDE} a side are needed`);
  }
  return new Photo(bitmap, { name, file });
}

export async function decode(blob) {
  const bitmap = await createImageBitmap(blob);
  return read(bitmap, [0, 0, bitmap.width, bitmap.height], bitmap.width, bitmap.height, false);
}

/** ImageData as a file, with alpha only where it is used; JPEG lays it on white. Throws for a format it cannot write. */
export async function encode(picture, type, quality = 0.92) {
  const canvas = document.createElement("canvas");
  canvas.width = picture.width;
  canvas.height = picture.height;
  const context = canvas.getContext("2d", { alpha: hasAlpha(picture) });
  context.putImageData(picture, 0, 0);
  if (type === "image/jpeg") {
    context.globalCompositeOperation = "destination-over";
    context.fillStyle = "white";
    context.fillRect(0, 0, canvas.width, canvas.height);
  }
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, type, quality));
  canvas.width = canvas.height = 0;
  if (!blob || blob.type !== type) throw new Error(`this browser cannot write ${type.slice(6).toUpperCase()}`);
  return blob;
}

function read(source, [x, y, w, h], width, height, transparent) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new Error(`this browser cannot hold ${width} × ${height} pixels`);
  context.imageSmoothingQuality = "high";
  context.drawImage(source, x, y, w, h, 0, 0, width, height);
  if (!transparent) return context.getImageData(0, 0, width, height);
  const alpha = context.getImageData(0, 0, width, height);
  context.globalCompositeOperation = "destination-over";
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  const picture = context.getImageData(0, 0, width, height);
  for (let at = 3; at < picture.data.length; at += 4) picture.data[at] = alpha.data[at];
  return picture;
}

function hasAlpha(picture) {
  for (let at = 3; at < picture.data.length; at += 4) if (picture.data[at] < 255) return true;
  return false;
}
