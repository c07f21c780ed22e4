import { expect, test } from "vitest";
import { parseRoute, toolsHref } from "./router.ts";
import { decodedBytes, readResult, readTimings, safeHref } from "./result.ts";

test("the content of a result is sorted by what can be shown", () => {
  const { isError, blocks, structured } = readResult({
    content: [
      { type: "text", text: "<b>hi</b>" },
      { type: "image", data: "aGk=", mimeType: "image/png" },
      { type: "audio", data: "aGk=", mimeType: "audio/wav" },
      { type: "resource_link", uri: "https://example.com/a", name: "a" },
      { type: "resource", resource: { uri: "file:///x", text: "x" } },
      { type: "resource", resource: { uri: "file:///y", blob: "aGk=" } },
      { type: "hologram", depth: 3 },
      "stray",
    ],
    structuredContent: { sum: 3 },
  });
  expect(isError).toBe(false);
  expect(blocks.map(({ kind }) => kind)).toEqual(["text", "image", "binary", "link", "resource", "binary", "other", "other"]);
  expect(structured).toBe('{\n  "sum": 3\n}');
});

test("only isError true makes a result the tool's error", () => {
  expect(readResult({ content: [], isError: true }).isError).toBe(true);
  expect(readResult({ content: [], isError: "false" }).isError).toBe(false);
  expect(readResult(undefined).blocks).toEqual([{ kind: "other", json: "nothing" }]);
});

test("a malformed block is shown as it came and breaks nothing", () => {
  for (const block of [{ type: "text" }, { type: "image" }, { type: "resource" }, { type: "resource_link", uri: 5 }, null]) {
    expect(readResult({ content: [block] }).blocks[0]?.kind).toBe("other");
  }
});

test("only web addresses become links", () => {
  expect(safeHref("https://example.com/a b")).toBe("https://example.com/a%20b");
  for (const bad of ["javascript:alert(1)", " JavaScript:alert(1)", "java\nscript:alert(1)", "data:text/html,x", "file:///etc/passwd", "/relative", ""]) {
    expect(safeHref(bad)).toBeNull();
  }
});

test("timings keep the gateway's order and skip what is not a number", () => {
  expect(readTimings({ queue_wait: 0.4, upstream: 12, note: "x", nothing: null })).toEqual([
    { name: "queue wait", ms: 0.4 },
    { name: "upstream", ms: 12 },
  ]);
  expect(readTimings(null)).toEqual([]);
});

test("the size of base64 is the size of what it holds", () => {
  expect(["", "aA==", "aGk=", "aGkh"].map(decodedBytes)).toEqual([0, 1, 2, 3]);
});

test("a route survives names with slashes, and a broken one is no page", () => {
  expect(parseRoute(toolsHref("a/b", "ns/tool#1"))).toEqual({ page: "tools", configuration: "a/b", tool: "ns/tool#1" });
  expect(parseRoute("")).toEqual({ page: "configurations" });
  for (const bad of ["#/configurations/%E0%A4%A", "#/configurations/x", "#/elsewhere", "#/configurations/a/tools/b/c"]) expect(parseRoute(bad)).toEqual({ page: "missing" });
});
