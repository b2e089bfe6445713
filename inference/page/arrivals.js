/** Photos that are dropped on the page or pasted into it. */

/**
 * @param {(file: File) => void} take gets the first file that comes
 * @param {(words: string) => void} complain is told where there is none
 */
export function listenForPhotos(take, complain) {
  const mark = (on) => document.body.classList.toggle("dropping", on);
  document.addEventListener("paste", (event) => {
    const file = [...event.clipboardData.files].find(({ type }) => type.startsWith("image/"));
    if (!file) return complain("There is no picture on the clipboard.");
    take(file.name === "image.png" ? new File([file], "pasted.png", { type: file.type }) : file);
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    mark(true);
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) mark(false);
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    mark(false);
    const [file] = event.dataTransfer.files;
    if (file) take(file);
    else complain("That was not a file; save the picture first, then drop it here.");
  });
}
