/** What a call brought: its content blocks, whether the tool itself said no, and where the time went. */

import { useEffect, useRef, useState } from "react";
import type { Answer, Call } from "../api.ts";
import { decodedBytes, readResult, readTimings, type Block } from "../result.ts";

export function CallResult({ answer }: { answer: Answer<Call> }) {
  const { isError, blocks, structured } = readResult(answer.value.result);
  const nothing = blocks.length === 0 && structured === null;
  return (
    <section className={isError ? "result refused" : "result"} aria-labelledby="result-title">
      <h3 id="result-title" role="status">
        {isError ? "The tool ran and reported an error" : "The tool answered"}
      </h3>
      {blocks.map((block, index) => (
        <BlockView key={index} block={block} />
      ))}
      {nothing && <p className="hint">The tool returned no content.</p>}
      {structured !== null && (
        <details open={blocks.length === 0}>
          <summary>Structured content</summary>
          <pre tabIndex={0}>{structured}</pre>
        </details>
      )}
      <Timings timings={answer.value.timings_ms} />
      <details>
        <summary>The answer as received</summary>
        <pre tabIndex={0}>{answer.raw}</pre>
      </details>
      <p className="fine">
        Call <code>{answer.value.id}</code>
      </p>
    </section>
  );
}

function BlockView({ block }: { block: Block }) {
  switch (block.kind) {
    case "text":
      return (
        <pre className="text" tabIndex={0}>
          {block.text}
        </pre>
      );
    case "image":
      return <Image mimeType={block.mimeType} base64={block.base64} />;
    case "link":
      return (
        <p className="block">
          {block.href === null ? (
            <>
              {block.name} <code>{block.uri}</code>
            </>
          ) : (
            <a href={block.href} target="_blank" rel="noopener noreferrer">
              {block.name}
            </a>
          )}
          {block.description && <span className="hint"> {block.description}</span>}
        </p>
      );
    case "resource":
      return (
        <figure>
          <figcaption>{block.uri}</figcaption>
          <pre className="text" tabIndex={0}>
            {block.text}
          </pre>
        </figure>
      );
    case "binary":
      return (
        <p className="block">
          {block.label}: {block.mimeType}, {decodedBytes(block.base64).toLocaleString()} bytes
        </p>
      );
    case "other":
      return <pre tabIndex={0}>{block.json}</pre>;
  }
}

/**
 * Drawn on a canvas, because the content security policy allows images from the gateway only: an image in an answer
 * can then neither load anything nor run anything.
 */
function Image({ mimeType, base64 }: { mimeType: string; base64: string }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [failed, setFailed] = useState(false);
  useEffect(() => {
    let gone = false;
    const draw = async () => {
      const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
      const picture = await createImageBitmap(new Blob([bytes], { type: mimeType }));
      if (gone || canvas.current === null) return;
      canvas.current.width = picture.width;
      canvas.current.height = picture.height;
      canvas.current.getContext("2d")?.drawImage(picture, 0, 0);
    };
    draw().catch(() => !gone && setFailed(true));
    return () => {
      gone = true;
    };
  }, [mimeType, base64]);
  const label = `${mimeType}, ${decodedBytes(base64).toLocaleString()} bytes`;
  if (failed) return <p className="block">Image that cannot be shown: {label}</p>;
  return <canvas ref={canvas} className="picture" role="img" aria-label={`Image: ${label}`} />;
}

function Timings({ timings }: { timings: unknown }) {
  const rows = readTimings(timings);
  if (rows.length === 0) return null;
  const longest = Math.max(...rows.map(({ ms }) => ms), Number.EPSILON);
  return (
    <table className="timings">
      <caption>Timings</caption>
      <tbody>
        {rows.map(({ name, ms }) => (
          <tr key={name}>
            <th scope="row">{name}</th>
            <td>{ms < 10 ? ms.toFixed(2) : ms.toFixed(0)} ms</td>
            <td aria-hidden="true">
              <span className="length" style={{ width: `${Math.max(1, (Math.max(0, ms) / longest) * 100)}%` }} />
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
