import { MantineProvider } from "@mantine/core";
import { cleanup, render, screen } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { useState, type ReactNode } from "react";
import { expect, test, vi } from "vitest";

import type { JsonObject } from "../api/actions";
import { ApiError, type Executor, type Task } from "../api/client";
import { browserZone, wallTime } from "../format";
import { i18next } from "../i18n";
import { jsonOf, parseJson } from "../json";
import { Block } from "./feedback";
import { Fires } from "./fires";
import { Page } from "./page";
import ParamsForm from "./params-form";
import { extraErrors, friendly } from "./schema";
import { scheduleOf, type ScheduleDraft } from "./schedule-editor";
import { inUnits, scheduleText } from "./schedule-text";
import { rateDraftOf, rateLimitOf, unlimited } from "./rate-fields";
import { stillWrong } from "./refusal";
import { StateMark } from "./state";
import { always, dayName, windowDraftOf, windowOf, type WindowDraft } from "./window-fields";

const show = (children: ReactNode) => render(<MantineProvider env="test">{children}</MantineProvider>);

const executor = {
  type: "writing",
  info: {
    params_schema: {
      type: "object",
      required: ["topic"],
      properties: {
        topic: { type: "string", title: "Topic", minLength: 3 },
        limit: { anyOf: [{ type: "integer" }, { type: "null" }], default: null, title: "Limit" },
      },
    },
  },
} as unknown as Executor;

test("a form is made of the executor's schema, and what the server refuses stands at its field", () => {
  show(<ParamsForm executor={executor} value={{ topic: "AGI" }} onChange={vi.fn()} errors={{ "params.topic": "taken" }} />);
  expect(screen.getByRole("textbox", { name: /Topic/ })).toHaveValue("AGI");
  expect(screen.getByText("taken")).toBeInTheDocument();
});

test("an optional field is a field, not a choice of schemas", () => {
  expect(friendly(executor.info.params_schema).properties?.limit).toEqual({ type: "integer", title: "Limit" });
});

test("only what was written is sent: no default, no half of an optional object; and any JSON where any may be", async () => {
  const nested = { type: "object", required: ["url"], properties: { url: { type: "string" }, method: { type: "string", default: "GET" } } };
  const open = {
    info: {
      params_schema: {
        type: "object",
        required: ["name"],
        properties: {
          name: { type: "string", title: "Name" },
          limit: { type: "integer", title: "Limit", default: 10 },
          statuses: { anyOf: [{ type: "array", minItems: 1, items: { type: "integer" } }, { type: "null" }], default: null, title: "Statuses" },
          request: { anyOf: [nested, { type: "null" }], default: null, title: "Request" },
          body: { title: "Body", description: "Any JSON.", default: null },
        },
      },
    },
  } as unknown as Executor;
  const onChange = vi.fn();
  const onValid = vi.fn();
  show(<ParamsForm executor={open} value={{}} onChange={onChange} onValid={onValid} />);
  expect(screen.getByRole("textbox", { name: "Limit" })).toHaveAttribute("placeholder", "10");
  await userEvent.type(screen.getByRole("textbox", { name: /Name/ }), "x");
  expect(onChange).toHaveBeenLastCalledWith({ name: "x" });
  const body = screen.getByRole("textbox", { name: "Body" });
  await userEvent.type(body, "[[1, ");
  expect(onValid).toHaveBeenLastCalledWith(false);
  expect(screen.getByText("This is not JSON.")).toBeInTheDocument();
  await userEvent.type(body, "null]");
  expect(onValid).toHaveBeenLastCalledWith(true);
  expect(onChange).toHaveBeenLastCalledWith(expect.objectContaining({ body: [1, null] }));
});

