// Under LANG=C Chromium reports the language "en-US@posix", which Intl refuses, and uPlot uses Intl as it loads.
try {
  new Intl.NumberFormat(navigator.language);
} catch {
  Object.defineProperty(navigator, "language", { value: "en-US", configurable: true });
}
