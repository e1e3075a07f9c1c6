import { MantineProvider } from "@mantine/core";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { fireEvent, render, screen } from "@testing-library/react";
import { expect, test } from "vitest";

import { sessionQuery } from "../api/queries";
import { Decision } from "./decision";
import { SessionGate } from "./session";

function show(role: string, approvers: string[]) {
  const client = new QueryClient();
  client.setQueryData(sessionQuery.queryKey, { name: "ann", role, csrf_token: null });
  return render(
    <MantineProvider>
      <QueryClientProvider client={client}><SessionGate><Decision id={1} title="it" approvers={approvers} /></SessionGate></QueryClientProvider>
    </MantineProvider>,
  );
}

test.each([
  ["viewer", [], false],
  ["operator", [], true],
  ["operator", ["bob"], false],
  ["operator", ["bob", "ann"], true],
  ["admin", ["bob"], true],
])("a %s may decide what is for %j: %s", (role, approvers, may) => {
  show(role, approvers);
  expect(screen.queryAllByRole("button", { name: "Approve: it" })).toHaveLength(may ? 1 : 0);
});

test("a comment that is too long is not cut off: it says so, and nothing can be decided", () => {
  show("operator", []);
  const comment = screen.getByRole("textbox", { name: "Comment" });
  fireEvent.change(comment, { target: { value: "x".repeat(2001) } });
  expect(screen.getByText("2001 characters; 2000 are the most")).toBeInTheDocument();
  expect(screen.getByRole("button", { name: "Approve: it" })).toBeDisabled();
  fireEvent.change(comment, { target: { value: "x".repeat(2000) } });
  expect(screen.getByRole("button", { name: "Approve: it" })).toBeEnabled();
});
