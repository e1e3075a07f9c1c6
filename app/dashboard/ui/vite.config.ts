import { fileURLToPath } from "node:url";

import react from "@vitejs/plugin-react";
import { compression } from "vite-plugin-compression2";
import { defineConfig } from "vitest/config";

export default defineConfig({
  base: "/scheduler/",
  // Compressed once, here, and not at every request.
  plugins: [react(), compression({ include: /\.(js|css|svg)$/, threshold: 1000, algorithms: ["gzip", "brotliCompress"] })],
  resolve: {
    // Named by a test helper inside @rjsf/core; ours needs no `eval`, which the Content-Security-Policy forbids.
    alias: { "@rjsf/validator-ajv8": fileURLToPath(new URL("src/components/validator.ts", import.meta.url)) },
  },
  build: {
    outDir: "../static",
    emptyOutDir: true,
    target: "es2022",
    chunkSizeWarningLimit: 400,
    rolldownOptions: { input: ["index.html", "docs.html"] },
  },
  server: { proxy: { "/api": "http://127.0.0.1:8000" } },
  test: {
    environment: "jsdom",
    setupFiles: ["src/test/setup.ts"],
    css: false,
    server: { deps: { inline: [/@rjsf/] } }, // or the alias above does not reach it
  },
});
