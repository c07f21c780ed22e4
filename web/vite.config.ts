import react from "@vitejs/plugin-react";
import { loadEnv } from "vite";
import { defineConfig } from "vitest/config";

// The development server stands in for the gateway, so its pages are the gateway's own: to any other origin the
// gateway answers 403 unless the organization registered it.
const gateway = (url: string) => ({ target: url, headers: { origin: new URL(url).origin } });

export default defineConfig(({ mode }) => ({
  // Relative addresses and hash routes: the gateway may mount the console anywhere.
  base: "./",
  plugins: [react()],
  build: {
    // The console runs under `default-src 'self'`, which forbids `data:` addresses and inline scripts.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: {
    proxy: { "/api": gateway(loadEnv(mode, ".", "SWITCHBOARD_")["SWITCHBOARD_URL"] ?? "http://127.0.0.1:8080") },
  },
  test: { environment: "node", include: ["src/**/*.test.ts"] },
}));
