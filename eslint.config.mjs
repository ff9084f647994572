// The JavaScript of the page, of the package's bridge and of the tools. Set-up puts ESLint into .cache/npm, so its
// parts are looked up there.
import { createRequire } from "node:module";

const require = createRequire(new URL(".cache/npm/package.json", import.meta.url));
const js = require("@eslint/js");
const globals = require("globals");

export default [
  { ignores: [".cache/", "dist/", "**/vendor/", "node_modules/"] },
  js.configs.recommended,
  {
    languageOptions: { ecmaVersion: 2024, sourceType: "module" },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      "curly": ["error", "multi-line"],
      "eqeqeq": ["error", "always", { null: "ignore" }], // `== null` is the idiom for null or undefined
      "no-eval": "error", // the page's CSP forbids what these three forbid
      "no-implied-eval": "error",
      "no-new-func": "error",
      "no-shadow": "error",
      "no-unused-vars": ["error", { argsIgnorePattern: "^_", caughtErrorsIgnorePattern: "^_" }],
      "no-var": "error",
      "object-shorthand": "error",
      "prefer-const": "error",
    },
  },
  {
    files: ["web/**/*.{js,mjs}"],
    languageOptions: { globals: { ...globals.browser, ...globals.worker } },
  },
  {
    files: ["web/service-worker.js"],
    languageOptions: { globals: { ...globals.serviceworker, SITE: "readonly" } },
  },
  {
    // Runs in a page, in a worker and in Node.
    files: ["pyodide_pkg/**/*.{js,mjs}"],
    languageOptions: { globals: { ...globals["shared-node-browser"], ...globals.worker, GPUBufferUsage: "readonly", GPUMapMode: "readonly", GPUShaderStage: "readonly", MLGraphBuilder: "readonly" } },
  },
  {
    files: ["e2e/**/*.{js,mjs}"],
    languageOptions: { globals: { ...globals.browser, ...globals.node } },
  },
  {
    files: ["*.mjs", "scripts/**/*.mjs", "bench/**/*.{js,mjs}"],
    languageOptions: { globals: globals.node },
  },
  {
    files: ["bench/{session,peers/*}.mjs"], // runs in a page and in Node
    languageOptions: { globals: { GPUAdapter: "readonly", GPUBufferUsage: "readonly", GPUMapMode: "readonly" } },
  },
];
