import { expect, test } from "vitest";

import { columnsOf } from "./workflow-graph";

const steps = (...ids: string[]) => ids.map((id) => ({ id }));
const edge = (source: string, target: string) => ({ source, target });

test("a step stands to the right of everything it waits for", () => {
  const edges = [edge("draft", "check"), edge("check", "publish"), edge("draft", "publish"), edge("draft", "translate")];
  expect(columnsOf({ steps: steps("draft", "check", "translate", "publish"), edges })).toEqual([["draft"], ["check", "translate"], ["publish"]]);
});

test("steps that wait for nothing stand first, in their written order", () => {
  expect(columnsOf({ steps: steps("b", "a"), edges: [] })).toEqual([["b", "a"]]);
});
