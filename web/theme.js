// Light or dark: the system decides until the button is pressed. A classic script, so that it runs before first paint.
(() => {
  const KEY = "tensorcommons-theme";
  const system = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;

  function chosen() {
    try { return localStorage.getItem(KEY); } catch { return null; } // storage may be disabled
  }
  function choose(theme) {
    try {
      if (theme) localStorage.setItem(KEY, theme);
      else localStorage.removeItem(KEY);
    } catch { /* the choice lasts for this visit only */ }
  }
  const systemTheme = () => (system.matches ? "dark" : "light");

  function show(theme) {
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
    const dark = (theme ?? systemTheme()) === "dark";
    const button = document.getElementById("theme");
    if (button) button.textContent = dark ? "Use light theme" : "Use dark theme";
    dispatchEvent(new Event("themechange"));
  }

  show(chosen());
  system.addEventListener("change", () => show(root.dataset.theme ?? null));
  document.addEventListener("DOMContentLoaded", () => {
    show(root.dataset.theme ?? null);
    document.getElementById("theme").addEventListener("click", () => {
      const next = (root.dataset.theme ?? systemTheme()) === "dark" ? "light" : "dark";
      const theme = next === systemTheme() ? null : next; // back to following the system
      choose(theme);
      show(theme);
    });
  });
})();
