import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { Api, tokenFromPaste } from "./api.ts";
import { asProblem, type Problem } from "./problem.ts";

/** A real HTTP server on loopback: it remembers what was asked and answers what the test set. */
interface Asked {
  method: string | undefined;
  path: string | undefined;
  headers: IncomingMessage["headers"];
  body: string;
}

let asked: Asked[] = [];
let answer = { status: 200, headers: {} as Record<string, string>, body: "{}" };
let origin = "";

const server = createServer(async (request, response) => {
  let body = "";
  for await (const chunk of request) body += String(chunk);
  asked.push({ method: request.method, path: request.url, headers: request.headers, body });
  response.writeHead(answer.status, answer.headers).end(answer.body);
});

beforeAll(async () => {
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterAll(() => new Promise((closed) => server.close(closed)));
beforeEach(() => {
  asked = [];
  answer = { status: 200, headers: {}, body: "{}" };
});

const caught = async (doing: Promise<unknown>): Promise<Problem> => {
  try {
    await doing;
  } catch (error) {
    return asProblem(error);
  }
  throw new Error("nothing was thrown");
};

describe("a request", () => {
  test("carries the token in the Authorization header and nowhere else", async () => {
    answer.body = '{"items":[],"next":null}';
    await new Api("t0ken", origin).configurations("a/b&c");
    expect(asked[0]?.headers.authorization).toBe("Bearer t0ken");
    expect(asked[0]?.path).toBe("/api/v1/mcp/configurations?cursor=a%2Fb%26c");
    expect(JSON.stringify(new Api("t0ken", origin))).not.toContain("t0ken");
  });

  test("keeps an id in its path segment, whatever it holds", async () => {
    answer.status = 204;
    await new Api("t", origin).remove("../me?x#y");
    expect(asked[0]).toMatchObject({ method: "DELETE", path: "/api/v1/mcp/configurations/..%2Fme%3Fx%23y" });
  });

  test("to call a tool sends the arguments digit by digit", async () => {
    answer.body = '{"id":"c","state":"done","result":{"structuredContent":12345678901234567890},"timings_ms":{}}';
    const { raw } = await new Api("t", origin).call("demo", 'a"b', '{"n":12345678901234567890}');
    expect(asked[0]?.body).toBe('{"configuration":"demo","tool":"a\\"b","arguments":{"n":12345678901234567890}}');
    expect(asked[0]?.headers["content-type"]).toBe("application/json");
    expect(raw).toContain("12345678901234567890");
  });
});

describe("an answer", () => {
  test("with members of a later version is taken", async () => {
    answer.body = '{"organization":{"id":"1","slug":"acme","name":"Acme"},"subject":"s","role":"user","memberships":[]}';
    expect(await new Api("t", origin).me()).toMatchObject({ organization: { slug: "acme", name: "Acme" }, subject: "s", role: "user" });
  });

  test.each(["<html>", "{}", '{"organization":1,"subject":"s","role":"user"}', "null"])("that is not what was asked for is a problem with the request id: %j", async (body) => {
    answer = { status: 200, headers: { "x-request-id": "r-9" }, body };
    expect((await caught(new Api("t", origin).me())).facts).toMatchObject({ code: "unreadable", request_id: "r-9" });
  });

  test("of 401 ends the visit, and of 403 does not", async () => {
    const api = new Api("t", origin);
    const refused: string[] = [];
    api.onRefused = (problem) => refused.push(problem.facts.code);
    answer = { status: 403, headers: {}, body: '{"code":"forbidden"}' };
    await caught(api.me());
    expect(refused).toEqual([]);
    answer = { status: 401, headers: {}, body: '{"code":"unauthenticated","detail":"expired"}' };
    const problem = await caught(api.me());
    expect(refused).toEqual(["unauthenticated"]);
    expect(problem.message).toBe("expired");
  });

  test("that redirects is not followed, so the token goes nowhere else", async () => {
    answer = { status: 307, headers: { location: `${origin}/elsewhere` }, body: "" };
    expect((await caught(new Api("t", origin).me())).facts.code).toBe("network");
    expect(asked.map(({ path }) => path)).toEqual(["/api/v1/me"]);
  });
});

test("a call that a person stops waiting for is told apart from a gateway that cannot be reached", async () => {
  const stop = AbortSignal.abort();
  const problem = await caught(new Api("t", origin).call("demo", "echo", "{}", stop));
  expect(problem.facts.code).toBe("aborted");
});

test("a pasted token is freed of what people copy along", () => {
  expect(tokenFromPaste("  Bearer abc.def-g_h==\n")).toBe("abc.def-g_h==");
  for (const bad of ["", "   ", "two words", "naïve", "a\nb", "“abc”", "=abc"]) expect(tokenFromPaste(bad)).toBeNull();
});
