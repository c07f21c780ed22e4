/** One tool: what it says of itself, the form to call it, and what the call brought. */

import { useEffect, useRef, useState } from "react";
import type { Answer, Api, Call, Tool } from "../api.ts";
import { asProblem, type Problem } from "../problem.ts";
import { ArgumentsForm } from "./arguments_form.tsx";
import { CallResult } from "./call_result.tsx";
import { ProblemNotice } from "./notices.tsx";

type Progress =
  | { state: "idle" }
  | { state: "running"; stop: () => void }
  | { state: "done"; answer: Answer<Call> }
  | { state: "failed"; problem: Problem };

export function ToolPanel({ api, configuration, tool }: { api: Api; configuration: string; tool: Tool }) {
  const [progress, setProgress] = useState<Progress>({ state: "idle" });
  const running = useRef<AbortController | null>(null);

  // Leaving the tool gives up waiting for it.
  useEffect(() => () => running.current?.abort(), []);

  async function call(argumentsJson: string) {
    const controller = new AbortController();
    running.current = controller;
    setProgress({ state: "running", stop: () => controller.abort() });
    try {
      setProgress({ state: "done", answer: await api.call(configuration, tool.name, argumentsJson, controller.signal) });
    } catch (error) {
      setProgress({ state: "failed", problem: asProblem(error, false) });
    }
  }

  return (
    <section className="panel tool" aria-labelledby="tool-title">
      <h2 id="tool-title">{toolTitle(tool)}</h2>
      {toolTitle(tool) !== tool.name && <p className="endpoint">{tool.name}</p>}
      <Hints annotations={tool.annotations} />
      {tool.description && <p className="about">{tool.description}</p>}
      <ArgumentsForm schema={tool.inputSchema} busy={progress.state === "running"} call={call} />
      {progress.state === "running" && <Running stop={progress.stop} />}
      {progress.state === "done" && <CallResult answer={progress.answer} />}
      {progress.state === "failed" && <ProblemNotice problem={progress.problem} />}
    </section>
  );
}

/** A tool's name for people: MCP puts it in `title`, older servers in the annotations, many nowhere. */
export function toolTitle(tool: Tool): string {
  return tool.title || tool.annotations?.title || tool.name;
}

/** What the server claims about the tool's effects. Claims, not facts: the server is not trusted. */
function Hints({ annotations }: { annotations: Tool["annotations"] }) {
  if (!annotations) return null;
  const readOnly = annotations.readOnlyHint === true;
  const hints = [
    readOnly && { text: "reads only", tone: "calm" },
    !readOnly && annotations.destructiveHint === true && { text: "may destroy", tone: "warn" },
    !readOnly && annotations.idempotentHint === true && { text: "safe to repeat", tone: "calm" },
    annotations.openWorldHint === true && { text: "reaches outside", tone: "" },
  ].filter((hint) => hint !== false);
  if (hints.length === 0) return null;
  return (
    <p className="tags">
      {hints.map(({ text, tone }) => (
        <span key={text} className={`tag ${tone}`}>
          {text}
        </span>
      ))}
      <span className="fine">as its server claims</span>
    </p>
  );
}

function Running({ stop }: { stop: () => void }) {
  const [seconds, setSeconds] = useState(0);
  useEffect(() => {
    const began = performance.now();
    const timer = setInterval(() => setSeconds((performance.now() - began) / 1000), 100);
    return () => clearInterval(timer);
  }, []);
  return (
    <div className="notice running">
      <p>
        <span role="status">The call is under way.</span> <span className="clock">{seconds.toFixed(1)} s</span>
      </p>
      <button type="button" className="small" onClick={stop}>
        Stop waiting
      </button>
    </div>
  );
}
