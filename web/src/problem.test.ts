import { describe, expect, test } from "vitest";
import { advice, asProblem, inWords, Problem, problemFrom, retryAfterMs } from "./problem.ts";

const none = new Headers();

describe("a problem document", () => {
  test("is read with its code, field, wait and request id", () => {
    const body = JSON.stringify({
      type: "/docs/problems/invalid",
      title: "The request is not valid",
      status: 400,
      detail: "name is longer than 64 characters",
      instance: "0199-request",
      code: "invalid",
      field: "name",
      retry_after_ms: 1500,
      invented_later: true,
    });
    expect(problemFrom(400, none, body, false).facts).toEqual({
      code: "invalid",
      title: "The request is not valid",
      status: 400,
      detail: "name is longer than 64 characters",
      request_id: "0199-request",
      field: "name",
      retry_after_ms: 1500,
      harmless: false,
    });
  });

  test("that names no code is understood by its status", () => {
    expect(problemFrom(401, none, "{}", true).facts.code).toBe("unauthenticated");
    expect(problemFrom(429, none, "{}", true).facts.code).toBe("throttled");
  });

  test("with fields of the wrong type is no reason to fail", () => {
    const { facts } = problemFrom(400, none, '{"title":7,"detail":null,"code":{},"retry_after_ms":"soon","instance":""}', true);
    expect(facts).toEqual({ code: "invalid", title: "The gateway refused the request (HTTP 400)", status: 400, harmless: true });
  });

  test.each(["<html>Bad gateway</html>", "", "null", "[]", "42"])("may be missing altogether: %j", (body) => {
    const { facts } = problemFrom(502, new Headers({ "x-request-id": "r-1" }), body, false);
    expect(facts).toMatchObject({ code: "http", title: "The gateway failed (HTTP 502)", request_id: "r-1" });
  });

  test("gives its own wait precedence over the Retry-After header", () => {
    const headers = new Headers({ "retry-after": "9" });
    expect(problemFrom(429, headers, '{"retry_after_ms":250}', true).facts.retry_after_ms).toBe(250);
    expect(problemFrom(429, headers, "{}", true).facts.retry_after_ms).toBe(9000);
  });
});

test("Retry-After may be a date, and one in the past means now", () => {
  const now = Date.parse("2026-01-01T00:00:00Z");
  expect(retryAfterMs("Thu, 01 Jan 2026 00:00:30 GMT", now)).toBe(30_000);
  expect(retryAfterMs("Wed, 31 Dec 2025 00:00:00 GMT", now)).toBe(0);
  expect(retryAfterMs("whenever", now)).toBeUndefined();
  expect(retryAfterMs(null, now)).toBeUndefined();
});

describe("the advice", () => {
  const to = (facts: object) => advice(new Problem({ code: "http", title: "", status: 500, ...facts }));

  test("names the field to correct", () => {
    expect(to({ code: "invalid", field: "endpoint" })).toContain("“endpoint”");
  });

  test("names the wait", () => {
    expect(to({ code: "throttled", retry_after_ms: 1200 })).toContain("in 2 seconds");
    expect(to({ code: "upstream_open", retry_after_ms: 200_000 })).toContain("in 4 minutes");
  });

  test.each(["timeout", "outcome_unknown", "internal", "upstream_failed", "network", "aborted", "http"])("warns that a call may have taken effect after %s", (code) => {
    expect(to({ code, harmless: false })).toContain("check before you repeat it");
  });

  test.each(["timeout", "internal", "network", "http"])("says of a mere reading that it may be repeated after %s", (code) => {
    expect(to({ code, harmless: true })).toContain("Nothing was changed");
  });

  test("says that nothing was accepted when the gateway says so", () => {
    expect(to({ code: "unavailable", harmless: false })).toContain("safe to try again");
  });
});

test("what the browser throws becomes a problem that does not quote it", () => {
  expect(asProblem(new TypeError("Failed to fetch secret")).facts).toMatchObject({ code: "network", status: 0 });
  expect(asProblem(new DOMException("", "TimeoutError")).facts.code).toBe("network");
  expect(asProblem(new DOMException("", "AbortError")).facts.code).toBe("aborted");
  expect(asProblem("what").facts.code).toBe("unreadable");
  expect(asProblem(new TypeError("Failed to fetch secret")).message).not.toContain("secret");
});

test("a wait is rounded up and spoken in words", () => {
  expect(inWords(0)).toBe("1 second");
  expect(inWords(1001)).toBe("2 seconds");
  expect(inWords(121_000)).toBe("3 minutes");
});
