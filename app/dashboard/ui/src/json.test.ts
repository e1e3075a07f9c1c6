import { expect, test } from "vitest";

import { json } from "./format";
import { jsonOf, parseJson } from "./json";

test.each(["9007199254740993", "-9007199254740993", "18446744073709551615", "9007199254740991", "0.1", "1e+22", "-7"])("%s stays what it is", (number) => {
  const text = `{"params":{"ids":[${number}]}}`;
  expect(jsonOf(parseJson(text))).toBe(text);
  expect(json(parseJson(text)).replace(/\s/g, "")).toBe(text);
  expect(JSON.stringify(parseJson(text))).toBe(text); // eslint-disable-line no-restricted-properties -- as libraries do
});

test("what is no JSON is refused, as is one name with two values, of which one would be lost", () => {
  for (const text of ["", "{", "[1,]", "01", '{"a": 1, "a": 2}']) expect(() => parseJson(text)).toThrow(SyntaxError);
});
