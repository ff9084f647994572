// Under LANG=C Chromium calls its language "en-US@posix", which Intl refuses, and uPlot asks Intl as it loads.
try {
  new Intl.NumberFormat(navigator.language);
} catch {
  Object.defineProperty(navigator, "language", { value: "en-US", configurable: true });
}
