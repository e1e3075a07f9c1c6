import { expect, test, vi } from "vitest";

import { i18next } from "../i18n";
import { api, messageOf, onSignedOut } from "./client";

const answering = (fetch: () => Promise<Response>) => ({ baseUrl: "http://server", fetch });

test("that the server cannot be reached is said in the language of the page, not in the browser's words", async () => {
  const away = answering(() => Promise.reject(new TypeError("Failed to fetch")));
  const failure: unknown = await api.GET("/api/v1/scheduler/status", away).catch((error: unknown) => error);
  expect(messageOf(failure)).toMatch(/^The server cannot be reached/);
  await i18next.changeLanguage("zh");
  expect(messageOf(failure)).toMatch(/^无法连接服务器/);
});

test("any request that is refused for want of a session asks who is there, but for the one that asks just that", async () => {
  const asked = vi.fn();
  onSignedOut(asked);
  const refusing = answering(() => Promise.resolve(new Response("{}", { status: 401 })));
  await expect(api.POST("/api/v1/scheduler/session", { ...refusing, body: { token: "wrong" } })).rejects.toThrow("HTTP 401");
  expect(asked).not.toHaveBeenCalled();
  await expect(api.POST("/api/v1/scheduler/tasks/{task_id}/pause", { ...refusing, params: { path: { task_id: 1 } } })).rejects.toThrow("HTTP 401");
  expect(asked).toHaveBeenCalledOnce();
});

test("the server is asked to speak the language of the page", async () => {
  const spoken: (string | null)[] = [];
  const listening = {
    baseUrl: "http://server",
    fetch: (request: Request) => {
      spoken.push(request.headers.get("Accept-Language"));
      return Promise.resolve(new Response("{}"));
    },
  };
  for (const language of ["zh", "en"] as const) {
    await i18next.changeLanguage(language);
    await api.GET("/api/v1/scheduler/status", listening);
  }
  expect(spoken).toEqual(["zh", "en"]);
});
