/* Light and dark. Loaded before the page is drawn, so that it does not flash in the wrong colours. */
{
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
  const remembered = (() => {
    try {
      return localStorage.getItem("theme");
    } catch {
      return null; // no storage: the system's colours
    }
  })();
  if (remembered) root.dataset.theme = remembered;

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const show = () => button.setAttribute("aria-pressed", String(isDark()));
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      show();
      try {
        localStorage.setItem("theme", root.dataset.theme);
      } catch {
        // it lasts as long as the page
      }
    });
    dark.addEventListener("change", show);
    show();
  });
}
