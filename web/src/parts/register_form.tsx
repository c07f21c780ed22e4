/** Registering an MCP server. What the gateway refuses with a field named is shown at that field. */

import { useRef, useState, type ReactNode, type SyntheticEvent } from "react";
import type { Api, NewConfiguration } from "../api.ts";
import { asProblem, type Problem } from "../problem.ts";
import { ProblemNotice } from "./notices.tsx";

interface Props {
  api: Api;
  done: (name: string) => void;
  cancel: () => void;
}

type Faults = Partial<Record<"name" | "endpoint" | "token", string>>;

export function RegisterForm({ api, done, cancel }: Props) {
  const form = useRef<HTMLFormElement>(null);
  const [bearer, setBearer] = useState(false);
  const [busy, setBusy] = useState(false);
  const [faults, setFaults] = useState<Faults>({});
  const [problem, setProblem] = useState<Problem | null>(null);

  function refuse(found: Faults) {
    setFaults(found);
    form.current?.querySelector<HTMLElement>(`#register-${Object.keys(found)[0]}`)?.focus();
  }

  // A fault that is being corrected has done its work.
  function forgive(event: SyntheticEvent<HTMLFormElement>) {
    const corrected = event.target instanceof HTMLInputElement ? event.target.name : "";
    if (corrected in faults) setFaults(Object.fromEntries(Object.entries(faults).filter(([name]) => name !== corrected)));
  }

  async function submit(event: SyntheticEvent<HTMLFormElement>) {
    event.preventDefault();
    const typed = read(event.currentTarget);
    const found = check(typed);
    setProblem(null);
    refuse(found);
    if (Object.keys(found).length > 0) return;
    setBusy(true);
    try {
      await api.register(typed);
      done(typed.name);
    } catch (error) {
      const refusal = asProblem(error, false);
      setProblem(refusal);
      setBusy(false);
      const field = fieldOf(refusal);
      if (field) refuse({ [field]: refusal.facts.detail ?? refusal.facts.title });
    }
  }

  return (
    <form ref={form} className="panel" onSubmit={submit} onInput={forgive} noValidate aria-busy={busy} aria-labelledby="register-title">
      <h2 id="register-title">Register an MCP server</h2>
      <div className="grid">
        <Labelled id="register-name" label="Name" hint="Unique: letters, digits, dot, dash, underscore." fault={faults.name}>
          {(aria) => <input {...aria} name="name" autoComplete="off" spellCheck={false} autoFocus placeholder="issue-tracker" />}
        </Labelled>
        <Labelled id="register-endpoint" label="Endpoint" hint="The address of its MCP endpoint." fault={faults.endpoint}>
          {(aria) => <input {...aria} name="endpoint" type="url" inputMode="url" autoComplete="off" spellCheck={false} placeholder="https://mcp.example.com/mcp" />}
        </Labelled>
        <Labelled id="register-transport" label="Transport">
          {(aria) => (
            <select {...aria} name="transport" defaultValue="http">
              <option value="http">Streamable HTTP</option>
              <option value="sse">SSE (older servers)</option>
            </select>
          )}
        </Labelled>
        <Labelled id="register-auth" label="Authentication">
          {(aria) => (
            <select {...aria} name="auth" value={bearer ? "bearer" : "none"} onChange={(event) => setBearer(event.target.value === "bearer")}>
              <option value="none">None</option>
              <option value="bearer">Bearer token</option>
            </select>
          )}
        </Labelled>
        {bearer && (
          <Labelled id="register-token" label="Bearer token" hint="Sealed when it arrives; never shown again." fault={faults.token}>
            {(aria) => <input {...aria} name="token" type="password" autoComplete="new-password" spellCheck={false} />}
          </Labelled>
        )}
      </div>
      {problem !== null && <ProblemNotice problem={problem} />}
      <div className="actions">
        <button type="submit" className="primary" disabled={busy}>
          {busy ? "Registering…" : "Register"}
        </button>
        <button type="button" className="quiet" onClick={cancel} disabled={busy}>
          Cancel
        </button>
      </div>
    </form>
  );
}

interface Aria {
  id: string;
  "aria-invalid": boolean;
  "aria-describedby": string | undefined;
}

/** A control with its label, hint and fault tied together for those who cannot see that they belong together. */
function Labelled({ id, label, hint, fault, children }: { id: string; label: string; hint?: string; fault?: string | undefined; children: (aria: Aria) => ReactNode }) {
  const described = [fault && `${id}-fault`, hint && `${id}-hint`].filter(Boolean).join(" ");
  return (
    <div className="field">
      <label htmlFor={id}>{label}</label>
      {children({ id, "aria-invalid": fault !== undefined, "aria-describedby": described === "" ? undefined : described })}
      {fault && (
        <p className="fault" id={`${id}-fault`}>
          {fault}
        </p>
      )}
      {hint && (
        <p className="hint" id={`${id}-hint`}>
          {hint}
        </p>
      )}
    </div>
  );
}

function read(form: HTMLFormElement): NewConfiguration {
  const data = new FormData(form);
  const text = (name: string) => String(data.get(name) ?? "").trim();
  return {
    name: text("name"),
    endpoint: text("endpoint"),
    transport: text("transport") === "sse" ? "sse" : "http",
    auth: text("auth") === "bearer" ? { type: "bearer", token: text("token") } : { type: "none" },
  };
}

function check(typed: NewConfiguration): Faults {
  const faults: Faults = {};
  if (typed.name === "") faults.name = "Give it a name.";
  else if (!/^[A-Za-z0-9._-]{1,64}$/.test(typed.name)) faults.name = "Up to 64 letters, digits, dots, dashes and underscores.";
  if (!URL.canParse(typed.endpoint) || !/^https?:$/.test(new URL(typed.endpoint).protocol)) faults.endpoint = "A full http or https address, such as https://mcp.example.com/mcp.";
  if (typed.auth.type === "bearer" && typed.auth.token === "") faults.token = "Paste the server's token.";
  return faults;
}

/** The input a refusal is about: the gateway says `name`, `endpoint`, `auth.token` and the like. */
function fieldOf(problem: Problem): keyof Faults | null {
  const last = problem.facts.field?.split(/[./]/).at(-1);
  if (problem.facts.code === "conflict" && last === undefined) return "name";
  return last === "name" || last === "endpoint" || last === "token" ? last : null;
}