test("an optional object is added, and removed again", async () => {
  const parts = { type: "object", required: ["hour"], properties: { hour: { type: "integer", title: "Hour" }, day: { type: "string", title: "Day" } } };
  const properties = { daily: { anyOf: [{ $ref: "#/$defs/Daily" }, { type: "null" }], default: null, title: "Daily" } };
  const optional = { info: { params_schema: { type: "object", $defs: { Daily: parts }, properties } } } as unknown as Executor;
  function Held() {
    const [value, setValue] = useState<JsonObject>({});
    return <><ParamsForm executor={optional} value={value} onChange={setValue} /><output>{jsonOf(value)}</output></>;
  }
  show(<Held />);
  expect(screen.queryByRole("textbox", { name: /Day/ })).toBeNull();
  await userEvent.click(screen.getByRole("button", { name: "Add" }));
  await userEvent.type(screen.getByRole("textbox", { name: /Day/ }), "x");
  expect(screen.getByRole("status")).toHaveTextContent('{"daily":{"day":"x"}}');
  await userEvent.click(screen.getByRole("button", { name: "Remove" }));
  expect(screen.getByRole("status")).toHaveTextContent("{}");
  expect(screen.queryByRole("textbox", { name: /Day/ })).toBeNull();
});

test("a text that is no JSON counts until that one is mended, whatever another says", async () => {
  const two = { info: { params_schema: { type: "object", properties: { one: { title: "One" }, two: { title: "Two" } } } } } as unknown as Executor;
  const onValid = vi.fn();
  show(<ParamsForm executor={two} value={{}} onChange={vi.fn()} onValid={onValid} />);
  await userEvent.type(screen.getByRole("textbox", { name: "One" }), "[[");
  await userEvent.type(screen.getByRole("textbox", { name: "Two" }), "1");
  expect(onValid).toHaveBeenLastCalledWith(false);
  await userEvent.type(screen.getByRole("textbox", { name: "One" }), "]");
  expect(onValid).toHaveBeenLastCalledWith(true);
});

test("without a schema params are JSON, and what is no object cannot be sent", async () => {
  const onValid = vi.fn();
  const onChange = vi.fn();
  show(<ParamsForm executor={undefined} value={{}} onChange={onChange} onValid={onValid} />);
  const box = screen.getByRole("textbox");
  await userEvent.clear(box);
  await userEvent.type(box, "[[1]");
  expect(onValid).toHaveBeenLastCalledWith(false);
  await userEvent.clear(box);
  await userEvent.type(box, '{{"n": 1}');
  expect(onValid).toHaveBeenLastCalledWith(true);
  expect(onChange).toHaveBeenLastCalledWith({ n: 1 });
});

test("a large integer is shown, left alone and edited to the last digit", async () => {
  const id = { type: "integer", minimum: -(2n ** 63n), maximum: 2n ** 63n - 1n };
  const snow = { info: { params_schema: { type: "object", properties: { id: { ...id, title: "Id" }, ids: { type: "array", items: { anyOf: [id, { type: "string" }] } } } } } } as unknown as Executor;
  function Form() {
    const [value, setValue] = useState(parseJson('{"id": -9007199254740993, "ids": [9007199254740993]}') as JsonObject);
    return <><ParamsForm executor={snow} value={value} onChange={setValue} /><output>{jsonOf(value)}</output></>;
  }
  show(<Form />);
  const input = screen.getByRole("textbox", { name: "Id" });
  expect(input).toHaveValue("-9007199254740993");
  await userEvent.type(input, "{ArrowUp}{Tab}");
  expect(screen.getByRole("status")).toHaveTextContent('{"id":-9007199254740993,"ids":[9007199254740993]}');
  await userEvent.clear(input);
  await userEvent.type(input, "9223372036854775807{Tab}");
  expect(screen.getByRole("status")).toHaveTextContent('{"id":9223372036854775807,"ids":[9007199254740993]}');
  expect(input).not.toHaveAttribute("aria-invalid", "true");
  await userEvent.clear(input);
  await userEvent.type(input, "42{ArrowUp}{Tab}");
  expect(screen.getByRole("status")).toHaveTextContent('{"id":43,"ids":[9007199254740993]}');
  const item = screen.getByDisplayValue("9007199254740993");
  await userEvent.type(item, "{Backspace}2{Tab}");
  expect(screen.getByRole("status")).toHaveTextContent('{"id":43,"ids":[9007199254740992]}');
  expect(item).toHaveValue("9007199254740992");
});

