import { Text, Tooltip } from "@mantine/core";
import { useSyncExternalStore } from "react";
import { useTranslation } from "react-i18next";

import { absolute, relative } from "../format";

const listeners = new Set<() => void>();
let now = Date.now();
setInterval(() => {
  now = Date.now();
  listeners.forEach((listener) => listener());
}, 1000);

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** The present, once a second, the same for everything on the page. */
export function useNow(): number {
  return useSyncExternalStore(subscribe, () => now);
}

/** A moment: how far away it is, and on hover or focus exactly when. */
export function Ago({ at }: { at: string | null | undefined }) {
  const { i18n, t } = useTranslation();
  const present = useNow();
  if (at == null) return <Text component="span" c="dimmed" size="sm">{t("common.never")}</Text>;
  const moment = Date.parse(at);
  return (
    <Tooltip label={absolute(moment, i18n.language)} events={{ hover: true, focus: true, touch: true }}>
      <time dateTime={at} tabIndex={0} className="number" style={{ whiteSpace: "nowrap" }}>
        {relative(moment, present, i18n.language)}
      </time>
    </Tooltip>
  );
}

/** A moment, exactly. */
export function Moment({ at }: { at: string | null | undefined }) {
  const { i18n } = useTranslation();
  if (at == null) return <>–</>;
  return (
    <time dateTime={at} className="number">
      {absolute(at, i18n.language)}
    </time>
  );
}
