import "@mantine/dates/styles.css";

import { Chip, Group, Input, Select, SimpleGrid, Stack, TextInput } from "@mantine/core";
import { DatePickerInput, TimeInput } from "@mantine/dates";
import { useTranslation } from "react-i18next";

import { errorOf, type Schemas, type Task } from "../api/client";
import { calendarLocale } from "./calendar-locale";

type Window = Schemas["RunWindow"];
type Calendar = Schemas["Calendar"];
type Weekday = NonNullable<Window["days"]>[number];

const weekdays: Weekday[] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const aMonday = Date.UTC(2024, 0, 1);

/** When a task may fire, as it is typed. */
export interface WindowDraft {
  opens: string;
  closes: string;
  days: Weekday[];
  country: string;
  subdivision: string;
  closed: string[];
  open: string[];
  closed_policy: Task["closed_policy"];
}

export const always: WindowDraft = { opens: "", closes: "", days: [], country: "", subdivision: "", closed: [], open: [], closed_policy: "skip" };

export function windowDraftOf({ run_window, calendar, closed_policy }: Task): WindowDraft {
  return {
    opens: run_window?.opens ?? "",
    closes: run_window?.closes ?? "",
    days: run_window?.days ?? [],
    country: calendar?.country ?? "",
    subdivision: calendar?.subdivision ?? "",
    closed: calendar?.closed ?? [],
    open: calendar?.open ?? [],
    closed_policy,
  };
}

/** The draft as the API takes it; null: always open. */
export function windowOf({ opens, closes, days, country, subdivision, closed, open, closed_policy }: WindowDraft) {
  const hasWindow = opens !== "" || closes !== "" || days.length > 0;
  const hasCalendar = country.trim() !== "" || subdivision.trim() !== "" || closed.length > 0 || open.length > 0;
  const window: Window = { opens: opens || "00:00", closes: closes || "00:00", days };
  const calendar: Calendar = { country: country.trim().toUpperCase() || null, subdivision: subdivision.trim().toUpperCase() || null, closed, open };
  return { run_window: hasWindow ? window : null, calendar: hasCalendar ? calendar : null, closed_policy };
}

export function dayName(day: Weekday, language: string): string {
  const moment = aMonday + weekdays.indexOf(day) * 86_400_000;
  return new Intl.DateTimeFormat(language, { weekday: "short", timeZone: "UTC" }).format(moment);
}

interface Props {
  draft: WindowDraft;
  onChange: (changes: Partial<WindowDraft>) => void;
  errors: Record<string, string>;
}

export function WindowFields({ draft, onChange, errors }: Props) {
  const { t, i18n } = useTranslation();
  const dates = { type: "multiple", valueFormat: "YYYY-MM-DD", locale: calendarLocale(i18n.language), clearable: true } as const;
  return (
    <Stack gap="sm">
      <SimpleGrid cols={{ base: 1, xs: 2 }} spacing="sm" style={{ alignItems: "end" }}>
        <TimeInput label={t("window.opens")} value={draft.opens} onChange={(event) => onChange({ opens: event.currentTarget.value })} error={errors["run_window.opens"] ?? errors.run_window} />
        <TimeInput label={t("window.closes")} value={draft.closes} onChange={(event) => onChange({ closes: event.currentTarget.value })} error={errors["run_window.closes"]} />
      </SimpleGrid>
      <Input.Wrapper label={t("window.days")} labelElement="div" description={t("window.daysHint")} error={errorOf(errors, "run_window.days")}>
        <Chip.Group multiple value={draft.days} onChange={(days) => onChange({ days: weekdays.filter((day) => days.includes(day)) })}>
          <Group gap={6} mt={6} role="group" aria-label={t("window.days")}>
            {weekdays.map((day) => <Chip key={day} value={day} size="xs">{dayName(day, i18n.language)}</Chip>)}
          </Group>
        </Chip.Group>
      </Input.Wrapper>
      <SimpleGrid cols={{ base: 1, xs: 2 }} spacing="sm" style={{ alignItems: "end" }}>
        <TextInput label={t("window.country")} placeholder="CN" maxLength={3} value={draft.country} onChange={(event) => onChange({ country: event.currentTarget.value })} error={errors["calendar.country"] ?? errors.calendar} />
        <TextInput label={t("window.subdivision")} maxLength={10} value={draft.subdivision} onChange={(event) => onChange({ subdivision: event.currentTarget.value })} error={errors["calendar.subdivision"]} />
        <DatePickerInput {...dates} label={t("window.closed")} value={draft.closed} onChange={(closed) => onChange({ closed })} error={errorOf(errors, "calendar.closed")} />
        <DatePickerInput {...dates} label={t("window.open")} value={draft.open} onChange={(open) => onChange({ open })} error={errorOf(errors, "calendar.open")} />
        <Select label={t("window.closedPolicy")} value={draft.closed_policy} allowDeselect={false} data={(["skip", "defer"] as const).map((value) => ({ value, label: t(`window.closed_${value}`) }))} onChange={(value) => onChange({ closed_policy: value === "defer" ? "defer" : "skip" })} error={errors.closed_policy} />
      </SimpleGrid>
    </Stack>
  );
}
