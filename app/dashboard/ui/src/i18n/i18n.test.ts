import { expect, test } from "vitest";

import { en } from "./en";
import { zh } from "./zh";

type Tree = { [key: string]: string | Tree };

const leaves = (tree: Tree, path = ""): [string, string][] =>
  Object.entries(tree).flatMap(([key, value]) => (typeof value === "string" ? [[`${path}${key}`, value] as [string, string]] : leaves(value, `${path}${key}.`)));

const placeholders = (text: string) => [...text.matchAll(/\{\{(\w+)\}\}/g)].map((found) => found[1]).sort();

test("both languages say everything, with the same values in it", () => {
  // Chinese has no plural of its own: i18next asks for `_other` alone.
  const english = new Map(leaves(en as Tree).filter(([key]) => !key.endsWith("_one")));
  const chinese = new Map(leaves(zh as Tree).filter(([key]) => !key.endsWith("_one")));
  expect([...chinese.keys()].sort()).toEqual([...english.keys()].sort());
  for (const [key, text] of english) expect([key, placeholders(chinese.get(key) ?? "")]).toEqual([key, placeholders(text)]);
});
