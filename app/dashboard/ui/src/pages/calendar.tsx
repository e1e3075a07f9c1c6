import { Stack, Table, Text } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useState } from "react";
import { useTranslation } from "react-i18next";

import type { Schemas } from "../api/client";
import { calendarQuery } from "../api/queries";
import { Empty, Loaded } from "../components/feedback";
import { Page, Section } from "../components/page";
import { ScheduleDoctor } from "../components/schedule-doctor";
import { count } from "../format";

type Calendar = Schemas["CalendarAnswer"];

const HOUR = 3_600_000;

export interface Cell {
  /** Which hour of the calendar's span; null: outside of it. */
  index: number | null;
  total: number;
}

/** The hours of the span by the browser's own days. */
export function byDay(calendar: Calendar): { day: Date; cells: Cell[] }[] {
  const since = Date.parse(calendar.since);
  const totals = Array.from({ length: calendar.hours }, (_, hour) => calendar.tasks.reduce((sum, task) => sum + (task.counts[hour] ?? 0), 0));
  const days = new Map<string, { day: Date; cells: Cell[] }>();
  totals.forEach((total, index) => {
    const at = new Date(since + index * HOUR);
    const key = at.toDateString();
    const row = days.get(key) ?? { day: at, cells: Array.from({ length: 24 }, () => ({ index: null, total: 0 })) };
    days.set(key, row);
    const cell = row.cells[at.getHours()];
    // The hour that a clock set back repeats is in the same cell.
    row.cells[at.getHours()] = { index: cell?.index ?? index, total: (cell?.total ?? 0) + total };
  });
  return [...days.values()];
}

export default function CalendarPage() {
  const { t } = useTranslation();
  const found = useQuery(calendarQuery);
  return (
    <Page title={t("calendar.title")}>
      <Loaded query={found} none={found.data?.tasks.length === 0 ? t("calendar.empty") : null}>
        {(data) => (
          <Week calendar={data} />
        )}
      </Loaded>
      <ScheduleDoctor />
    </Page>
  );
}

function Week({ calendar }: { calendar: Calendar }) {
  const { t, i18n } = useTranslation();
  const [picked, pick] = useState(0);
  const days = byDay(calendar);
  const most = Math.max(...days.flatMap((day) => day.cells.map((cell) => cell.total)), 1);
  const dayFormat = new Intl.DateTimeFormat(i18n.language, { weekday: "short", month: "numeric", day: "numeric" });
  const at = new Date(Date.parse(calendar.since) + picked * HOUR);
  const fires = calendar.tasks.filter((task) => (task.counts[picked] ?? 0) > 0).sort((a, b) => (b.counts[picked] ?? 0) - (a.counts[picked] ?? 0));
  return (
    <Stack gap="md">
      <Section title={t("calendar.text")} flush>
        <Table.ScrollContainer minWidth={820} px="md" pb="md" scrollAreaProps={{ type: "auto" }}>
          <table className="calendar" style={{ width: "100%" }}>
            <thead>
              <tr>
                <td />
                {Array.from({ length: 24 }, (_, hour) => <th key={hour} scope="col" className="number">{hour}</th>)}
              </tr>
            </thead>
            <tbody>
              {days.map(({ day, cells }) => (
                <tr key={day.toDateString()}>
                  <th scope="row" style={{ textAlign: "left", whiteSpace: "nowrap", paddingRight: 8 }}>{dayFormat.format(day)}</th>
                  {cells.map(({ index, total }, hour) => (
                    <td key={hour}>
                      {index === null ? null : (
                        <button
                          type="button"
                          className="number"
                          aria-pressed={picked === index}
                          aria-label={`${dayFormat.format(day)} ${hour}:00: ${short(total, i18n.language)} (${t("calendar.fires", { count: total })})`}
                          onClick={() => pick(index)}
                          style={{
                            color: "var(--mantine-color-bright)",
                            background: total === 0 ? "var(--mantine-color-default-hover)" : `color-mix(in srgb, var(--mantine-color-ink-5) ${Math.round(12 + 48 * Math.sqrt(total / most))}%, var(--mantine-color-body))`,
                            outline: picked === index ? "2px solid var(--mantine-primary-color-filled)" : undefined,
                          }}
                        >
                          {total === 0 ? "" : short(total, i18n.language)}
                        </button>
                      )}
                    </td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </Table.ScrollContainer>
      </Section>
      {calendar.tasks.length < calendar.task_count ? <Text size="sm" c="dimmed">{t("calendar.partial", { shown: calendar.tasks.length, total: calendar.task_count })}</Text> : null}
      <Section title={`${dayFormat.format(at)} ${at.getHours()}:00`} flush>
        {fires.length === 0 ? (
          <Empty>{t("calendar.pick")}</Empty>
        ) : (
          <Table className="rows">
            <Table.Tbody>
              {fires.map((task) => (
                <Table.Tr key={task.task_id}>
                  <Table.Td><Link className="link" to="/tasks/$id" params={{ id: task.task_id }}>{task.task_name}</Link></Table.Td>
                  <Table.Td ta="right" className="number">{count(task.counts[picked] ?? 0, i18n.language)} {task.is_estimate ? t("calendar.estimate") : ""}</Table.Td>
                </Table.Tr>
              ))}
            </Table.Tbody>
          </Table>
        )}
      </Section>
    </Stack>
  );
}

const short = (value: number, language: string) => new Intl.NumberFormat(language, { notation: "compact", maximumFractionDigits: 0 }).format(value);
