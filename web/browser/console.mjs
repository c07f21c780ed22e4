/**
 * The console in a real browser against a real gateway, as a person would use it.
 *
 * From the environment: SWITCHBOARD_URL, ACME_USER_TOKEN, ACME_ADMIN_TOKEN; CHROMIUM (the browser's path, if it is not
 * on the PATH under a usual name); SCREENSHOTS (a folder to save pictures to).
 * Exit code: 0 passed, 1 failed, 2 the environment is incomplete, 3 there is no browser (the caller decides).
 */

import { mkdir } from "node:fs/promises";
import path from "node:path";
import { findChromium, launch } from "./chromium.mjs";
import { accessibilityFaults, check, hide, must, StepFailed, watch } from "./witness.mjs";

/** Ceiling for whatever a step waits for; nothing sleeps. */
const PATIENCE_MS = 20_000;

const missing = ["SWITCHBOARD_URL", "ACME_USER_TOKEN", "ACME_ADMIN_TOKEN"].filter((name) => !process.env[name]);
if (missing.length > 0) {
  console.error(`The browser test needs ${missing.join(", ")} in the environment: start the stack and load .dev/env.`);
  process.exit(2);
}
const executable = findChromium();
if (executable === null) {
  console.error("There is no Chromium here: install the package chromium, or name a browser in CHROMIUM.");
  process.exit(3);
}

const url = process.env.SWITCHBOARD_URL;
const user = process.env.ACME_USER_TOKEN;
const admin = process.env.ACME_ADMIN_TOKEN;
const folder = process.env.SCREENSHOTS;
if (folder) await mkdir(folder, { recursive: true });

hide(user, admin);
const browser = await launch(executable);
let page = null;
try {
  const context = await browser.newContext({ colorScheme: "light", viewport: { width: 1200, height: 820 } });
  context.setDefaultTimeout(PATIENCE_MS);
  page = await context.newPage();
  const witness = watch(page, new URL(url).origin);

  await check("a wrong token is refused with a sentence and what to do", () => wrongToken(page));
  await check("a person signs in and sees who they are", () => signIn(page, user, "user"));
  await check("the token is kept in this tab only", () => tokenStaysInTheTab(page, user));
  await check("the configuration demo is listed", () => seesDemo(page));
  await check("the tool echo answers with the text it was given", () => callsEcho(page));
  await check("a missing argument is named before anything is sent", () => missingArgument(page, witness));
  await check("a tool that says no is shown as the tool's own error", () => callsFail(page));
  await check("a reload keeps the visit and the page", () => reload(page));
  await check("the console can be used by keyboard alone", () => keyboard(page));
  await check("signing out forgets the token", () => signOut(page));
  await check("a token that stopped being good leads back to signing in", () => staleToken(page));
  await check("an admin registers a configuration and removes it again", () => registersAndRemoves(page, witness));
  await check("nothing broke the content security policy or left for another origin", () => witness.clean());
} catch (error) {
  process.exitCode = 1;
  if (!(error instanceof StepFailed)) console.error(error);
  if (folder) await page?.screenshot({ path: path.join(folder, "failed.png") });
} finally {
  await browser.close();
}

async function wrongToken(page) {
  await page.goto(url);
  await submitToken(page, "wrong.token.entirely");
  const alert = page.getByRole("alert");
  await alert.waitFor();
  must((await alert.textContent()).includes("Sign in with a current access token."), "the refusal says what to do");
  must(/Request \S+/.test(await alert.textContent()), "the refusal names the request id");
  must((await stored(page)).session === "{}", "a refused token is not kept");
  await look(page, "wrong-token");
}

async function signIn(page, token, role) {
  await page.goto(url);
  await submitToken(page, token);
  const identity = page.getByLabel("Signed in as");
  await identity.waitFor();
  const text = await identity.innerText();
  for (const part of ["Organization", "Subject", role]) must(text.includes(part), `the header shows ${part}`);
}

async function tokenStaysInTheTab(page, token) {
  const { session, local, cookie } = await stored(page);
  must(session.includes(token), "the token is in sessionStorage");
  must(local === "{}" && cookie === "", "nothing is in localStorage or in a cookie");
  must(!page.url().includes(token), "the token is not in the address");
  must(!(await page.content()).includes(token), "the token is not in the page");
}

async function seesDemo(page) {
  await listed(page, "demo");
  await look(page, "configurations");
}

async function callsEcho(page) {
  await openTool(page, "demo", "echo");
  const said = "Number please? 电话 ☎ <b>not bold</b>";
  await page.getByLabel(/^text/i).fill(said);
  await call(page);
  const result = page.getByRole("region", { name: "The tool answered" });
  await result.waitFor();
  must((await result.locator("pre.text").first().textContent()).includes(said), "the text comes back as it was typed");
  must(await result.getByRole("table", { name: "Timings" }).isVisible(), "the timings are shown");
  await look(page, "echo");
}

async function missingArgument(page, witness) {
  const before = witness.sent("POST");
  await page.getByLabel(/^text/i).fill("");
  await call(page);
  await page.getByText("This tool needs a value here.").waitFor();
  must(await page.getByLabel(/^text/i).evaluate((input) => input === document.activeElement), "the faulty input has the focus");
  must(witness.sent("POST") === before, "nothing was sent");
}

async function callsFail(page) {
  await openTool(page, "demo", "fail");
  const message = page.getByLabel(/^message/i);
  if (await message.count()) await message.fill("out of order");
  await call(page);
  await page.getByRole("region", { name: "The tool ran and reported an error" }).waitFor();
  await look(page, "fail");
}

async function reload(page) {
  await page.reload();
  await page.getByRole("heading", { name: /^fail$/i }).waitFor();
  must(await page.getByLabel("Signed in as").isVisible(), "the visit goes on");
}

