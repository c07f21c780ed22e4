/**
 * A form from a tool's `inputSchema` (JSON Schema), where the schema is simple enough to be one.
 *
 * Schemas come from servers we do not trust, and the gateway checks arguments against them anyway. So this reads only
 * what helps a person type the right thing; it never runs a schema's `pattern` (a regular expression can hang a page).
 */

export interface Field {
  name: string;
  kind: "string" | "number" | "integer" | "boolean" | "choice";
  label: string;
  description?: string;
  required: boolean;
  /** What the input holds at first; the empty string means: not sent. */
  initial: string;
  /** For `choice`: the value as JSON text, and what a person reads. */
  choices?: { json: string; label: string }[];
  minimum?: number;
  maximum?: number;
  minLength?: number;
  maxLength?: number;
}

export type Shape = { kind: "fields"; fields: Field[] } | { kind: "json" };

/** What was typed, as the JSON object to send, or what is wrong with it by field name. */
export type Filled = { ok: true; json: string } | { ok: false; faults: Map<string, string> };

type Schema = Record<string, unknown>;

/** Fields when every property is a string, number, integer, boolean or a list of choices; otherwise the JSON editor. */
export function shapeOf(schema: unknown): Shape {
  if (schema === undefined) return { kind: "fields", fields: [] };
  if (!isSchema(schema)) return { kind: "json" };
  if (["$ref", "anyOf", "oneOf", "allOf", "if", "patternProperties"].some((keyword) => keyword in schema)) return { kind: "json" };
  const properties = schema["properties"] ?? {};
  if (!isSchema(properties)) return { kind: "json" };
  const entries = Object.entries(properties);
  // An object that names no property but asks for, or welcomes, some.
  const required = Array.isArray(schema["required"]) ? schema["required"] : [];
  if (required.some((name) => !Object.hasOwn(properties, String(name)))) return { kind: "json" };
  if (entries.length === 0 && isSchema(schema["additionalProperties"])) return { kind: "json" };
  const fields = entries.map(([name, property]) => fieldOf(name, property, required.includes(name)));
  return fields.every((field) => field !== null) ? { kind: "fields", fields } : { kind: "json" };
}

/** The arguments as JSON text. Integers keep every digit; an empty input is not sent. */
export function fill(fields: readonly Field[], values: ReadonlyMap<string, string>): Filled {
  const faults = new Map<string, string>();
  const members: string[] = [];
  for (const field of fields) {
    const typed = values.get(field.name) ?? "";
    if (typed === "") {
      if (field.required) faults.set(field.name, "This tool needs a value here.");
      continue;
    }
    const read = valueJson(field, typed);
    if ("fault" in read) faults.set(field.name, read.fault);
    else members.push(`${JSON.stringify(field.name)}:${read.json}`);
  }
  return faults.size > 0 ? { ok: false, faults } : { ok: true, json: `{${members.join(",")}}` };
}

/** What is wrong with hand-written arguments, or null when they are a JSON object. */
export function faultInJson(text: string): string | null {
  try {
    return isSchema(JSON.parse(text)) ? null : "Arguments are a JSON object: { … }.";
  } catch (error) {
    return `This is not JSON yet: ${error instanceof Error ? error.message : "it cannot be read"}.`;
  }
}

/** A first draft for the JSON editor: what the schema requires, with defaults where it has them. */
export function draftJson(schema: unknown): string {
  const properties = isSchema(schema) && isSchema(schema["properties"]) ? schema["properties"] : {};
  const required = isSchema(schema) && Array.isArray(schema["required"]) ? schema["required"].map(String) : [];
  const draft = required.map((name) => [name, draftValue(Object.hasOwn(properties, name) ? properties[name] : undefined)]);
  return JSON.stringify(Object.fromEntries(draft), null, 2);
}

