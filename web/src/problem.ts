/**
 * The one place that turns anything that went wrong into something a person can act on.
 *
 * The gateway answers errors as RFC 9457 problem documents; proxies in between may answer anything, and the network
 * may answer nothing. All three become a `Problem`, and `advice` says what to do about it.
 */

/** How long to wait before repeating, and how sure one may be that nothing happened. */
export interface ProblemFacts {
  /** The gateway's stable fault code, or `network`, `aborted`, `unreadable`, `http` for what never was a problem document. */
  code: string;
  title: string;
  /** HTTP status; 0 when there was no answer. */
  status: number;
  detail?: string;
  /** The request id (the document's `instance`, else the `x-request-id` header). */
  request_id?: string;
  /** The field at fault, as the gateway names it. */
  field?: string;
  retry_after_ms?: number;
  /** True when the request only read something, so that repeating it cannot do harm. */
  harmless?: boolean;
}

export class Problem extends Error {
  readonly facts: Readonly<ProblemFacts>;

  constructor(facts: ProblemFacts) {
    super(facts.detail ?? facts.title);
    this.name = "Problem";
    this.facts = facts;
  }
}

/** Reads a failed response's body. Never throws: a body that is not a problem document becomes a `Problem` by status. */
export function problemFrom(status: number, headers: Headers, body: string, harmless: boolean): Problem {
  const document = parseObject(body);
  const text = (key: string) => nonEmpty(document?.[key]);
  const waitMs = duration(document?.["retry_after_ms"]) ?? retryAfterMs(headers.get("retry-after"), Date.now());
  return new Problem({
    code: text("code") ?? codeByStatus[status] ?? "http",
    title: text("title") ?? titleByStatus(status),
    status,
    harmless,
    ...present("detail", text("detail")),
    ...present("request_id", text("instance") ?? nonEmpty(headers.get("x-request-id"))),
    ...present("field", text("field")),
    ...present("retry_after_ms", waitMs),
  });
}

/** Any thrown value as a `Problem`: what is not one already came from the browser's network layer or from our own code. */
export function asProblem(thrown: unknown, harmless = true): Problem {
  if (thrown instanceof Problem) return thrown;
  const name = thrown instanceof Error ? thrown.name : "";
  if (name === "AbortError") return new Problem({ code: "aborted", title: "You stopped waiting", status: 0, harmless });
  if (name === "TimeoutError") return new Problem({ code: "network", title: "The gateway did not answer in time", status: 0, harmless });
  if (thrown instanceof TypeError) return new Problem({ code: "network", title: "The gateway could not be reached", status: 0, harmless });
  return new Problem({ code: "unreadable", title: "The console could not make sense of the answer", status: 0, harmless });
}

/** One or two sentences: what to do now. Follows the gateway's fault table (may it be repeated, and when). */
export function advice({ facts }: Problem): string {
  const wait = facts.retry_after_ms === undefined ? "a moment" : inWords(facts.retry_after_ms);
  const repeat = facts.harmless
    ? "Nothing was changed: try again."
    : "It may have taken effect all the same: check before you repeat it.";
  switch (facts.code) {
    case "invalid":
      return facts.field ? `Correct “${facts.field}” and send it again.` : "Correct the request and send it again.";
    case "unauthenticated":
      return "Sign in with a current access token.";
    case "forbidden":
      return "Your role does not allow this. Ask an admin of your organization.";
    case "unknown":
      return "It may have been removed. Go back to the list and look again.";
    case "conflict":
      return "Something with that name exists already. Choose another name.";
    case "stale":
      return "Someone changed it in the meantime. Reload and try again.";
    case "reconnect":
      return "Connect the account of this server again, then repeat the call.";
    case "throttled":
      return `Your organization has reached its limit. Try again in ${wait}.`;
    case "upstream_open":
      return `The MCP server kept failing, so calls to it are paused. Try again in ${wait}.`;
    case "unavailable":
      return `Nothing was accepted, so it is safe to try again in ${wait}.`;
    case "upstream_failed":
      return `The MCP server failed. ${repeat}`;
    case "aborted":
    case "timeout":
    case "outcome_unknown":
    case "internal":
      return repeat;
    case "network":
      return `Check that you are online and that the gateway runs. ${repeat}`;
    default:
      return facts.status === 413 ? "Send less: the gateway takes bodies of up to 1 MiB." : repeat;
  }
}

/** `1 second`, `2 minutes`: rounded up, because waiting too little is refused again. */
export function inWords(milliseconds: number): string {
  const seconds = Math.max(1, Math.ceil(milliseconds / 1000));
  const [count, unit] = seconds < 120 ? [seconds, "second"] : [Math.ceil(seconds / 60), "minute"];
  return `${count} ${unit}${count === 1 ? "" : "s"}`;
}

/** `Retry-After` (RFC 9110 section 10.2.3): seconds, or a date. */
export function retryAfterMs(header: string | null, nowMs: number): number | undefined {
  if (header === null) return undefined;
  if (/^\s*\d+\s*$/.test(header)) return Number(header) * 1000;
  const date = Date.parse(header);
  return Number.isNaN(date) ? undefined : Math.max(0, date - nowMs);
}

const codeByStatus: Record<number, string> = {
  400: "invalid",
  401: "unauthenticated",
  403: "forbidden",
  404: "unknown",
  409: "conflict",
  412: "stale",
  424: "reconnect",
  429: "throttled",
  // Not 502 to 504: from a proxy they do not say whether the gateway accepted anything.
};

function titleByStatus(status: number): string {
  if (status >= 500) return `The gateway failed (HTTP ${status})`;
  return `The gateway refused the request (HTTP ${status})`;
}

function parseObject(body: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(body);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

function nonEmpty(value: unknown): string | undefined {
  return typeof value === "string" && value.trim() !== "" ? value : undefined;
}

function duration(value: unknown): number | undefined {
  return typeof value === "number" && Number.isFinite(value) && value >= 0 ? value : undefined;
}

function present<K extends string, V>(key: K, value: V | undefined): { [P in K]?: V } {
  return value === undefined ? {} : ({ [key]: value } as { [P in K]?: V });
}
