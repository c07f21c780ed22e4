import { describe, expect, test } from "vitest";
import { draftJson, faultInJson, fill, shapeOf, type Field } from "./schema_form.ts";

const object = (properties: object, required: string[] = []) => ({ type: "object", properties, required });

function fieldsOf(schema: unknown): Field[] {
  const shape = shapeOf(schema);
  if (shape.kind !== "fields") throw new Error("not a form");
  return shape.fields;
}

const filledWith = (schema: unknown, values: Record<string, string>) => fill(fieldsOf(schema), new Map(Object.entries(values)));

describe("a schema", () => {
  test("of simple properties is a form", () => {
    const schema = object(
      {
        text: { type: "string", title: "Text", description: "What to say", maxLength: 9 },
        times: { type: "integer", minimum: 1, maximum: 3, default: 2 },
        weight: { type: "number" },
        loud: { type: "boolean", default: false },
        tone: { enum: ["low", "high"], default: "low" },
      },
      ["text"],
    );
    expect(fieldsOf(schema)).toEqual([
      { name: "text", kind: "string", required: true, label: "Text", initial: "", description: "What to say", maxLength: 9 },
      { name: "times", kind: "integer", required: false, label: "times", initial: "2", minimum: 1, maximum: 3 },
      { name: "weight", kind: "number", required: false, label: "weight", initial: "" },
      { name: "loud", kind: "boolean", required: false, label: "loud", initial: "false" },
      {
        name: "tone",
        kind: "choice",
        required: false,
        label: "tone",
        initial: '"low"',
        choices: [
          { json: '"low"', label: "low" },
          { json: '"high"', label: "high" },
        ],
      },
    ]);
  });

  test("that allows null beside one simple type is still a form", () => {
    const [first, second] = fieldsOf(object({ a: { type: ["string", "null"] }, b: { anyOf: [{ type: "integer" }, { type: "null" }], default: null, title: "Bee" } }));
    expect(first).toMatchObject({ kind: "string", initial: "" });
    expect(second).toMatchObject({ kind: "integer", initial: "", label: "Bee" });
  });

  test.each([
    ["an array", object({ a: { type: "array" } })],
    ["a nested object", object({ a: { type: "object" } })],
    ["a reference", object({ a: { $ref: "#/$defs/x" } })],
    ["a union", object({ a: { anyOf: [{ type: "string" }, { type: "integer" }] } })],
    ["a property without a type", object({ a: {} })],
    ["a condition", { ...object({}), oneOf: [] }],
    ["a requirement it does not describe", object({}, ["a"])],
    ["free properties", { type: "object", additionalProperties: { type: "string" } }],
    ["nonsense", "nonsense"],
  ])("with %s is edited as JSON", (_, schema) => {
    expect(shapeOf(schema)).toEqual({ kind: "json" });
  });

  test("without properties, or none at all, asks for nothing", () => {
    expect(fieldsOf(undefined)).toEqual([]);
    expect(fieldsOf({ type: "object" })).toEqual([]);
    expect(fieldsOf({ type: "object", properties: {}, additionalProperties: false })).toEqual([]);
  });
});

describe("a filled form", () => {
  test("leaves out what is empty and types what is not", () => {
    const schema = object({ s: { type: "string" }, n: { type: "number" }, i: { type: "integer" }, b: { type: "boolean" }, e: { type: "string" } });
    expect(filledWith(schema, { s: 'say "hi"\n', n: " 1.50 ", i: "+007", b: "false", e: "" })).toEqual({ ok: true, json: '{"s":"say \\"hi\\"\\n","n":1.5,"i":7,"b":false}' });
  });

  test("keeps every digit of a large integer", () => {
    expect(filledWith(object({ i: { type: "integer" } }), { i: "12345678901234567890" })).toEqual({ ok: true, json: '{"i":12345678901234567890}' });
  });

  test("names each input that is wrong", () => {
    const schema = object({ a: { type: "integer" }, b: { type: "number" }, c: { type: "string" }, d: { type: "integer", minimum: 1 }, e: { type: "string", maxLength: 1 } }, ["c"]);
    const filled = filledWith(schema, { a: "1.5", b: "1e999", d: "0", e: "😀😀" });
    expect(filled.ok ? [] : [...filled.faults.keys()]).toEqual(["a", "b", "c", "d", "e"]);
    expect(filledWith(schema, { c: "x", e: "😀" }).ok).toBe(true);
  });

  test("is safe from a property named like an object's prototype", () => {
    const schema = JSON.parse('{"type":"object","properties":{"__proto__":{"type":"string"}},"required":["__proto__"]}') as unknown;
    expect(fill(fieldsOf(schema), new Map([["__proto__", "x"]]))).toEqual({ ok: true, json: '{"__proto__":"x"}' });
    expect(draftJson(schema)).toBe('{\n  "__proto__": ""\n}');
  });
});

test("hand-written arguments must be a JSON object", () => {
  expect(faultInJson('{"a":[1]}')).toBeNull();
  for (const bad of ["[1]", "null", "7", "{", ""]) expect(faultInJson(bad)).not.toBeNull();
});

test("the first draft holds what is required", () => {
  expect(JSON.parse(draftJson(object({ list: { type: "array" }, n: { type: "integer", default: 3 }, skip: { type: "string" } }, ["list", "n"])))).toEqual({ list: [], n: 3 });
  expect(draftJson("nonsense")).toBe("{}");
});
