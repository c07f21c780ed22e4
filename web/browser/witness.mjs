/** What the browser test asserts with, and what it notices beside the steps it takes. */

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

let secrets = [];

/** Keeps these out of what is printed: the driver's errors quote what was typed. */
export function hide(...values) {
  secrets = values;
}

/** A step failed, and `check` has said so. */
export class StepFailed extends Error {}

/** Runs one step and says how it went. A failed step ends the test, because the steps build on each other. */
export async function check(sentence, step) {
  const began = performance.now();
  try {
    await step();
    console.log(`ok      ${sentence} (${Math.round(performance.now() - began)} ms)`);
  } catch (error) {
    const message = secrets.reduce((text, secret) => text.replaceAll(secret, "(a token)"), error.message);
    console.error(`FAILED  ${sentence}\n        ${message.replaceAll("\n", "\n        ")}`);
    throw new StepFailed(sentence);
  }
}

export function must(condition, what) {
  if (!condition) throw new Error(`expected: ${what}`);
}

/** Listens to the page from its first request on. */
export function watch(page, origin) {
  const faults = [];
  const sent = new Map();
  page.on("pageerror", (error) => faults.push(`uncaught: ${error.message}`));
  page.on("console", (message) => {
    // Chromium logs every answer of 400 and above; those the steps look at themselves.
    if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) faults.push(message.text());
  });
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== origin) faults.push(`a request to ${request.url()}`);
    sent.set(request.method(), (sent.get(request.method()) ?? 0) + 1);
  });
  return {
    /** How many requests of this method were sent so far. */
    sent: (method) => sent.get(method) ?? 0,
    clean: () => must(faults.length === 0, `a quiet console, but: ${faults.join("; ")}`),
  };
}

/** Violations of WCAG 2.2 level A and AA, one line each. Evaluated by the debugger, so the page's policy stays as it is. */
export async function accessibilityFaults(page) {
  await page.evaluate(axe);
  const violations = await page.evaluate(async () => {
    const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"];
    return (await globalThis.axe.run(document, { runOnly: { type: "tag", values: tags } })).violations;
  });
  return violations.map(({ id, nodes }) => `${id} at ${nodes.map(({ target }) => target.join(" ")).join(", ")}`);
}