async function keyboard(page) {
  await page.getByRole("link", { name: "Switchboard" }).focus();
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Configurations", exact: true }).waitFor();
  await tabTo(page, "demo");
  await page.keyboard.press("Enter");
  await tabTo(page, /^echo/);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: /^echo$/i }).waitFor();
  await tabTo(page, /^text/i);
  await page.keyboard.type("by keyboard");
  await page.keyboard.press("Control+Enter");
  await page.getByRole("region", { name: "The tool answered" }).getByText("by keyboard").first().waitFor();
}

async function signOut(page) {
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByLabel("Access token").waitFor();
  must((await stored(page)).session === "{}", "sessionStorage is empty");
  await page.reload();
  await page.getByLabel("Access token").waitFor();
}

async function staleToken(page) {
  await signIn(page, user, "user");
  await page.evaluate(() => sessionStorage.setItem(Object.keys(sessionStorage)[0], "wrong.token.entirely"));
  await page.reload();
  await page.getByRole("alert").waitFor();
  must(await page.getByLabel("Access token").isVisible(), "the sign-in form is shown");
  must((await stored(page)).session === "{}", "the bad token is forgotten");
}

async function registersAndRemoves(page, witness) {
  await signIn(page, admin, "admin");
  await listed(page, "demo");
  const demo = page.getByRole("listitem").filter({ has: page.getByRole("link", { name: "demo", exact: true }) });
  const endpoint = await demo.locator(".endpoint").innerText();
  const name = `console-${process.pid}-${Date.now().toString(36)}`;

  await page.getByRole("button", { name: "Register a server" }).click();
  await page.getByRole("button", { name: "Register", exact: true }).click();
  await page.getByText("Give it a name.").waitFor();
  await page.getByLabel("Name", { exact: true }).fill(name);
  must((await page.getByText("Give it a name.").count()) === 0, "a corrected fault is no longer shown");
  await page.getByLabel("Endpoint", { exact: true }).fill(endpoint);
  await page.getByLabel("Authentication").selectOption("bearer");
  await page.getByLabel("Bearer token", { exact: true }).fill("a-secret-of-the-browser-test");
  await look(page, "register");
  await page.getByRole("button", { name: "Register", exact: true }).click();
  await page.getByText(`“${name}” is registered.`).waitFor();
  await listed(page, name);
  must(!(await page.content()).includes("a-secret-of-the-browser-test"), "the server's token is never shown again");

  await page.getByRole("button", { name: `Remove ${name}` }).click();
  const dialog = page.getByRole("dialog");
  await dialog.waitFor();
  await look(page, "remove");
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "detached" });
  must(witness.sent("DELETE") === 0, "Escape removes nothing");
  await page.getByRole("button", { name: `Remove ${name}` }).click();
  await dialog.getByRole("button", { name: "Remove", exact: true }).click();
  await page.getByText(`“${name}” is removed.`).waitFor();
  await page.getByRole("link", { name, exact: true }).waitFor({ state: "detached" });
}

async function submitToken(page, token) {
  await page.getByLabel("Access token").fill(token);
  await page.getByRole("button", { name: "Sign in" }).click();
}

/** The configuration's link, wherever in the list it is: pages of the list are fetched until it appears. */
async function listed(page, name) {
  const link = page.getByRole("link", { name, exact: true });
  const more = page.getByRole("button", { name: "Show more" });
  await link.or(more).first().waitFor();
  while ((await link.count()) === 0) {
    must((await more.count()) > 0, `the configuration ${name} is in the list`);
    const shown = await page.getByRole("listitem").count();
    await more.click();
    await page.getByRole("listitem").nth(shown).waitFor();
  }
  return link;
}

async function openTool(page, configuration, tool) {
  await page.getByRole("link", { name: "Switchboard" }).click();
  await (await listed(page, configuration)).click();
  await page.getByRole("navigation", { name: "Tools" }).locator(".tool-name", { hasText: new RegExp(`^${tool}$`) }).click();
  await page.getByRole("heading", { name: new RegExp(`^${tool}$`, "i") }).waitFor();
}

async function call(page) {
  await page.getByRole("button", { name: "Call", exact: true }).click();
}

/** Presses Tab until what has the focus is called `name`, as its label or its text. */
async function tabTo(page, name) {
  for (let presses = 0; presses < 60; presses += 1) {
    await page.keyboard.press("Tab");
    const focused = await page.evaluate(() => {
      const element = document.activeElement;
      return (element?.labels?.[0]?.textContent ?? element?.getAttribute("aria-label") ?? element?.textContent ?? "").trim();
    });
    if (typeof name === "string" ? focused === name : name.test(focused)) return;
  }
  throw new Error(`Tab never reaches ${name}`);
}

function stored(page) {
  return page.evaluate(() => ({ session: JSON.stringify({ ...sessionStorage }), local: JSON.stringify({ ...localStorage }), cookie: document.cookie }));
}

/** A picture and an accessibility check (WCAG 2.2 A and AA, contrast included) in both colour schemes, wide and narrow. */
async function look(page, name) {
  for (const [scheme, width] of [["light", 1200], ["dark", 1200], ["dark", 400]]) {
    await page.emulateMedia({ colorScheme: scheme });
    await page.setViewportSize({ width, height: 820 });
    if (folder) await page.screenshot({ path: path.join(folder, `${name}-${scheme}-${width}.png`), fullPage: true });
    const faults = await accessibilityFaults(page);
    must(faults.length === 0, `${name} is accessible in ${scheme}, ${width} px wide: ${faults.join("; ")}`);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    must(wide <= 0, `${name} does not scroll sideways at ${width} px (it is ${wide} px too wide)`);
  }
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize({ width: 1200, height: 820 });
}