test("a moment is shown on the browser's clock, which is named, and written with an offset", async () => {
  const pool = { info: { params_schema: { type: "object", properties: { not_before: { anyOf: [{ type: "string", format: "date-time" }, { type: "null" }], title: "Not Before" } } } } } as unknown as Executor;
  const onChange = vi.fn();
  show(<ParamsForm executor={pool} value={{ not_before: "2030-01-07T04:00:00Z" }} onChange={onChange} />);
  const input = screen.getByRole("button", { name: /Not Before/ });
  expect(input).toHaveTextContent(wallTime("2030-01-07T04:00:00Z"));
  expect(screen.getByText(`Your time (${browserZone})`)).toBeInTheDocument();
  await userEvent.click(input);
  await userEvent.click(await screen.findByRole("button", { name: "9 January 2030" }));
  const [{ not_before }] = onChange.mock.lastCall as [{ not_before: string }];
  expect(not_before).toMatch(/^2030-01-09T\d\d:00:00[+-]\d\d:\d\d$/);
  expect(wallTime(not_before)).toBe(wallTime("2030-01-09T04:00:00Z"));
});

const letter = {
  info: {
    params_schema: {
      type: "object",
      additionalProperties: false,
      required: ["topic"],
      $defs: { Daily: { title: "Daily", type: "object", properties: { hour: { type: "integer", title: "Hour" } } } },
      properties: {
        topic: { type: "string", title: "Topic", minLength: 3 },
        until: { anyOf: [{ type: "string", format: "date-time" }, { type: "integer" }, { const: "never" }, { type: "array", items: { type: "string" } }, { type: "null" }], title: "Until", description: "How long." },
        rhythm: { anyOf: [{ $ref: "#/$defs/Daily" }, { type: "object", title: "Weekly" }], title: "Rhythm" },
      },
    },
  },
} as unknown as Executor;

test.each([
  ["en", ["Moment", "Whole number", "never", "List (Text)", "Nothing"]],
  ["zh", ["时刻", "整数", "never", "列表（文本）", "空"]],
])("what a field may be is named and not numbered (%s)", async (language, names) => {
  await i18next.changeLanguage(language);
  show(<ParamsForm executor={letter} value={{ topic: "abc" }} onChange={vi.fn()} />);
  await userEvent.click(screen.getByRole("textbox", { name: "Until" }));
  expect(screen.getAllByRole("option", { hidden: true }).map((option) => option.textContent)).toEqual([...names, "Daily", "Weekly"]);
  expect(screen.getByRole("textbox", { name: "Rhythm" })).toHaveValue("Daily");
  expect(screen.getByText("How long.")).toBeInTheDocument();
});

test.each([
  ["en", "At least 3 characters.", "This is required.", "There is no such param."],
  ["zh", "至少 3 个字符。", "必填。", "没有这个参数。"],
])("what is wrong is said once, in the language of the page (%s)", async (language, short, required, unknown) => {
  await i18next.changeLanguage(language);
  show(<ParamsForm executor={letter} value={{ topic: "A", old: 1, until: true }} onChange={vi.fn()} errors={{ "params.topic": "String should have at least 3 characters", "params.old": "Extra inputs are not permitted" }} />);
  expect(screen.getAllByText(short)).toHaveLength(1);
  expect(screen.getAllByText(`old: ${unknown}`)).toHaveLength(1);
  const topic = screen.getByRole("textbox", { name: /Topic/ });
  await userEvent.type(topic, "{Tab}");
  expect(screen.getAllByText(short)).toHaveLength(1);
  expect(screen.queryByText(/should have at least/)).toBeNull();
  cleanup();
  show(<ParamsForm executor={letter} value={{}} onChange={vi.fn()} />);
  await userEvent.click(screen.getByRole("textbox", { name: /Topic/ }));
  await userEvent.tab();
  expect(screen.getAllByText(required)).toHaveLength(1);
});

