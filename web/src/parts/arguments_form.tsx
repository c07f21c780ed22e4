/** The arguments of a tool: a form where its schema allows one, JSON where it does not or where a person prefers it. */

import { useId, useRef, useState, type KeyboardEvent, type SyntheticEvent } from "react";
import { draftJson, faultInJson, fill, shapeOf, type Field } from "../schema_form.ts";

interface Props {
  schema: unknown;
  busy: boolean;
  /** Given the arguments as the text of a JSON object. */
  call: (argumentsJson: string) => void;
}

export function ArgumentsForm({ schema, busy, call }: Props) {
  const [shape] = useState(() => shapeOf(schema));
  const fields = shape.kind === "fields" ? shape.fields : [];
  const [asJson, setAsJson] = useState(shape.kind === "json");
  const [values, setValues] = useState<ReadonlyMap<string, string>>(() => new Map(fields.map((field) => [field.name, field.initial])));
  const [faults, setFaults] = useState<ReadonlyMap<string, string>>(new Map());
  const [json, setJson] = useState(() => draftJson(schema));
  const [jsonFault, setJsonFault] = useState<string | null>(null);
  const form = useRef<HTMLFormElement>(null);

  function change(name: string, value: string) {
    setValues((was) => new Map(was).set(name, value));
    // A fault that is being corrected has done its work.
    setFaults((was) => new Map([...was].filter(([faulty]) => faulty !== name)));
  }

  function changeJson(text: string) {
    setJson(text);
    setJsonFault(null);
  }

  function submit(event: SyntheticEvent) {
    event.preventDefault();
    if (busy) return;
    if (asJson) {
      const fault = faultInJson(json);
      setJsonFault(fault);
      return fault === null ? call(json) : form.current?.querySelector("textarea")?.focus();
    }
    const filled = fill(fields, values);
    setFaults(filled.ok ? new Map() : filled.faults);
    if (filled.ok) return call(filled.json);
    const first = fields.findIndex((field) => filled.faults.has(field.name));
    form.current?.querySelector<HTMLElement>(`[data-field="${first}"]`)?.focus();
  }

  function toJson() {
    // What was typed goes along, unless it is not valid yet; then the draft stands.
    const filled = fill(fields, values);
    if (filled.ok) setJson(JSON.stringify(JSON.parse(filled.json), null, 2));
    setAsJson(true);
  }

  // In a text area Enter is a new line; Ctrl or Cmd with Enter calls from anywhere in the form.
  function onKeyDown(event: KeyboardEvent) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.current?.requestSubmit();
  }

  return (
    <form ref={form} className="arguments" onSubmit={submit} onKeyDown={onKeyDown} noValidate aria-label="Arguments">
      {asJson ? (
        <JsonEditor value={json} fault={jsonFault} change={changeJson} />
      ) : fields.length === 0 ? (
        <p className="hint">This tool takes no arguments.</p>
      ) : (
        fields.map((field, index) => (
          <FieldInput
            key={field.name}
            field={field}
            index={index}
            value={values.get(field.name) ?? ""}
            fault={faults.get(field.name)}
            change={(value) => change(field.name, value)}
          />
        ))
      )}
      <div className="actions">
        <button type="submit" className="primary" disabled={busy}>
          {busy ? "Calling…" : "Call"}
        </button>
        {shape.kind === "fields" && (
          <button type="button" className="quiet" onClick={() => (asJson ? setAsJson(false) : toJson())} disabled={busy}>
            {asJson ? "Use the form" : "Write JSON instead"}
          </button>
        )}
        <span className="fine shortcut">Ctrl or ⌘ with Enter calls</span>
      </div>
    </form>
  );
}

function JsonEditor({ value, fault, change }: { value: string; fault: string | null; change: (value: string) => void }) {
  const id = useId();
  return (
    <div className="field">
      <label htmlFor={id}>Arguments as JSON</label>
      <textarea
        id={id}
        className="code"
        rows={8}
        spellCheck={false}
        value={value}
        onChange={(event) => change(event.target.value)}
        aria-invalid={fault !== null}
        aria-describedby={fault === null ? undefined : `${id}-fault`}
      />
      {fault !== null && (
        <p className="fault" id={`${id}-fault`} role="alert">
          {fault}
        </p>
      )}
    </div>
  );
}

interface FieldProps {
  field: Field;
  index: number;
  value: string;
  fault: string | undefined;
  change: (value: string) => void;
}

function FieldInput({ field, index, value, fault, change }: FieldProps) {
  const id = useId();
  const described = [fault && `${id}-fault`, field.description && `${id}-hint`].filter(Boolean).join(" ");
  const common = {
    id,
    "data-field": index,
    "aria-invalid": fault !== undefined,
    "aria-required": field.required,
    "aria-describedby": described === "" ? undefined : described,
    value,
    onChange: (event: { target: { value: string } }) => change(event.target.value),
  };
  return (
    <div className="field">
      <label htmlFor={id}>
        {field.label} <span className="kind">{field.required ? `${kindLabel(field)}, required` : kindLabel(field)}</span>
      </label>
      {field.kind === "string" && <textarea {...common} rows={1} />}
      {(field.kind === "integer" || field.kind === "number") && <input {...common} inputMode={field.kind === "integer" ? "numeric" : "decimal"} autoComplete="off" />}
      {(field.kind === "boolean" || field.kind === "choice") && (
        <select {...common}>
          <option value="">{field.required ? "Choose" : "Not sent"}</option>
          {(field.choices ?? [{ json: "true", label: "true" }, { json: "false", label: "false" }]).map(({ json, label }) => (
            <option key={json} value={json}>
              {label}
            </option>
          ))}
        </select>
      )}
      {fault && (
        <p className="fault" id={`${id}-fault`}>
          {fault}
        </p>
      )}
      {field.description && (
        <p className="hint" id={`${id}-hint`}>
          {field.description}
        </p>
      )}
    </div>
  );
}

function kindLabel(field: Field): string {
  const names = { string: "text", number: "number", integer: "whole number", boolean: "true or false", choice: "one of a list" };
  const { minimum, maximum } = field;
  if (minimum !== undefined && maximum !== undefined) return `${names[field.kind]}, ${minimum} to ${maximum}`;
  return names[field.kind];
}
