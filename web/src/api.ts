/**
 * Everything the console asks of the gateway, typed, in one place.
 *
 * The access token lives in a private field of `Api`, travels in the Authorization header only, and is part of no error.
 */

import { Problem, problemFrom } from "./problem.ts";

export interface Me {
  organization: { slug: string; name: string };
  subject: string;
  role: string;
}

export interface Configuration {
  id: string;
  name: string;
  /** Absent for a program of the operator's catalogue. */
  endpoint: string | null;
  catalogue: string | null;
  transport: string;
  /** `hint` is the end of the token, for recognition. */
  auth: { type: string; hint?: string | null };
  enabled?: boolean;
  /** `organization`, or `user` when only its owner sees it. */
  scope?: string;
  /** `native`, or `fastmcp` when the FastMCP service speaks to the server. */
  via?: string;
  /** RFC 3339. */
  created_at?: string;
}

export interface NewConfiguration {
  name: string;
  endpoint: string;
  transport: "http" | "sse";
  auth: { type: "none" } | { type: "bearer"; token: string };
}

/** An MCP tool definition, as its server wrote it: everything but the name may be absent or odd. */
export interface Tool {
  name: string;
  title?: string;
  description?: string;
  inputSchema?: unknown;
  annotations?: { title?: string; readOnlyHint?: boolean; destructiveHint?: boolean; idempotentHint?: boolean; openWorldHint?: boolean };
}

export interface Call {
  id: string;
  state: string;
  /** An MCP CallToolResult as the server sent it. */
  result: unknown;
  timings_ms: Record<string, unknown>;
}

/** One page of a list; `next` is the cursor of the page after it. */
export interface Page<T> {
  items: T[];
  next: string | null;
}

/** The answer both read and as it came: JavaScript rounds numbers above 2^53, the text does not. */
export interface Answer<T> {
  value: T;
  raw: string;
}

interface Ask {
  body?: string;
  signal?: AbortSignal | undefined;
  patienceMs?: number;
}

const LIST_PATIENCE_MS = 30_000;
/** The gateway's cap of a synchronous call is 5 minutes; it answers for itself before this. */
const CALL_PATIENCE_MS = 310_000;

export class Api {
  readonly #token: string;
  readonly #origin: string;
  /** Told of every 401, so that an expired token ends the visit wherever it is noticed. */
  onRefused: (problem: Problem) => void = () => {};

  /** `origin` is empty in the browser: the console talks only to the gateway that served it. */
  constructor(token: string, origin = "") {
    this.#token = token;
    this.#origin = origin;
  }

  async me(signal?: AbortSignal): Promise<Me> {
    return (await this.#ask<Me>("GET", "/api/v1/me", isMe, { signal })).value;
  }

  async configurations(cursor: string | null, signal?: AbortSignal): Promise<Page<Configuration>> {
    return (await this.#ask<Page<Configuration>>("GET", paged("/api/v1/mcp/configurations", cursor), isPage, { signal })).value;
  }

  async configuration(id: string, signal?: AbortSignal): Promise<Configuration> {
    return (await this.#ask<Configuration>("GET", one(id), isObject, { signal })).value;
  }

  async register(configuration: NewConfiguration): Promise<void> {
    await this.#send("POST", "/api/v1/mcp/configurations", { body: JSON.stringify(configuration) });
  }

  async remove(id: string): Promise<void> {
    await this.#send("DELETE", one(id), {});
  }

  async tools(id: string, cursor: string | null, signal?: AbortSignal): Promise<Page<Tool>> {
    return (await this.#ask<Page<Tool>>("GET", paged(`${one(id)}/tools`, cursor), isPage, { signal })).value;
  }

  /** `argumentsJson` is sent as it stands, so that large integers and key order survive. It must be a JSON object. */
  call(configuration: string, tool: string, argumentsJson: string, signal?: AbortSignal): Promise<Answer<Call>> {
    const body = `{"configuration":${JSON.stringify(configuration)},"tool":${JSON.stringify(tool)},"arguments":${argumentsJson}}`;
    return this.#ask<Call>("POST", "/api/v1/tool-calls", isObject, { body, signal, patienceMs: CALL_PATIENCE_MS });
  }

  async #ask<T>(method: string, path: string, fits: (value: unknown) => boolean, ask: Ask): Promise<Answer<T>> {
    const { raw, requestId } = await this.#send(method, path, ask);
    let value: unknown;
    try {
      value = JSON.parse(raw);
    } catch {
      value = undefined;
    }
    if (fits(value)) return { value: value as T, raw };
    throw new Problem({
      code: "unreadable",
      title: "The gateway's answer is not what the console expects",
      status: 200,
      harmless: method === "GET",
      ...(requestId === null ? {} : { request_id: requestId }),
    });
  }

  async #send(method: string, path: string, ask: Ask): Promise<{ raw: string; requestId: string | null }> {
    const patience = AbortSignal.timeout(ask.patienceMs ?? LIST_PATIENCE_MS);
    const headers: Record<string, string> = { authorization: `Bearer ${this.#token}`, accept: "application/json" };
    if (ask.body !== undefined) headers["content-type"] = "application/json";
    const response = await fetch(this.#origin + path, {
      method,
      headers,
      signal: ask.signal ? AbortSignal.any([ask.signal, patience]) : patience,
      // The token is the only credential, lists must be fresh, and a redirect could carry the token elsewhere.
      credentials: "omit",
      cache: "no-store",
      redirect: "error",
      ...(ask.body === undefined ? {} : { body: ask.body }),
    });
    const raw = await response.text();
    if (response.ok) return { raw, requestId: response.headers.get("x-request-id") };
    const problem = problemFrom(response.status, response.headers, raw, method === "GET");
    if (response.status === 401) this.onRefused(problem);
    throw problem;
  }
}

/**
 * A pasted token made fit for a header: trimmed, and without the word `Bearer` that people copy along.
 * Null when it holds what no token may (RFC 6750 section 2.1), because `fetch` would quote it in its error.
 */
export function tokenFromPaste(pasted: string): string | null {
  const token = pasted.trim().replace(/^bearer\s+/i, "");
  return /^[A-Za-z0-9\-._~+/]+=*$/.test(token) ? token : null;
}

function one(id: string): string {
  return `/api/v1/mcp/configurations/${encodeURIComponent(id)}`;
}

function paged(path: string, cursor: string | null): string {
  return cursor === null ? path : `${path}?cursor=${encodeURIComponent(cursor)}`;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isMe(value: unknown): boolean {
  const hasTexts = (object: Record<string, unknown>, keys: string[]) => keys.every((key) => typeof object[key] === "string");
  return isObject(value) && hasTexts(value, ["subject", "role"]) && isObject(value["organization"]) && hasTexts(value["organization"], ["slug", "name"]);
}

function isPage(value: unknown): boolean {
  return isObject(value) && Array.isArray(value["items"]) && value["items"].every(isObject);
}
