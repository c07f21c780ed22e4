/** Finds the Chromium that is installed on this machine and starts it without any traffic of its own. */

import { accessSync, constants, statSync } from "node:fs";
import path from "node:path";
import { chromium } from "playwright-core";

const NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge"];
const MAC_PLACES = ["/Applications/Chromium.app/Contents/MacOS/Chromium", "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"];

/** The browser's path, or null. CHROMIUM wins, and is not replaced by another browser when it is wrong. */
export function findChromium(environment = process.env) {
  const folders = (environment.PATH ?? "").split(path.delimiter).filter(Boolean);
  const onPath = (name) => folders.map((folder) => path.join(folder, name));
  const named = environment.CHROMIUM;
  if (named) return (named.includes(path.sep) ? [named] : onPath(named)).find(isExecutable) ?? null;
  return [...NAMES.flatMap(onPath), ...MAC_PLACES].find(isExecutable) ?? null;
}

/** A headless browser with an empty profile. */
export function launch(executablePath) {
  return chromium.launch({
    executablePath,
    headless: true,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      "--no-first-run",
    ],
  });
}

function isExecutable(file) {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}
