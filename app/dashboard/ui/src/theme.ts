import { createTheme, type MantineColorsTuple } from "@mantine/core";

import type { ExecutionState } from "./api/client";

const ink: MantineColorsTuple = [
  "#eef2ff", "#dfe5fb", "#bcc8f4", "#96a9ee", "#778ee8", "#637de5", "#5472e2", "#3f5ec6", "#3653b2", "#2a479e",
];

export const theme = createTheme({
  primaryColor: "ink",
  primaryShade: { light: 8, dark: 7 },
  colors: { ink },
  autoContrast: true,
  defaultRadius: "md",
  fontFamily:
    'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", sans-serif',
  fontFamilyMonospace: 'ui-monospace, "SF Mono", Menlo, Consolas, "Noto Sans Mono CJK SC", monospace',
  headings: { fontWeight: "650" },
  cursorType: "pointer",
});

/** One hue for each state, in both colour schemes; the state's name always stands beside it. */
export const stateColors: Record<ExecutionState, string> = {
  pending: "#7c8797",
  running: "#3b82f6",
  retrying: "#d98a00",
  suspended: "#2f9e9e",
  parked: "#9061f9",
  success: "#22a06b",
  failed: "#e0413f",
  cancelled: "#8a7f72",
  skipped: "#a3adba",
};