function fieldOf(name: string, property: unknown, required: boolean): Field | null {
  const schema = withoutNull(property);
  if (schema === null) return null;
  const kind = Array.isArray(schema["enum"]) ? "choice" : schema["type"];
  if (kind !== "string" && kind !== "number" && kind !== "integer" && kind !== "boolean" && kind !== "choice") return null;
  const { title, description } = { ...(property as Schema), ...schema };
  const limit = (key: string) => (typeof schema[key] === "number" ? { [key]: schema[key] } : {});
  const fallback = (property as Schema)["default"] ?? schema["default"];
  const choices = (schema["enum"] as unknown[] | undefined)?.filter((choice) => choice !== null);
  return {
    name,
    kind,
    required,
    label: typeof title === "string" && title !== "" ? title : name,
    initial: initialText(kind, fallback),
    ...(typeof description === "string" && description !== "" ? { description } : {}),
    ...(choices ? { choices: choices.map((choice) => ({ json: JSON.stringify(choice), label: typeof choice === "string" ? choice : JSON.stringify(choice) })) } : {}),
    ...limit("minimum"),
    ...limit("maximum"),
    ...limit("minLength"),
    ...limit("maxLength"),
  };
}

/** `string | null` in its two spellings is a string that may be left out. Null when the property is not simple. */
function withoutNull(property: unknown): Schema | null {
  if (!isSchema(property)) return null;
  const unions = property["anyOf"] ?? property["oneOf"];
  if (Array.isArray(unions)) {
    const rest = unions.filter((member) => !(isSchema(member) && member["type"] === "null"));
    return rest.length === 1 && isSchema(rest[0]) ? rest[0] : null;
  }
  if (Array.isArray(property["type"])) {
    const rest = property["type"].filter((type) => type !== "null");
    return rest.length === 1 ? { ...property, type: rest[0] } : null;
  }
  return property;
}

function initialText(kind: Field["kind"], fallback: unknown): string {
  if (fallback === undefined || fallback === null) return "";
  if (kind === "choice") return JSON.stringify(fallback);
  return typeof fallback === kind || (kind === "integer" && typeof fallback === "number") ? String(fallback) : "";
}

function valueJson(field: Field, typed: string): { json: string } | { fault: string } {
  switch (field.kind) {
    case "choice":
      return { json: typed };
    case "boolean":
      return { json: typed === "true" ? "true" : "false" };
    case "string":
      return stringJson(field, typed);
    case "integer":
      if (!/^[-+]?\d+$/.test(typed.trim())) return { fault: "A whole number, such as 42." };
      return withinLimits(field, BigInt(typed.trim().replace(/^\+/, "")).toString());
    case "number":
      if (!/^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(typed.trim()) || !Number.isFinite(Number(typed))) return { fault: "A number, such as 3.14." };
      return withinLimits(field, String(Number(typed)));
  }
}

function stringJson(field: Field, typed: string): { json: string } | { fault: string } {
  // JSON Schema counts characters, not UTF-16 units.
  const length = [...typed].length;
  if (field.minLength !== undefined && length < field.minLength) return { fault: `At least ${field.minLength} characters.` };
  if (field.maxLength !== undefined && length > field.maxLength) return { fault: `At most ${field.maxLength} characters.` };
  return { json: JSON.stringify(typed) };
}

function withinLimits(field: Field, json: string): { json: string } | { fault: string } {
  if (field.minimum !== undefined && Number(json) < field.minimum) return { fault: `Not below ${field.minimum}.` };
  if (field.maximum !== undefined && Number(json) > field.maximum) return { fault: `Not above ${field.maximum}.` };
  return { json };
}

function draftValue(property: unknown): unknown {
  if (!isSchema(property)) return null;
  if (property["default"] !== undefined) return property["default"];
  const blanks: Record<string, unknown> = { string: "", number: 0, integer: 0, boolean: false, array: [], object: {} };
  return blanks[String(property["type"])] ?? null;
}

function isSchema(value: unknown): value is Schema {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
