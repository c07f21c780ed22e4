/**
 * What a tool answered (MCP `CallToolResult`), sorted into what the console can show.
 *
 * It comes from a server we do not trust: nothing of it becomes markup, and only http and https addresses become links.
 */

export type Block =
  | { kind: "text"; text: string }
  | { kind: "image"; mimeType: string; base64: string }
  | { kind: "link"; name: string; uri: string; href: string | null; description?: string }
  | { kind: "resource"; uri: string; text: string }
  | { kind: "binary"; label: string; mimeType: string; base64: string }
  | { kind: "other"; json: string };

export interface ToolResult {
  isError: boolean;
  blocks: Block[];
  /** `structuredContent`, pretty-printed. */
  structured: string | null;
}

export function readResult(result: unknown): ToolResult {
  if (!isObject(result)) return { isError: false, structured: null, blocks: [{ kind: "other", json: pretty(result) }] };
  const content = Array.isArray(result["content"]) ? result["content"] : [];
  return {
    isError: result["isError"] === true,
    blocks: content.map(readBlock),
    structured: result["structuredContent"] === undefined ? null : pretty(result["structuredContent"]),
  };
}

/** The numbers among a call's timings, in milliseconds, in the gateway's order. */
export function readTimings(timings: unknown): { name: string; ms: number }[] {
  if (!isObject(timings)) return [];
  return Object.entries(timings).flatMap(([name, ms]) => (typeof ms === "number" && Number.isFinite(ms) ? [{ name: name.replaceAll("_", " "), ms }] : []));
}

/** The address if a person may be sent there, else null (`javascript:`, `data:`, `file:` and the like). */
export function safeHref(uri: string): string | null {
  if (!URL.canParse(uri)) return null;
  const address = new URL(uri);
  return address.protocol === "https:" || address.protocol === "http:" ? address.href : null;
}

/** Size of base64 text once decoded, in bytes. */
export function decodedBytes(base64: string): number {
  const padding = base64.endsWith("==") ? 2 : base64.endsWith("=") ? 1 : 0;
  return Math.max(0, Math.floor((base64.length * 3) / 4) - padding);
}

function readBlock(block: unknown): Block {
  const other: Block = { kind: "other", json: pretty(block) };
  if (!isObject(block)) return other;
  const text = (key: string) => (typeof block[key] === "string" ? block[key] : undefined);
  switch (block["type"]) {
    case "text":
      return text("text") === undefined ? other : { kind: "text", text: text("text") ?? "" };
    case "image":
    case "audio": {
      const base64 = text("data");
      if (base64 === undefined) return other;
      const mimeType = text("mimeType") ?? "application/octet-stream";
      return block["type"] === "image" ? { kind: "image", mimeType, base64 } : { kind: "binary", label: "Audio", mimeType, base64 };
    }
    case "resource_link": {
      const uri = text("uri");
      if (uri === undefined) return other;
      const description = text("description");
      return { kind: "link", name: text("title") ?? text("name") ?? uri, uri, href: safeHref(uri), ...(description ? { description } : {}) };
    }
    case "resource":
      return readResource(block["resource"]) ?? other;
    default:
      return other;
  }
}

function readResource(resource: unknown): Block | null {
  if (!isObject(resource) || typeof resource["uri"] !== "string") return null;
  if (typeof resource["text"] === "string") return { kind: "resource", uri: resource["uri"], text: resource["text"] };
  if (typeof resource["blob"] !== "string") return null;
  const mimeType = typeof resource["mimeType"] === "string" ? resource["mimeType"] : "application/octet-stream";
  return { kind: "binary", label: resource["uri"], mimeType, base64: resource["blob"] };
}

function pretty(value: unknown): string {
  return JSON.stringify(value, null, 2) ?? "nothing";
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
