import { Group, NumberInput, SegmentedControl, Select, Stack, Text, TextInput } from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { useTranslation } from "react-i18next";

import { previewSchedule, type JsonObject } from "../api/actions";
import { ApiError, errorOf } from "../api/client";
import { WallTimePicker } from "./moment-picker";
import { browserZone } from "../format";
import { languageOf } from "../i18n";
import { Fires } from "./fires";
import { Failure } from "./feedback";
import { unitSeconds, type Unit } from "./schedule-text";
import { numberOf, type Typed } from "./typed-number";

export interface ScheduleDraft {
  kind: "cron" | "interval" | "at" | "none";
  expression: string;
  amount: Typed;
  unit: Unit;
  at: string | null;
  timezone: string;
}

/** The draft as the API takes it; null: no schedule. */
export function scheduleOf(draft: ScheduleDraft): Record<string, unknown> | null {
  if (draft.kind === "cron") return { type: "cron", expression: draft.expression };
  if (draft.kind === "interval") {
    const amount = numberOf(draft.amount);
    return { type: "interval", seconds: typeof amount === "number" ? amount * unitSeconds[draft.unit] : (amount ?? "") };
  }
  if (draft.kind === "at") return { type: "at", at: draft.at?.replace(" ", "T") ?? "" };
  return null;
}

const zones = Intl.supportedValuesOf("timeZone");
const kinds = ["cron", "interval", "at", "none"] as const;

/** What of a task decides when it fires, as the API takes it. */
export interface Firing {
  definition: JsonObject;
  /** Where an interval counts from; undefined: from now. */
  anchor: string | undefined;
}

interface Props {
  draft: ScheduleDraft;
  onChange: (draft: ScheduleDraft) => void;
  errors: Record<string, string>;
  firing: Firing;
}

/** A schedule, and what it will do, as it is typed. */
export function ScheduleEditor({ draft, onChange, errors, firing }: Props) {
  const { t } = useTranslation();
  const change = (changes: Partial<ScheduleDraft>) => onChange({ ...draft, ...changes });
  // A browser lists one name of each zone and not always the one that is stored: Asia/Calcutta for Asia/Kolkata.
  const [opened] = useState(draft.timezone);
  const zoneNames = [...new Set(["UTC", browserZone, opened, draft.timezone, ...zones])];
  return (
    <Stack gap="sm">
      <SegmentedControl
        aria-label={t("form.kind")}
        value={draft.kind}
        onChange={(kind) => change({ kind: kind as ScheduleDraft["kind"] })}
        data={kinds.map((value) => ({ value, label: t(`form.${value}`) }))}
      />
      {draft.kind === "cron" ? (
        <TextInput
          label={t("form.expression")}
          description={t("form.expressionHint")}
          classNames={{ input: "mono" }}
          value={draft.expression}
          onChange={(event) => change({ expression: event.currentTarget.value })}
          error={errorOf(errors, "schedule")}
          spellCheck={false}
          autoComplete="off"
          required
        />
      ) : null}
      {draft.kind === "interval" ? (
        <Group align="flex-end" gap="xs">
          <NumberInput label={t("form.every")} value={draft.amount ?? ""} w={120} onChange={(amount) => change({ amount })} error={errorOf(errors, "schedule")} required />
          <Select aria-label={t("form.unit")} value={draft.unit} allowDeselect={false} w={140} data={Object.keys(unitSeconds).map((value) => ({ value, label: t(`form.${value as Unit}`) }))} onChange={(value) => change({ unit: (value ?? "minutes") as Unit })} />
        </Group>
      ) : null}
      {draft.kind === "at" ? (
        <WallTimePicker label={t("form.moment", { zone: draft.timezone })} value={draft.at} onChange={(value) => change({ at: value })} error={errorOf(errors, "schedule")} required />
      ) : null}
      {draft.kind === "none" ? (
        <Text size="sm" c="dimmed">{t("tasks.noSchedule")}</Text>
      ) : (
        <>
          <Select label={t("form.zone")} searchable value={draft.timezone} data={zoneNames} allowDeselect={false} onChange={(value) => change({ timezone: value ?? "UTC" })} error={errors.timezone} limit={100} />
          {isComplete(draft) ? <Preview firing={firing} zone={draft.timezone} /> : null}
        </>
      )}
    </Stack>
  );
}

function isComplete({ kind, at, expression, amount }: ScheduleDraft): boolean {
  if (kind === "interval") return typeof numberOf(amount) === "number";
  return kind === "at" ? at !== null : expression.trim() !== "";
}

function Preview({ firing, zone }: { firing: Firing; zone: string }) {
  const { t, i18n } = useTranslation();
  const [settled] = useDebouncedValue(firing, 200);
  const found = useQuery({
    queryKey: ["preview", settled, languageOf(i18n.language)],
    queryFn: () => previewSchedule(settled.definition, languageOf(i18n.language), settled.anchor),
    retry: false,
    placeholderData: keepPreviousData,
  });
  const shown = found.error === null ? found.data : undefined;
  return (
    <Stack gap="xs" aria-live="polite" role="region" aria-label={t("form.preview")}>
      {found.error instanceof ApiError ? <Text size="sm" c="var(--mantine-color-error)">{found.error.message}</Text> : found.error ? <Failure error={found.error} /> : null}
      {shown ? (
        <>
          <Text size="sm" fw={600} data-testid="description">{shown.description}</Text>
          {shown.warnings.map((warning) => <Text key={warning} size="sm" c="var(--mantine-color-error)">{t("form.warnings")}: {warning}</Text>)}
          <Fires fires={shown.fires} zone={zone} language={i18n.language} />
        </>
      ) : null}
    </Stack>
  );
}
