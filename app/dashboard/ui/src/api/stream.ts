/** The server's stream of changes, of which all windows of a browser read one. */

/** `began`: a stream that is new, of which nobody heard what was before; `goesOn`: one that others were reading. */
export type News = { is: "began" | "goesOn" | "lost" | "refused" } | { is: "changes"; data: string };

const NAME = "contenthub-stream";

/**
 * Hear the server's news until the returned function is called.
 *
 * A browser opens six connections to a server and no more, and a stream keeps one: so one window reads, whose turn is
 * a lock, and tells the others. A browser has no locks for pages that came by plain HTTP from another machine; there
 * every window reads for itself.
 */
export function hearNews(hear: (news: News) => void): () => void {
  const windows = new BroadcastChannel(NAME);
  const leaving = new AbortController();
  let reading: News["is"] | undefined;
  const tell = (news: News) => {
    if (news.is !== "changes") reading = news.is;
    windows.postMessage(news);
    hear(news);
  };
  const locks = navigator.locks as LockManager | undefined;
  const read = () =>
    new Promise<void>((done) => {
      const stop = readStream(tell);
      leaving.signal.addEventListener("abort", () => {
        stop();
        done();
      });
    });
  if (locks === undefined) {
    void read();
  } else {
    windows.onmessage = ({ data }: MessageEvent<News | { is: "asked" }>) => {
      if (data.is !== "asked") hear(data);
      else if (reading !== undefined) windows.postMessage({ is: reading === "began" ? "goesOn" : "lost" } satisfies News);
    };
    windows.postMessage({ is: "asked" });
    locks.request(NAME, { signal: leaving.signal }, read).catch(() => undefined); // it was left before its turn
  }
  return () => {
    leaving.abort();
    windows.close();
  };
}

/** The browser reconnects by itself, but not after a refusal: a server that restarts may refuse for a while. */
function readStream(tell: (news: News) => void): () => void {
  let source: EventSource;
  let again: ReturnType<typeof setTimeout> | undefined;
  const connect = () => {
    source = new EventSource("/api/v1/scheduler/events");
    source.addEventListener("hello", () => tell({ is: "began" }));
    source.addEventListener("changes", ({ data }: MessageEvent<string>) => tell({ is: "changes", data }));
    source.onerror = () => {
      const isRefused = source.readyState === EventSource.CLOSED;
      tell({ is: isRefused ? "refused" : "lost" });
      if (isRefused) again = setTimeout(connect, 3_000);
    };
  };
  connect();
  return () => {
    source.close();
    clearTimeout(again);
  };
}