test("an error of a field with several forms is said at its input, and not at the choice too", () => {
  show(<ParamsForm executor={letter} value={{ topic: "abc", until: 5 }} onChange={vi.fn()} errors={{ "params.until": "in the past" }} />);
  expect(screen.getAllByText("in the past")).toHaveLength(1);
});

test("a checkbox that is left alone is checked where that is what the executor takes it for", async () => {
  const follow = { type: "boolean", title: "Follow", default: true };
  const link = { info: { params_schema: { type: "object", properties: { follow, quiet: { type: "boolean", title: "Quiet" } } } } } as unknown as Executor;
  const onChange = vi.fn();
  show(<ParamsForm executor={link} value={{}} onChange={onChange} />);
  expect(screen.getByRole("checkbox", { name: "Quiet" })).not.toBeChecked();
  expect(screen.getByRole("checkbox", { name: "Follow" })).toBeChecked();
  await userEvent.click(screen.getByRole("checkbox", { name: "Follow" }));
  expect(onChange).toHaveBeenLastCalledWith({ follow: false });
});

test("what was refused is wrong until it is changed, and nothing else is forgiven with it", () => {
  const refused = new ApiError(422, {
    errors: [
      { field: "params.topic", message: "missing", kind: "missing" },
      { field: "params.steps.0.id", message: "taken", kind: "invalid" },
      { field: "schedule.cron.expression", message: "wrong", kind: "invalid" },
    ],
  });
  const sent = { params: { steps: [{ id: "a" }] }, schedule: { type: "cron", expression: "x" } };
  expect(Object.keys(stillWrong(refused, sent, sent))).toEqual(["params.topic", "params.steps.0.id", "schedule.cron.expression"]);
  expect(Object.keys(stillWrong(refused, sent, { ...sent, params: { steps: [{ id: "b", name: 1 }] } }))).toEqual(["params.topic", "schedule.cron.expression"]);
  expect(Object.keys(stillWrong(refused, sent, { ...sent, params: { ...sent.params, topic: "AI" } }))).toEqual(["params.steps.0.id", "schedule.cron.expression"]);
  expect(Object.keys(stillWrong(refused, sent, { ...sent, schedule: { type: "cron", expression: "y" } }))).toEqual(["params.topic", "params.steps.0.id"]);
});

test("errors go to the fields they name, however deep, and to no others", () => {
  expect(extraErrors({ "params.a.b": ["wrong"], params: ["all of it"], name: ["taken"] }, "params")).toEqual({
    __errors: ["all of it"],
    a: { b: { __errors: ["wrong"] } },
  });
});

const draft: ScheduleDraft = { kind: "interval", expression: "0 9 * * *", amount: 90, unit: "minutes", at: "2030-01-07 09:00:00", timezone: "UTC" };

test("a draft of a schedule is what the API takes", () => {
  expect(scheduleOf(draft)).toEqual({ type: "interval", seconds: 5400 });
  expect(scheduleOf({ ...draft, kind: "cron" })).toEqual({ type: "cron", expression: "0 9 * * *" });
  expect(scheduleOf({ ...draft, kind: "at" })).toEqual({ type: "at", at: "2030-01-07T09:00:00" });
  expect(scheduleOf({ ...draft, kind: "none" })).toBeNull();
});

test("an interval is told in the largest unit that fits", async () => {
  expect(inUnits(5400)).toEqual({ amount: 90, unit: "minutes" });
  expect(inUnits(1_209_600)).toEqual({ amount: 2, unit: "weeks" });
  expect(inUnits(0.5)).toEqual({ amount: 0.5, unit: "seconds" });
  const task = { schedule: { type: "interval", expression: "7200.0" } } as Parameters<typeof scheduleText>[2];
  expect(scheduleText(i18next.t, "en", task)).toBe("Every 2 hours");
  await i18next.changeLanguage("zh");
  expect(scheduleText(i18next.t, "zh", task)).toMatch(/2 .*小时/);
});

