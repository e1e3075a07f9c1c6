import { afterEach, expect, test, vi } from "vitest";

import { i18next } from "../i18n";
import { api, messageOf } from "./client";

afterEach(() => vi.unstubAllGlobals());

test("that the server cannot be reached is said in the language of the page, not in the browser's words", async () => {
  vi.stubGlobal("fetch", () => Promise.reject(new TypeError("Failed to fetch")));
  const failure: unknown = await api.GET("/api/v1/scheduler/status", { baseUrl: "http://away" }).catch((error: unknown) => error);
  expect(messageOf(failure)).toMatch(/^The server cannot be reached/);
  await i18next.changeLanguage("zh");
  expect(messageOf(failure)).toMatch(/^无法连接服务器/);
});
