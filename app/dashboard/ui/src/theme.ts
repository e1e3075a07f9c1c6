import { createTheme, Modal, Notification, type MantineColorsTuple, type MantineThemeOverride } from "@mantine/core";
import type { TFunction } from "i18next";

import type { ExecutionState } from "./api/client";

const ink: MantineColorsTuple = [
  "#eef2ff", "#dfe5fb", "#bcc8f4", "#96a9ee", "#778ee8", "#637de5", "#5472e2", "#3f5ec6", "#3653b2", "#2a479e",
];

const base = createTheme({
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

/** The theme, which names in the page's language what has no text. */
export function themeIn(t: TFunction): MantineThemeOverride {
  const closeButtonProps = { "aria-label": t("common.close") };
  return {
    ...base,
    components: {
      Modal: Modal.extend({ defaultProps: { closeButtonProps } }),
      Notification: Notification.extend({ defaultProps: { closeButtonProps } }),
    },
  };
}

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