test("a one-off's moment is told as people write it, in the task's zone", () => {
  const task = { schedule: { type: "at", expression: "2026-11-27T06:56:23.249751+00:00" }, timezone: "Europe/Berlin" } as Parameters<typeof scheduleText>[2];
  expect(scheduleText(i18next.t, "en-GB", task)).toBe("27 Nov 2026, 07:56:23 GMT+1");
});

test("fires stand in the task's zone; the offset only where clocks change between them", () => {
  const { unmount } = show(<Fires fires={["2030-01-07T08:00:00Z", "2030-01-08T08:00:00Z"]} zone="Europe/Berlin" language="en-GB" />);
  expect(screen.getByText("7 Jan 2030, 09:00:00")).toBeInTheDocument();
  unmount();
  show(<Fires fires={["2030-03-30T08:00:00Z", "2030-03-31T07:00:00Z"]} zone="Europe/Berlin" language="en-GB" />);
  expect(screen.getByText("30 Mar 2030, 09:00:00 GMT+1")).toBeInTheDocument();
  expect(screen.getByText("31 Mar 2030, 09:00:00 GMT+2")).toBeInTheDocument();
});

test("a zone that the browser does not know is told in UTC, and named", () => {
  show(<Fires fires={["2030-01-07T08:00:00Z"]} zone="Mars/Olympus" language="en-GB" />);
  expect(screen.getByText("UTC (this browser does not know Mars/Olympus)")).toBeInTheDocument();
  expect(screen.getAllByText("7 Jan 2030, 08:00:00")[0]).toBeInTheDocument();
});

test("a state has a name beside its colour, in the language of the page", async () => {
  await i18next.changeLanguage("zh");
  show(<StateMark state="failed" reason="timeout" />);
  expect(screen.getByText(/失败/)).toBeInTheDocument();
});

test("hostile text stays text", () => {
  const hostile = "<img src=x onerror=alert(1)><script>alert(2)</script>";
  show(<Block text={hostile} label="log" />);
  expect(screen.getByRole("region", { name: "log" })).toHaveTextContent(hostile);
  expect(document.querySelector("img, script")).toBeNull();
});

test("a text that turns the direction of writing turns nothing around it", () => {
  const turning = "a\u202eb\u2066c";
  show(<Block text={turning} label="log" />);
  expect(screen.getByRole("region", { name: "log" })).toHaveTextContent("a\\u202eb\\u2066c");
  expect(i18next.t("tasks.deleted", { name: `${turning}<&` })).toBe("Deleted a\\u202eb\\u2066c<&");
  show(<Page title={turning}>…</Page>);
  expect(screen.getByRole("heading")).toHaveTextContent("a\\u202eb\\u2066c");
});

test("a window and a calendar are sent only where something was chosen, and are read back as they were", () => {
  expect(windowOf(always)).toEqual({ run_window: null, calendar: null, closed_policy: "skip" });
  const draft: WindowDraft = { ...always, opens: "22:00", days: ["fri"], country: " cn ", closed: ["2026-01-01"], closed_policy: "defer" };
  const sent = windowOf(draft);
  expect(sent.run_window).toEqual({ opens: "22:00", closes: "00:00", days: ["fri"] });
  expect(sent.calendar).toEqual({ country: "CN", subdivision: null, closed: ["2026-01-01"], open: [] });
  expect(windowOf(windowDraftOf(sent as unknown as Task))).toEqual(sent);
});

test("a rate limit without a number is none, and one that was set is read back as it was", () => {
  expect(rateLimitOf({ ...unlimited, key: "account_id" })).toBeNull();
  const rate_limit = rateLimitOf({ ...unlimited, limit: 10, per_seconds: 60, key: "account_id" });
  expect(rate_limit).toEqual({ limit: 10, per_seconds: 60, burst: null, key: "account_id" });
  expect(rateLimitOf(rateDraftOf({ rate_limit } as unknown as Task))).toEqual(rate_limit);
});

test("a day of the week is named in the reader's language", () => {
  expect([dayName("mon", "en"), dayName("sun", "zh-CN")]).toEqual(["Mon", "周日"]);
});
