import { expect, test } from "vitest";

import { absolute, count, duration, offsetOf, percent, relative, wallTime } from "./format";

test.each([
  [null, "–"],
  [0, "0 s"],
  [0.00001, "< 0.1 ms"],
  [0.0042, "4.2 ms"],
  [0.15, "150 ms"],
  [0.9999, "1.0 s"],
  [9.26, "9.3 s"],
  [42.4, "42 s"],
  [75, "1 m 15 s"],
  [3600, "1 h"],
  [90_061, "1 d 1 h"],
])("a duration of %s seconds reads %s", (seconds, said) => {
  expect(duration(seconds)).toBe(said);
});

test("how far away a moment is, in the language of the page", () => {
  const now = Date.UTC(2030, 0, 7, 12);
  expect(relative(now - 90_000, now, "en")).toBe("1 min. ago");
  expect(relative(now + 7_200_000, now, "zh-CN")).toBe("2小时后");
  expect(relative(now, now, "en")).toBe("now");
});

test("a moment is told in the zone that is asked for, with its distance from UTC", () => {
  const summer = "2030-07-01T07:00:00+00:00";
  expect(absolute(summer, "en-GB", "Europe/Berlin")).toBe("1 Jul 2030, 09:00:00 GMT+2");
  expect(absolute(summer, "en-GB", "Europe/Berlin", false)).toBe("1 Jul 2030, 09:00:00");
  expect(absolute(summer, "zh", "Europe/Berlin")).toBe("2030年7月1日 09:00:00 GMT+2");
  expect(offsetOf(summer, "Europe/Berlin")).toBe("GMT+2");
  expect(offsetOf("2030-01-01T07:00:00+00:00", "Europe/Berlin")).toBe("GMT+1");
});

test("what a clock somewhere shows, without a zone", () => {
  expect(wallTime("2030-07-01T22:30:05Z", "Europe/Berlin")).toBe("2030-07-02 00:30:05");
});

test("a rate near to perfect is not rounded up to it", () => {
  expect(percent(0.9996, "en")).toBe("99.96%");
  expect(percent(1, "en")).toBe("100%");
  expect(percent(null, "en")).toBe("–");
  expect(count(1234567, "en")).toBe("1,234,567");
});
