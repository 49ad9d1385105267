/* The theme of every page: the system's, or one's own. A plain script in the head, so that no page flashes. */
(() => {
  const NEXT = { auto: "dark", dark: "light", light: "auto" };
  const root = document.documentElement;
  let theme = "auto";
  try {
    theme = localStorage.getItem("tuneful.theme") ?? theme;
  } catch {
    // A browser that keeps nothing has the system's theme.
  }
  if (!(theme in NEXT)) theme = "auto";
  root.dataset.theme = theme;

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.querySelector("[data-theme-switch]");
    const show = () => (button.textContent = `Theme: ${theme}`);
    button.hidden = false;
    show();
    button.addEventListener("click", () => {
      theme = root.dataset.theme = NEXT[theme];
      show();
      try {
        localStorage.setItem("tuneful.theme", theme);
      } catch {
        // It holds for this page.
      }
    });
  });
})();
